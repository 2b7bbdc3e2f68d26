package check_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hacheck/internal/check"
)

// stub is a check that takes d.
func stub(d time.Duration) check.Func {
	return func(ctx context.Context, _ check.Target) check.Result {
		select {
		case <-time.After(d):
			return check.Result{Code: 200}
		case <-ctx.Done():
			return check.Result{Code: 503, Reason: check.ReasonTimeout, Err: ctx.Err()}
		}
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := check.Timeout(2 * time.Second)(stub(3 * time.Second))
		start := time.Now()
		if r := f(t.Context(), check.Target{}); r.Reason != check.ReasonTimeout || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", r, time.Since(start))
		}
	})
}

// 20 checks of a second each and 5 slots: 4 rounds, never more than 5 at once.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		limiter := check.NewLimiter(5)
		count := func(ctx context.Context, target check.Target) check.Result {
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old; old = most.Load() {
				most.CompareAndSwap(old, n)
			}
			return stub(time.Second)(ctx, target)
		}
		// Two protocols behind one limiter share its slots.
		f, g := limiter.Wrap(count), limiter.Wrap(count)
		start := time.Now()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { f(t.Context(), check.Target{}) })
			all.Go(func() { g(t.Context(), check.Target{}) })
		}
		synctest.Wait()
		if limiter.Running() != 5 || limiter.Waiting() != 15 {
			t.Errorf("%d run and %d wait", limiter.Running(), limiter.Waiting())
		}
		all.Wait()
		if took := time.Since(start); most.Load() != 5 || took != 4*time.Second {
			t.Errorf("%d at once, done after %v", most.Load(), took)
		}
		if limiter.Running() != 0 || limiter.Waiting() != 0 {
			t.Errorf("%d run and %d wait at the end", limiter.Running(), limiter.Waiting())
		}
	})
}

// The wait for a slot counts against the timeout, and when it eats it the service is not asked at all.
func TestLimitBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := check.Set{"slow": {Name: "slow", Check: stub(time.Minute)}, "spool": {Name: "spool", NoPort: true}}.
			Wrap(check.Timeout(10*time.Second), check.Limit(1))
		if set["spool"].Check != nil || !set["spool"].NoPort {
			t.Error("a protocol without a check has got one")
		}
		f := set["slow"].Check
		go f(t.Context(), check.Target{})
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(3 * time.Second); cancel() }()
		left := f(ctx, check.Target{})
		if want := "Check cancelled after 3.00s (waiting for one of 1 slots)"; string(left.Body) != want || left.Reason != check.ReasonCancelled || left.Code != 503 {
			t.Errorf("an asker that leaves: %d %s %q", left.Code, left.Reason, left.Body)
		}
		// The first check has 7 s left, and a second one takes the slot then.
		go f(t.Context(), check.Target{})
		synctest.Wait()
		start := time.Now()
		busy := f(t.Context(), check.Target{})
		if busy.Reason != check.ReasonBusy && busy.Reason != check.ReasonTimeout {
			t.Errorf("%d %s %q", busy.Code, busy.Reason, busy.Body)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

// A check that is cut off because it waited for most of its time says nothing about the service; one that had
// most of it does.
func TestLimitTooLate(t *testing.T) {
	for waited, want := range map[time.Duration]struct {
		reason check.Reason
		says   string
	}{
		9 * time.Second: {check.ReasonBusy, "hacheck is busy: all 1 slots (max_clients) were taken for 9.00s, and 1.00s were too short for the check"},
		4 * time.Second: {check.ReasonTimeout, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			limit := check.Limit(1)
			go limit(stub(waited))(t.Context(), check.Target{})
			synctest.Wait()
			start := time.Now()
			r := check.Timeout(10*time.Second)(limit(stub(time.Minute)))(t.Context(), check.Target{})
			if took := time.Since(start); r.Code != 503 || r.Reason != want.reason || string(r.Body) != want.says || r.Err == nil || took != 10*time.Second {
				t.Errorf("waited %v: %d %s %v after %v: %q", waited, r.Code, r.Reason, r.Err, took, r.Body)
			}
		})
	}
}

func TestLimitBusySentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := check.Limit(2)
		hang := limit(stub(time.Hour))
		for range 2 {
			go hang(t.Context(), check.Target{})
		}
		synctest.Wait()
		asked := false
		f := check.Timeout(10 * time.Second)(limit(func(context.Context, check.Target) check.Result { asked = true; return check.Result{} }))
		r := f(t.Context(), check.Target{})
		if want := "hacheck is busy: all 2 slots (max_clients) were taken for 10.00s"; string(r.Body) != want || r.Reason != check.ReasonBusy || r.Code != 503 || r.Took != 10*time.Second || r.Err == nil {
			t.Errorf("%d %s %v %v %q", r.Code, r.Reason, r.Took, r.Err, r.Body)
		}
		if asked {
			t.Error("asked without a slot")
		}
	})
}

// A check that panics gives its slot back.
func TestLimitSurvivesPanic(t *testing.T) {
	limiter := check.NewLimiter(1)
	f := limiter.Wrap(func(context.Context, check.Target) check.Result { panic("broken check") })
	func() {
		defer func() { _ = recover() }()
		f(t.Context(), check.Target{})
	}()
	if limiter.Running() != 0 {
		t.Error("the slot is lost")
	}
}

func TestLimitOfNothing(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a limit under which nothing can ever run")
		}
	}()
	check.Limit(0)
}
