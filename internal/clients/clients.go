// Package clients knows the addresses of clients: which connections and requests count as one client's, which
// addresses belong to this machine, and how many connections a client may have. It knows no protocol.
package clients

import (
	"net/netip"
	"slices"
	"strings"
)

// NetworkOfAddr returns the network that counts as one client: an IPv4 address or a loopback address by itself, and the
// network of 64 bits of any other IPv6 address, because one host may use all of its addresses. It drops zones and counts
// an IPv4-mapped address as IPv4. It returns the zero Prefix for the zero Addr.
func NetworkOfAddr(addr netip.Addr) netip.Prefix {
	addr = addr.WithZone("").Unmap()
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLoopback() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // fails for the zero Addr alone, and then returns the zero Prefix
	return p
}

// NetworkOf is NetworkOfAddr for an address in text, without a port. It returns the zero Prefix for text that is no
// address, so that all clients without one share one limit.
func NetworkOf(addr string) netip.Prefix { return NetworkOfAddr(AddrOrZero(addr)) }

// HostPart returns the address in remote, the text of a listener's "address:port". It is net.SplitHostPort without the
// tests for text from elsewhere.
func HostPart(remote string) string {
	i := strings.LastIndexByte(remote, ':')
	if i < 0 {
		return remote
	}
	if h := remote[:i]; len(h) > 1 && h[0] == '[' {
		return h[1 : len(h)-1]
	}
	return remote[:i]
}

// AddrOrZero parses an address in text, without a port. It drops a zone and unmaps an IPv4-mapped address, so that the
// result compares with configured networks. It returns the zero Addr, which no network contains, for other text.
func AddrOrZero(addr string) netip.Addr {
	a, _ := netip.ParseAddr(addr) // the zero Addr with the error
	return a.WithZone("").Unmap()
}

// Contains reports whether one of the networks contains addr.
func Contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}
