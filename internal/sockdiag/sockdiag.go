// Package sockdiag asks the kernel for the established TCP connections to ports of this machine. A balancer counts the
// sessions that its present process has open; the old process of a reloaded HAProxy, and every other client, hold
// connections that no balancer reports.
package sockdiag

import (
	"cmp"
	"net/netip"
	"slices"
)

// maxPeers is how many combinations of a local address, a port and a peer are listed. The rest is counted under the zero
// address.
const maxPeers = 1000

// Connections is how many connections to a port one peer has.
type Connections struct {
	Local netip.Addr // of this machine; IPv4 addresses are never mapped
	Port  uint16
	Peer  netip.Addr // likewise; zero: all peers beyond the first 1,000
	Count int
}

// counter counts the connections to some ports.
type counter struct {
	ports  []uint16
	counts map[peer]int
}

type peer struct {
	local netip.Addr
	port  uint16
	addr  netip.Addr
}

// add counts one connection, unless it is to another port.
func (c *counter) add(local netip.AddrPort, addr netip.Addr) {
	if !slices.Contains(c.ports, local.Port()) {
		return
	}
	p := peer{local.Addr().Unmap(), local.Port(), addr.Unmap()}
	if _, known := c.counts[p]; !known && len(c.counts) >= maxPeers {
		p.addr = netip.Addr{}
	}
	c.counts[p]++
}

// list returns the counts, sorted by port, local address and peer.
func (c *counter) list() []Connections {
	list := make([]Connections, 0, len(c.counts))
	for p, n := range c.counts {
		list = append(list, Connections{p.local, p.port, p.addr, n})
	}
	slices.SortFunc(list, func(a, b Connections) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), a.Local.Compare(b.Local), a.Peer.Compare(b.Peer))
	})
	return list
}
