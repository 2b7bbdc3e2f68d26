package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// maxWaiting is how many checks may wait for a slot of a Limiter. Each costs a goroutine and a connection. A check
// beyond it is answered "busy" at once.
const maxWaiting = 4096

// Limiter limits how many checks run at once. Each check that it wraps needs a slot to run. The slots are divided
// among the targets, so that no target takes all of them; see slots. A Limiter starts no goroutine.
type Limiter struct{ slots *slots }

// NewLimiter returns a limiter of n slots. It panics when n is less than 1, because nothing could ever run.
func NewLimiter(n int) *Limiter {
	if n < 1 {
		panic(fmt.Sprintf("check: a limit of %d checks", n))
	}
	return &Limiter{newSlots(n, maxWaiting)}
}

// Waiting returns how many checks wait for a slot now.
func (l *Limiter) Waiting() int {
	_, _, waiting := l.slots.count(slotOwner{})
	return waiting
}

// Wrap returns f behind the limiter. A check that gets no slot never runs and answers 503:
//
//   - with ReasonBusy at once if too many checks are waiting already;
//   - with ReasonBusy when its deadline passes while it waits;
//   - with ReasonCancelled when its caller gives up while it waits.
//
// A check that times out after it waited for the larger part of its time answers ReasonBusy as well: the rest of the
// time was too short to tell anything about the service.
func (l *Limiter) Wrap(f Func) Func {
	return func(ctx context.Context, t Target) Result {
		owner := slotOwnerOf(&t)
		if l.slots.tryAcquire(owner) {
			// Deferred: a check may panic, and a caller above recovers from it.
			defer l.slots.release(owner)
			return f(ctx, t)
		}
		start, why := time.Now(), l.fullReason(owner)
		if err := l.slots.acquire(ctx, owner); err != nil {
			return l.notRun(err, time.Since(start), why)
		}
		defer l.slots.release(owner)
		if end, ok := ctx.Deadline(); ctx.Err() != nil || ok && !time.Now().Before(end) {
			// The slot and the deadline came together. A check that starts now would blame the service.
			return l.notRun(cmp.Or(ctx.Err(), context.DeadlineExceeded), time.Since(start), why)
		}
		waited := time.Since(start)
		r := f(ctx, t)
		if ran := time.Since(start) - waited; r.Reason == ReasonTimeout && ctx.Err() != nil && waited > ran {
			r.Reason, r.Took = ReasonBusy, time.Since(start)
			r.Body = fmt.Appendf(nil, "hacheck is busy: %s for %.2fs, and %.2fs were too short for the check",
				why, waited.Seconds(), ran.Seconds())
		}
		return r
	}
}

// errNoFreeSlot is the error of a background check that got no slot.
var errNoFreeSlot = errors.New("none is free for a check in the background")

// WrapBackground returns f behind the limiter, for checks that no client waits for. They never wait for a slot, so a slot
// that becomes free goes to the checks that wait, and together they hold at most half of the slots. A check that gets
// no slot never runs and answers 503 with ReasonBusy.
func (l *Limiter) WrapBackground(f Func) Func {
	return func(ctx context.Context, t Target) Result {
		owner := slotOwnerOf(&t)
		if !l.slots.tryAcquireBackground(owner) {
			return l.notRun(errNoFreeSlot, 0, "no slot (max_clients) was free")
		}
		defer l.slots.releaseBackground(owner) // deferred, as in Wrap
		return f(ctx, t)
	}
}

// fullReason says why an owner gets no slot.
func (l *Limiter) fullReason(owner slotOwner) string {
	running, own, _ := l.slots.count(owner)
	if running < l.slots.size && own > 0 {
		return fmt.Sprintf("checks of %s had their share of the %d slots (max_clients), %d of them,", owner, l.slots.size, own)
	}
	return fmt.Sprintf("all %d slots (max_clients) were taken", l.slots.size)
}

// notRun returns the result of a check that got no slot.
func (l *Limiter) notRun(err error, took time.Duration, why string) Result {
	r := Result{Code: 503, Reason: ReasonBusy, Took: took, Err: fmt.Errorf("wait for one of %d slots: %w", l.slots.size, err)}
	switch {
	case errors.Is(err, errQueueFull):
		r.Body = []byte("hacheck is busy: too many checks are waiting already")
	case errors.Is(err, context.Canceled):
		r.Reason = ReasonCancelled
		r.Body = fmt.Appendf(nil, "Check cancelled after %.2fs (waiting for one of %d slots)", took.Seconds(), l.slots.size)
	default:
		r.Body = fmt.Appendf(nil, "hacheck is busy: %s for %.2fs", why, took.Seconds())
	}
	return r
}
