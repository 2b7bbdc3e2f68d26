package web

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/health"
)

// TestTablesAreBounded: with more services than the tables hold, every client gets room at the cost of the client that
// fills them, and no other client loses a service.
func TestTablesAreBounded(t *testing.T) {
	tab := newRecentTable(balancer.New())
	now := time.Now()
	ask := func(service, peer string) {
		tab.record(service, &balancer.AnsweredRequest{Peer: peer, Code: 200, Answered: now}, &health.Verdict{})
	}
	ask("web", "10.0.0.1")
	ask("svc7", "10.0.0.1") // the flood asks about this one as well
	for i := range maxServices + 1000 {
		ask(fmt.Sprintf("svc%d", i), "127.0.0.1")
	}
	if n := len(tab.since(now.Add(-time.Minute), "")); n != maxServices || len(tab.rows) != n {
		t.Errorf("%d services, want %d", n, maxServices)
	}
	for i := range 2000 {
		ask(fmt.Sprintf("late%d", i), "10.0.0.2")
	}
	if n := len(tab.since(now.Add(-time.Minute), "")); n != maxServices || len(tab.rows) != n {
		t.Errorf("%d services, want %d", n, maxServices)
	}
	for _, name := range []string{"web", "svc7", "late0", "late1999", "svc9000"} {
		if tab.get(name) == nil {
			t.Errorf("%s has lost its row", name)
		}
	}
	for _, name := range []string{"svc0", "svc100", "svc10500"} {
		if tab.get(name) != nil {
			t.Errorf("%s has a row", name)
		}
	}
	for i := range maxCallers + 1000 {
		ask("svc9000", fmt.Sprintf("2001:db8::%x:%x", i>>16, i&0xffff))
	}
	if n := tab.callers.Len(); n > maxCallers {
		t.Errorf("%d callers, want at most %d", n, maxCallers)
	}
	ask("web", "10.0.0.3")
	if n := len(tab.counts()["web"]); n != 2 {
		t.Errorf("%d callers of web, want 2", n)
	}
	// When they are old they make room.
	for _, s := range tab.all() {
		s.at = now.Add(-recentFor - time.Second)
	}
	tab.swept = time.Time{}
	ask("new", "127.0.0.1")
	if rows := tab.since(now.Add(-time.Minute), ""); len(rows) != 1 || rows[0].service != "new" || tab.callers.Len() != 1 {
		t.Errorf("%d rows and %d callers after the old ones were dropped", len(rows), tab.callers.Len())
	}
}

// TestTwoClientsTogether: two clients that ask about the same invented services keep a third one out no longer than one
// of them alone.
func TestTwoClientsTogether(t *testing.T) {
	tab := newRecentTable(balancer.New())
	now := time.Now()
	for i := range maxServices {
		for _, peer := range []string{"10.6.6.6", "10.6.6.7"} {
			tab.getOrCreate(fmt.Sprintf("svc%d", i), peer, now)
			tab.addCaller(fmt.Sprintf("svc%d", i), peer, now)
		}
	}
	for _, name := range []string{"web", "api"} {
		if tab.getOrCreate(name, "10.0.0.1", now) == nil {
			t.Errorf("no row for %s", name)
		}
	}
	if len(tab.rows) != maxServices {
		t.Errorf("%d services, want %d", len(tab.rows), maxServices)
	}
}

// TestTableUnderLoad: the table is consistent after clients have displaced each other's rows while asking about them.
func TestTableUnderLoad(t *testing.T) {
	tab := newRecentTable(balancer.New())
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 4 * maxServices {
				peer, service := fmt.Sprintf("10.0.%d.%d", worker, i%7), fmt.Sprintf("svc%d", i%(maxServices/2+worker*3000))
				tab.record(service, &balancer.AnsweredRequest{
					Peer: peer, HasState: true, Node: "n", Name: "be/s", Code: 200, Answered: time.Now(),
				}, &health.Verdict{})
			}
		})
	}
	wg.Wait()
	rows, callers := 0, 0
	for name, s := range tab.rows {
		rows++
		s.each(func(c *caller) {
			if c.row != s || c.place == nil {
				t.Errorf("%s: a caller of another row", name)
			}
			callers++
		})
		if s.removed || s.name != name {
			t.Errorf("%s: removed %v, named %s", name, s.removed, s.name)
		}
	}
	if rows != len(tab.rows) || callers != tab.callers.Len() || rows > maxServices {
		t.Errorf("%d rows counted as %d, %d callers counted as %d", rows, len(tab.rows), callers, tab.callers.Len())
	}
}
