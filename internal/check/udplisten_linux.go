package check

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
)

// udpBound reports whether a socket receives what is sent to port at host; see receives. It reads each table once.
// Without IPv6 the kernel has no second table.
func udpBound(host netip.Addr, port uint16) (bool, error) {
	match := func(local netip.AddrPort) bool { return receives(local, host, port) }
	bound, err := udpBoundIn("/proc/self/net/udp", match)
	if bound || err != nil {
		return bound, err
	}
	bound, err = udpBoundIn("/proc/self/net/udp6", match)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bound, err
}

func udpBoundIn(path string, match func(netip.AddrPort) bool) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	return findUDP(f, match)
}
