package check

import (
	"cmp"
	"context"
	"time"
)

// A check has up to two timeouts, and the shorter one ends it. Both are a deadline of its context:
//
//   - healthcheck_timeout, for a check that a balancer asks for. It starts before the wait for a slot of the Limiter.
//     Package health sets it with Timeout, and lets its clients wait slightly longer, so that they get the check's own
//     text.
//   - ConfiguredCheck.Timeout, for all steps of a configured check together. ConfiguredCheck.Check sets it with Timeout.
//     Package runner, which runs the steps one by one, sets the same deadline.

// Timeout returns a wrapper that ends a check after d: its context then ends, and the check answers 503 with
// ReasonTimeout. Wrapped around a Limiter it also counts the wait for a slot. With d of 0 or less the context has
// ended from the start.
func Timeout(d time.Duration) func(Func) Func {
	return func(f Func) Func {
		return func(ctx context.Context, t Target) Result {
			ctx, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			return f(ctx, t)
		}
	}
}

const (
	// defaultTimeout is the timeout of a configured check where nothing else sets one. It is conn-check's.
	defaultTimeout = 10 * time.Second
	// maxTimeout is the longest timeout that an option can set.
	maxTimeout = time.Hour
)

// configuredTimeout returns ConfiguredCheck.Timeout: the option timeout, else that of the Defaults, else the type's own,
// else defaultTimeout.
func configuredTimeout(option, defaults, ofType time.Duration) time.Duration {
	return cmp.Or(option, defaults, ofType, defaultTimeout)
}
