//go:build unix

package agent

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/spool"
)

const (
	// maintTold is how long after a balancer was told of maint its end is expected. It asks more often.
	maintTold = time.Minute
	// maxPasses bounds what is remembered, at most four of them a target. Past it the memory is begun
	// anew, and what comes back then waits for its next check.
	maxPasses = 100_000
)

// Successes remembers when checks have last passed, while that may matter: while balancers are told of maint,
// and until what was in maint is back. The rest of the time it costs a check one look at a pointer. The zero
// value is ready, and it is safe for concurrent use.
type Successes struct {
	until atomic.Pointer[time.Time] // when nothing needs to be noted any more; nil is now

	mu   sync.Mutex
	last map[passed]time.Time // the latest begin of a check that has passed
}

// passed is what a check that passed speaks for.
type passed struct {
	of            extent
	service, host string
	port          uint16
}

type extent uint8

const (
	ofAny      extent = iota // any check
	ofService                // any check of service
	ofWhole                  // service without a port, which speaks for all its instances
	ofPort                   // service at port
	ofLoopback               // service at port, by the loopback address or a name: at any address of this machine, then
	ofTarget                 // service at host and port
)

// expect has passes noted for a while from now on.
func (p *Successes) expect(d time.Duration) {
	until := time.Now().Add(d)
	for {
		old := p.until.Load()
		if old != nil && !old.Before(until) || p.until.CompareAndSwap(old, &until) {
			return
		}
	}
}

// OverrideChanged is told of the changes in the spool.
func (p *Successes) OverrideChanged(c spool.Change) {
	if c.Old != nil && c.Old.State == spool.Maint {
		p.expect(comingBack)
	}
}

// CheckFinished is told of the checks that have run, as health.Options.OnResult.
func (p *Successes) CheckFinished(t *check.Target, r check.Result, began time.Time) {
	until := p.until.Load()
	if until == nil {
		return
	}
	if time.Now().After(*until) {
		if p.until.CompareAndSwap(until, nil) {
			p.mu.Lock()
			p.last = nil
			p.mu.Unlock()
		}
		return
	}
	if r.Code != http.StatusOK {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil || len(p.last) >= maxPasses {
		p.last = map[passed]time.Time{}
	}
	note := func(k passed) {
		if began.After(p.last[k]) {
			p.last[k] = began
		}
	}
	note(passed{of: ofAny})
	note(passed{ofService, t.Service, "", 0})
	if t.Port == 0 {
		note(passed{ofWhole, t.Service, "", 0})
		return
	}
	note(passed{ofPort, t.Service, "", t.Port})
	host := spool.CanonicalHost(t.Host)
	if addr, err := netip.ParseAddr(host); err == nil && !addr.IsLoopback() {
		note(passed{ofTarget, t.Service, host, t.Port})
	} else {
		note(passed{ofLoopback, t.Service, "", t.Port})
	}
}

// since reports whether a check that speaks for k has passed that began after then. here says that the host
// of k is this machine.
func (p *Successes) since(k spool.Key, here bool, then time.Time) bool {
	p.expect(comingBack)
	p.mu.Lock()
	defer p.mu.Unlock()
	ok := func(of extent, service, host string, port uint16) bool {
		return p.last[passed{of, service, host, port}].After(then)
	}
	switch {
	case k.Service == spool.All:
		return ok(ofAny, "", "", 0)
	case k.Port == 0:
		return ok(ofService, k.Service, "", 0)
	case ok(ofWhole, k.Service, "", 0):
		return true
	case k.Host == "":
		return ok(ofPort, k.Service, "", k.Port)
	}
	return ok(ofTarget, k.Service, k.Host, k.Port) || here && ok(ofLoopback, k.Service, "", k.Port)
}
