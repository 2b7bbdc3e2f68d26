package clients_test

import (
	"net/netip"
	"slices"
	"testing"

	"hacheck/internal/clients"
)

// connLimiter has every connection that it closes entered in closed.
type connLimiter struct {
	*clients.ConnLimiter
	closed []string
}

func (l *connLimiter) acquire(name, addr string) *clients.ConnSlot {
	return l.Acquire(netip.MustParseAddr(addr), func() { l.closed = append(l.closed, name) })
}

func newConnLimiter(perClient, total int) *connLimiter {
	return &connLimiter{ConnLimiter: clients.NewConnLimiter(clients.ConnLimits{PerClient: perClient, Total: total})}
}

func TestConnLimiterClosesTheLongestWaitingOfTheClient(t *testing.T) {
	t.Parallel()
	l := newConnLimiter(2, 100)
	first, second := l.acquire("a1", "2001:db8::1"), l.acquire("a2", "2001:db8::2")
	other := l.acquire("b1", "2001:db8:0:1::1")
	if first == nil || second == nil || other == nil {
		t.Fatal("refused below every bound")
	}
	first.SetWaiting(false)
	first.SetWaiting(true) // has waited for a shorter time than second
	if l.acquire("a3", "2001:db8::3") == nil {
		t.Error("refused, although a connection of the client waits")
	}
	if want := []string{"a2"}; !slices.Equal(l.closed, want) {
		t.Errorf("closed %v, want %v", l.closed, want)
	}
	first.Use() // has its turn once more
	if l.acquire("a4", "2001:db8::4") == nil {
		t.Error("refused, although a connection of the client waits")
	}
	if want := []string{"a2", "a3"}; !slices.Equal(l.closed, want) {
		t.Errorf("closed %v, want %v", l.closed, want)
	}
}

func TestConnLimiterRefusesWhenNoneWaits(t *testing.T) {
	t.Parallel()
	l := newConnLimiter(2, 100)
	busy := []*clients.ConnSlot{l.acquire("a1", "10.0.0.1"), l.acquire("a2", "10.0.0.1")}
	for _, s := range busy {
		s.SetWaiting(false)
	}
	if l.acquire("a3", "10.0.0.1") != nil {
		t.Error("a third of two connections is accepted")
	}
	if l.acquire("b1", "10.0.0.2") == nil {
		t.Error("what one client holds keeps another out")
	}
	busy[0].Release()
	busy[0].Release()
	if l.acquire("a4", "10.0.0.1") == nil {
		t.Error("a released connection makes no room")
	}
	if len(l.closed) > 0 {
		t.Errorf("closed %v, want none", l.closed)
	}
}

func TestConnLimiterTotal(t *testing.T) {
	t.Parallel()
	type report struct {
		held  int
		total bool
	}
	var reports []report
	l := &connLimiter{ConnLimiter: clients.NewConnLimiter(clients.ConnLimits{
		PerClient: 2, Total: 3, OnLimit: func(_ netip.Prefix, held int, total bool) { reports = append(reports, report{held, total}) },
	})}
	a, b, c := l.acquire("a", "10.0.0.1"), l.acquire("b", "10.0.0.2"), l.acquire("c", "10.0.0.3")
	a.SetWaiting(false)
	if l.acquire("d", "10.0.0.4") == nil {
		t.Error("refused, although connections wait")
	}
	if want := []string{"b"}; !slices.Equal(l.closed, want) {
		t.Errorf("closed %v, want %v", l.closed, want)
	}
	b.Release()         // the server notices that its connection is closed
	b.SetWaiting(false) // of no effect
	c.SetWaiting(false)
	if l.acquire("e", "10.0.0.5") == nil { // for d
		t.Error("refused, although a connection waits")
	}
	if want := []report{{0, true}}; !slices.Equal(reports, want) {
		t.Errorf("reported %v, want %v: once a minute", reports, want)
	}
}
