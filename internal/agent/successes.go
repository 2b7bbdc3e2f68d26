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
	// maintRecordTime is how long after a balancer was told of maint its end is expected. It asks more often.
	maintRecordTime = time.Minute
	// maxSuccesses bounds what is remembered, at most four of them a target. Past it the memory is begun
	// anew, and what comes back then waits for its next check.
	maxSuccesses = 100_000
)

// Successes remembers when checks have last passed, while that may matter: while balancers are told of maint,
// and until what was in maint is back. The rest of the time it costs a check one look at a pointer. The zero
// value is ready, and it is safe for concurrent use.
type Successes struct {
	recordUntil atomic.Pointer[time.Time] // when nothing needs to be noted any more; nil is now

	mu   sync.Mutex
	latest map[passed]time.Time // the latest begin of a check that has passed
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

// recordFor has passes noted for a while from now on.
func (p *Successes) recordFor(d time.Duration) {
	until := time.Now().Add(d)
	for {
		old := p.recordUntil.Load()
		if old != nil && !old.Before(until) || p.recordUntil.CompareAndSwap(old, &until) {
			return
		}
	}
}

// OverrideChanged is told of the changes in the spool.
func (p *Successes) OverrideChanged(c spool.Change) {
	if c.Old != nil && c.Old.State == spool.Maint {
		p.recordFor(recheckTimeout)
	}
}

// CheckFinished is told of the checks that have run, as health.Options.OnResult.
func (p *Successes) CheckFinished(t *check.Target, r check.Result, began time.Time) {
	until := p.recordUntil.Load()
	if until == nil {
		return
	}
	if time.Now().After(*until) {
		if p.recordUntil.CompareAndSwap(until, nil) {
			p.mu.Lock()
			p.latest = nil
			p.mu.Unlock()
		}
		return
	}
	if r.Code != http.StatusOK {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest == nil || len(p.latest) >= maxSuccesses {
		p.latest = map[passed]time.Time{}
	}
	note := func(k passed) {
		if began.After(p.latest[k]) {
			p.latest[k] = began
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

// passedSince reports whether a check that speaks for k has passed that began after then. here says that the host
// of k is this machine.
func (p *Successes) passedSince(k spool.Key, here bool, then time.Time) bool {
	p.recordFor(recheckTimeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	ok := func(of extent, service, host string, port uint16) bool {
		return p.latest[passed{of, service, host, port}].After(then)
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
