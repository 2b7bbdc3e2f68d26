// Package clients says which connections and requests count as one client's, wherever something is limited by
// client, and bounds how many connections a client has. It knows no protocol.
package clients

import "net/netip"

// Network returns what addr counts as: an IPv4 address or the loopback address by itself, any other IPv6 address
// as its network of 64 bits, because one host may use all of them. It returns the zero Prefix for the zero Addr.
// Zones are dropped; an IPv4-mapped address counts as IPv4.
func Network(addr netip.Addr) netip.Prefix {
	addr = addr.WithZone("").Unmap()
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLoopback() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // fails for the zero Addr alone, and then returns the zero Prefix
	return p
}

// NetworkOf is Network of an address in text, without a port. It returns the zero Prefix for text that is no
// address, so that all clients without one share one limit.
func NetworkOf(addr string) netip.Prefix {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}
	}
	return Network(a)
}
