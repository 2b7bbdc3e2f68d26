//go:build !linux

package check

import (
	"errors"
	"fmt"
	"net/netip"
)

// udpBound is not known here: other systems show the sockets of other processes to root alone, or by a
// program.
func udpBound(netip.Addr, uint16) (bool, error) {
	return false, fmt.Errorf("see what is bound to a UDP port: %w on this system", errors.ErrUnsupported)
}
