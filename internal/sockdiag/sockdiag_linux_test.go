package sockdiag

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// accepted opens n connections to a listener and returns them, accepted.
func accepted(t *testing.T, address string, n int) (port uint16, clients []net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for range n {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = c.Close(), s.Close() })
		clients = append(clients, c)
	}
	return netip.MustParseAddrPort(l.Addr().String()).Port(), clients
}

func TestEstablished(t *testing.T) {
	four, clients := accepted(t, "127.0.0.1:0", 3)
	six, _ := accepted(t, "[::1]:0", 2)
	none, _ := accepted(t, "127.0.0.1:0", 0)
	loopback := netip.MustParseAddr("127.0.0.1")
	want := []Connections{{loopback, four, loopback, 3}, {netip.IPv6Loopback(), six, netip.IPv6Loopback(), 2}}
	slices.SortFunc(want, func(a, b Connections) int { return int(a.Port) - int(b.Port) })
	if got, err := Established([]uint16{four, six, none}); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := Established([]uint16{four}); err != nil || !slices.Equal(got, []Connections{{loopback, four, loopback, 3}}) {
		t.Errorf("one port: %v, %v", got, err)
	}
	for _, c := range clients {
		_ = c.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, err := Established([]uint16{four, none})
		if err == nil && len(got) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("closed: %v, %v", got, err)
		}
	}
}

// TestManyPeers: the list is bounded, the count is not.
func TestManyPeers(t *testing.T) {
	c := &counter{ports: []uint16{80}, counts: map[peer]int{}}
	addr, loopback := netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("127.0.0.1")
	for range 3 * maxPeers {
		addr = addr.Next()
		c.add(netip.AddrPortFrom(loopback, 80), addr)
		c.add(netip.AddrPortFrom(loopback, 81), addr)
	}
	sum, list := 0, c.list()
	for _, l := range list {
		sum += l.Count
	}
	if sum != 3*maxPeers || len(list) != maxPeers+1 || list[0].Peer.IsValid() {
		t.Errorf("%d connections in %d rows, the first %v", sum, len(list), list[0])
	}
}
