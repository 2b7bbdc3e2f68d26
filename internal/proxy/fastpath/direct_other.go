//go:build !linux

package proxy

import "net"

// direct needs what only Linux has.
func (s *Server) direct(net.Listener) (net.Listener, bool) { return nil, false }
