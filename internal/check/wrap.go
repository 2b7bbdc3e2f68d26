package check

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
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

// Limiter has a number of slots; a check that it wraps needs one to run. It starts no goroutine.
type Limiter struct {
	slots   chan struct{}
	waiting atomic.Int64
}

// NewLimiter returns a limiter of n slots. It panics when n is less than 1: nothing could ever run.
func NewLimiter(n int) *Limiter {
	if n < 1 {
		panic(fmt.Sprintf("check: a limit of %d checks", n))
	}
	return &Limiter{slots: make(chan struct{}, n)}
}

// Waiting is the number of checks that wait for a slot now.
func (l *Limiter) Waiting() int { return int(l.waiting.Load()) }

// Running is the number of slots taken now.
func (l *Limiter) Running() int { return len(l.slots) }

// Wrap returns f behind the limiter. A check whose context ends while it waits for a slot never runs
// and answers 503: ReasonBusy when its time is up, ReasonCancelled when its asker has left. One whose time
// is up after it has waited for the larger part of it answers ReasonBusy as well: the rest of a second says
// nothing about a service that is given ten.
func (l *Limiter) Wrap(f Func) Func {
	return func(ctx context.Context, t Target) Result {
		var start, ran time.Time
		select {
		case l.slots <- struct{}{}:
		default:
			start = time.Now()
			if r, ok := l.wait(ctx, start); !ok {
				return r
			}
			ran = time.Now()
		}
		// Deferred, because a slot lost to a panic that something above survives never comes back.
		defer func() { <-l.slots }()
		r := f(ctx, t)
		if waited := ran.Sub(start); r.Reason == ReasonTimeout && ctx.Err() != nil && waited > time.Since(ran) {
			r.Reason, r.Took = ReasonBusy, time.Since(start)
			r.Body = fmt.Appendf(nil, "hacheck is busy: all %d slots (max_clients) were taken for %.2fs, and %.2fs were too short for the check",
				cap(l.slots), waited.Seconds(), time.Since(ran).Seconds())
		}
		return r
	}
}

// wait takes a slot once one is free; otherwise it says why there was none. It begins at start.
func (l *Limiter) wait(ctx context.Context, start time.Time) (Result, bool) {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	select {
	case l.slots <- struct{}{}:
		if end, ok := ctx.Deadline(); ctx.Err() == nil && (!ok || time.Now().Before(end)) {
			return Result{}, true
		}
		// The slot and the end came together: a check that is run now would blame the service.
		<-l.slots
	case <-ctx.Done():
	}
	took := time.Since(start)
	r := Result{Code: 503, Reason: ReasonBusy, Took: took, Err: fmt.Errorf("wait for one of %d slots: %w", cap(l.slots), cmp.Or(ctx.Err(), context.DeadlineExceeded))}
	if ctx.Err() == context.Canceled {
		r.Reason = ReasonCancelled
		r.Body = fmt.Appendf(nil, "Check cancelled after %.2fs (waiting for one of %d slots)", took.Seconds(), cap(l.slots))
		return r, false
	}
	r.Body = fmt.Appendf(nil, "hacheck is busy: all %d slots (max_clients) were taken for %.2fs", cap(l.slots), took.Seconds())
	return r, false
}
