package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Timeout returns a wrapper that ends a check after d: its context then says so and the check answers
// 503 ReasonTimeout. Wrapped around Limit it counts the wait for a slot, as healthcheck_timeout does.
// d of 0 or less is no time at all.
func Timeout(d time.Duration) func(Func) Func {
	return func(f Func) Func {
		return func(ctx context.Context, t Target) Result {
			ctx, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			return f(ctx, t)
		}
	}
}

// Limit returns a wrapper that lets at most n checks run at once, all the checks it is wrapped around
// together; see Limiter.
func Limit(n int) func(Func) Func { return NewLimiter(n).Wrap }

// maxWaiting is how many checks may wait for a slot of a Limiter. Each costs a goroutine and a connection; past it
// the answer "busy" is better given at once.
const maxWaiting = 4096

// Limiter has a number of slots; a check that it wraps needs one to run. The slots are divided among what is checked:
// a host and port, or a service whose configuration says what to ask. One of them has at most half of the slots, and
// a slot that becomes free goes to the one with the fewest checks running; see slots. It starts no goroutine.
type Limiter struct{ slots *slots }

// NewLimiter returns a limiter of n slots. It panics when n is less than 1: nothing could ever run.
func NewLimiter(n int) *Limiter {
	if n < 1 {
		panic(fmt.Sprintf("check: a limit of %d checks", n))
	}
	return &Limiter{newSlots(n, maxWaiting)}
}

// Waiting is the number of checks that wait for a slot now.
func (l *Limiter) Waiting() int {
	_, _, waiting := l.slots.count(share{})
	return waiting
}

// Running is the number of slots taken now.
func (l *Limiter) Running() int {
	running, _, _ := l.slots.count(share{})
	return running
}

// Wrap returns f behind the limiter. A check whose context ends while it waits for a slot never runs
// and answers 503: ReasonBusy when its time is up, ReasonCancelled when its asker has left. One whose time
// is up after it has waited for the larger part of it answers ReasonBusy as well: the rest of a second says
// nothing about a service that is given ten. One that finds too many waiting already answers ReasonBusy at once.
func (l *Limiter) Wrap(f Func) Func {
	return func(ctx context.Context, t Target) Result {
		of := shareOf(&t)
		if l.slots.tryAcquire(of) {
			// Deferred, because a slot lost to a panic that something above survives never comes back.
			defer l.slots.release(of)
			return f(ctx, t)
		}
		start, why := time.Now(), l.why(of)
		if err := l.slots.acquire(ctx, of); err != nil {
			return l.notRun(err, time.Since(start), why)
		}
		defer l.slots.release(of)
		if end, ok := ctx.Deadline(); ctx.Err() != nil || ok && !time.Now().Before(end) {
			// The slot and the end came together: a check that is run now would blame the service.
			return l.notRun(cmp.Or(ctx.Err(), context.DeadlineExceeded), time.Since(start), why)
		}
		ran := time.Now()
		r := f(ctx, t)
		if waited := ran.Sub(start); r.Reason == ReasonTimeout && ctx.Err() != nil && waited > time.Since(ran) {
			r.Reason, r.Took = ReasonBusy, time.Since(start)
			r.Body = fmt.Appendf(nil, "hacheck is busy: %s for %.2fs, and %.2fs were too short for the check",
				why, waited.Seconds(), time.Since(ran).Seconds())
		}
		return r
	}
}

// why says what keeps a share from a slot.
func (l *Limiter) why(of share) string {
	running, mine, _ := l.slots.count(of)
	if running < l.slots.size && mine > 0 {
		return fmt.Sprintf("checks of %s had their share of the %d slots (max_clients), %d of them,", of, l.slots.size, mine)
	}
	return fmt.Sprintf("all %d slots (max_clients) were taken", l.slots.size)
}

// notRun is the result of a check that got no slot.
func (l *Limiter) notRun(err error, took time.Duration, why string) Result {
	r := Result{Code: 503, Reason: ReasonBusy, Took: took, Err: fmt.Errorf("wait for one of %d slots: %w", l.slots.size, err)}
	switch {
	case errors.Is(err, errNoPlace):
		r.Body = []byte("hacheck is busy: too many checks are waiting already")
	case errors.Is(err, context.Canceled):
		r.Reason = ReasonCancelled
		r.Body = fmt.Appendf(nil, "Check cancelled after %.2fs (waiting for one of %d slots)", took.Seconds(), l.slots.size)
	default:
		r.Body = fmt.Appendf(nil, "hacheck is busy: %s for %.2fs", why, took.Seconds())
	}
	return r
}
