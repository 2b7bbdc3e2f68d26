//go:build !linux

package check

import (
	"errors"
	"fmt"
	"net/netip"
)

// udpBound returns an error: other systems show the sockets of other processes only to root or through a program.
func udpBound(netip.Addr, uint16) (bool, error) {
	return false, fmt.Errorf("see what is bound to a UDP port: %w on this system", errors.ErrUnsupported)
}
