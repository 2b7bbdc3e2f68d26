//go:build !linux

package fastpath

import "net"

// listenDirect needs what only Linux has.
func listenDirect(net.Listener, *endpoint) (net.Listener, bool) { return nil, false }
