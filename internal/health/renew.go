package health

import (
	"time"

	"hacheck/internal/check"
)

// A request that gets a cached result shortly before it expires causes a renewal: a check in the background. So a client
// that asks regularly never waits for the service. Renewals make no answer older, because each result still expires at
// its time.
//
// A renewal has the generation of overrides of the request that caused it. If an override of the target ends during the
// renewal, no later request uses its result.

// renewalPart says in which part of its time in the cache a result is renewed: the last fifth.
const renewalPart = 5

// renewAfter returns the age from which r is renewed if it is cached for ttl. The rest of ttl is a fifth of it, or twice
// the duration of the check if that is longer, but at most half. Twice, because the next request may come nearly one
// duration of the check after that age.
func renewAfter(r check.Result, ttl time.Duration) time.Duration {
	return ttl - min(max(ttl/renewalPart, 2*r.Took), ttl/2)
}

// renew runs the check of a cached result that expires soon. No client waits for it, unless the result expires meanwhile.
func (e *Evaluator) renew(t check.Target, p *PendingCheck) {
	if e.renewals.Err() != nil {
		return
	}
	e.renewalsInFlight.Add(1)
	defer e.renewalsInFlight.Add(-1)
	e.results.Renew(p.key, p.generation, func() check.Result {
		r := e.run(e.renewals, t, p, p.renew)
		switch r.Reason {
		case check.ReasonBusy:
			e.o.Counters.renewalsBusy.Add(1)
		case check.ReasonCancelled: // the daemon stops, or has another configuration
		default:
			e.o.Counters.renewalsDone.Add(1)
		}
		return r
	})
}

// StopRenewals cancels the renewals in flight and begins no more. The evaluator answers as before. Clients that wait
// for the result of a renewal run the check themselves. It may be called more than once.
func (e *Evaluator) StopRenewals() { e.stopRenewals() }

// Renewals count the checks that renewed a cached result before it expired.
type Renewals struct {
	Done uint64 // with a new result
	// Busy counts those without a result, because no slot was free for example. The cached result stayed.
	Busy     uint64
	InFlight int
}
