package check_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hacheck/internal/check"
)

// stub returns a check that takes d.
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

// at returns a different target for each i.
func at(i int) check.Target { return check.Target{Host: "192.0.2.1", Port: uint16(1 + i)} }

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := check.Timeout(2 * time.Second)(stub(3 * time.Second))
		start := time.Now()
		if r := f(t.Context(), check.Target{}); r.Reason != check.ReasonTimeout || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", r, time.Since(start))
		}
	})
}

// 20 checks of a second each with 5 slots take 4 seconds, and never more than 5 run at once.
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
		for i := range 10 {
			all.Go(func() { f(t.Context(), at(i)) })
			all.Go(func() { g(t.Context(), at(10+i)) })
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

// The wait for a slot counts against the timeout. If it takes all of it, the check does not run.
func TestLimitBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := check.Set{"slow": {Name: "slow", Check: stub(time.Minute)}, "spool": {Name: "spool", PortOptional: true}}.
			Wrap(check.Timeout(10*time.Second), check.NewLimiter(1).Wrap)
		if set["spool"].Check != nil || !set["spool"].PortOptional {
			t.Error("a protocol without a check has got one")
		}
		f := set["slow"].Check
		go f(t.Context(), check.Target{})
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(3 * time.Second); cancel() }()
		left := f(ctx, check.Target{})
		if want := "Check cancelled after 3.00s (waiting for one of 1 slots)"; string(left.Body) != want || left.Reason != check.ReasonCancelled || left.Code != 503 {
			t.Errorf("a caller that leaves: %d %s %q", left.Code, left.Reason, left.Body)
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

// A timeout after a wait for more than half of the time is ReasonBusy; after a shorter wait it is ReasonTimeout.
func TestLimitTooLate(t *testing.T) {
	for waited, want := range map[time.Duration]struct {
		reason check.Reason
		says   string
	}{
		9 * time.Second: {check.ReasonBusy, "hacheck is busy: all 1 slots (max_clients) were taken for 9.00s, and 1.00s were too short for the check"},
		4 * time.Second: {check.ReasonTimeout, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			limit := check.NewLimiter(1).Wrap
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

func TestLimitBusyMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := check.NewLimiter(2).Wrap
		hang := limit(stub(time.Hour))
		for i := range 2 {
			go hang(t.Context(), at(i))
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

// holding is a limiter with checks that hold their slots until end is called.
type holding struct {
	limiter *check.Limiter
	running sync.Map // channels that end a check, by its URI
}

// ask starts a check of target and returns when it runs or waits. Its result goes to results, which may be nil.
func (h *holding) ask(t *testing.T, target check.Target, results chan<- check.Result) {
	t.Helper()
	f := check.Timeout(10 * time.Second)(h.limiter.Wrap(func(ctx context.Context, target check.Target) check.Result {
		end := make(chan struct{})
		h.running.Store(target.URI, end)
		defer h.running.Delete(target.URI)
		select {
		case <-end:
			return check.Result{Code: 200}
		case <-ctx.Done():
			return check.Result{Code: 503, Reason: check.ReasonTimeout, Err: ctx.Err()}
		}
	}))
	go func() {
		r := f(t.Context(), target)
		if results != nil {
			results <- r
		}
	}()
	synctest.Wait()
}

// runs reports whether the check with this URI has a slot.
func (h *holding) runs(uri string) bool {
	_, ok := h.running.Load(uri)
	return ok
}

// end ends the check with this URI.
func (h *holding) end(t *testing.T, uri string) {
	t.Helper()
	end, ok := h.running.Load(uri)
	if !ok {
		t.Fatalf("%s does not run", uri)
	}
	close(end.(chan struct{}))
	synctest.Wait()
}

// Checks of one target never take more than half of the slots and of the queue.
func TestLimitShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := holding{limiter: check.NewLimiter(64)}
		results := make(chan check.Result, 5000)
		for i := range 4096/2 + 64/2 + 1 {
			host := fmt.Sprintf("127.%d.0.1", i%200) // all are one target, because a service may listen on every address
			h.ask(t, check.Target{Host: host, Port: 80, URI: fmt.Sprint("/greedy", i)}, results)
		}
		if n, waiting := h.limiter.Running(), h.limiter.Waiting(); n != 32 || waiting != 2048 {
			t.Fatalf("%d run and %d wait, want 32 and 2048", n, waiting)
		}
		if r := <-results; r.Reason != check.ReasonBusy || string(r.Body) != "hacheck is busy: too many checks are waiting already" {
			t.Errorf("%s %q", r.Reason, r.Body)
		}
		// Others find a slot at once, until each has one.
		for i := range 31 {
			target := at(i)
			target.URI = fmt.Sprint("/", i)
			if h.ask(t, target, nil); !h.runs(target.URI) {
				t.Errorf("another target, number %d, waits", i+1)
			}
		}
		h.ask(t, check.Target{Service: "db", URI: "/db"}, nil) // a service whose configuration names the host
		if !h.runs("/db") {
			t.Error("a service waits")
		}
		for len(results) < 2048+32 {
			time.Sleep(time.Second)
		}
		// The checks that ran and those that waited time out at the same moment, in any order.
		const busy = "hacheck is busy: checks of localhost:80 had their share of the 64 slots (max_clients), 32 of them, for 10.00s"
		texts := map[string]int{}
		for range 2048 + 32 {
			r := <-results
			texts[string(r.Body)]++
		}
		if texts[busy] != 2048 || texts[""] != 32 {
			t.Errorf("got %v, want %q from the 2048 that waited and 32 timeouts", texts, busy)
		}
	})
}

// A slot that becomes free goes to the target with the fewest checks running; among equals, in order of arrival.
func TestLimitOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := holding{limiter: check.NewLimiter(4)}
		named := func(port int, uri string) check.Target {
			target := at(port)
			target.URI = uri
			return target
		}
		// Target 1 has two slots, which is its half, targets 2 and 3 have one each.
		for _, w := range []struct {
			port int
			uri  string
		}{{1, "1a"}, {1, "1b"}, {2, "2a"}, {3, "3a"}, {1, "1c"}, {2, "2b"}, {4, "4a"}, {5, "5a"}, {4, "4b"}} {
			h.ask(t, named(w.port, w.uri), nil)
		}
		waiting := []string{"1c", "2b", "4a", "5a", "4b"}
		end := func(uri string, begins ...string) {
			t.Helper()
			h.end(t, uri)
			var began []string
			waiting = slices.DeleteFunc(waiting, func(w string) bool {
				if h.runs(w) {
					began = append(began, w)
					return true
				}
				return false
			})
			if !slices.Equal(began, begins) {
				t.Errorf("when %s ends, %q begin, want %q", uri, began, begins)
			}
		}
		end("3a", "4a") // targets 4 and 5 run none, and 4 came first
		end("1a", "5a") // 5 still runs none, 1 and 4 run one each
		end("4a", "4b") // 4 runs none now; so it comes before 1 and 2, which run one each
		end("1b", "1c") // 1 runs none, 2 runs one
		end("5a")       // 2 runs one, and one is free: the last one is for a target that runs none
		end("4b", "2b")
		end("1c")
		end("2a")
		end("2b")
		if h.limiter.Running() != 0 || h.limiter.Waiting() != 0 {
			t.Errorf("%d run and %d wait at the end", h.limiter.Running(), h.limiter.Waiting())
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
	check.NewLimiter(0)
}

// Checks in the background hold at most half of the slots, get none that another check waits for, and never wait.
func TestLimitOfBackgroundChecks(t *testing.T) {
	for _, c := range []struct{ slots, want int }{{1, 1}, {2, 1}, {5, 2}, {8, 4}} {
		synctest.Test(t, func(t *testing.T) {
			limiter := check.NewLimiter(c.slots)
			f, background := limiter.Wrap(stub(time.Second)), limiter.WrapBackground(stub(time.Second))
			var all sync.WaitGroup
			var ran, busy atomic.Int32
			for i := range 10 {
				all.Go(func() {
					switch r := background(t.Context(), at(i)); {
					case r.Code == 200:
						ran.Add(1)
					case r.Reason == check.ReasonBusy && r.Took == 0:
						busy.Add(1)
					}
				})
			}
			synctest.Wait()
			if n := limiter.Running(); n != c.want || limiter.Waiting() != 0 {
				t.Errorf("%d of %d slots, %d wait; want %d and 0", n, c.slots, limiter.Waiting(), c.want)
			}
			for i := range 2 * c.slots {
				all.Go(func() { f(t.Context(), at(100+i)) })
			}
			synctest.Wait()
			if n := limiter.Running(); n != c.slots {
				t.Errorf("%d of %d slots are taken", n, c.slots)
			}
			time.Sleep(time.Second) // those that wait take the slots
			synctest.Wait()
			if r := background(t.Context(), at(50)); r.Reason != check.ReasonBusy {
				t.Errorf("%+v while all slots are taken", r)
			}
			all.Wait()
			if int(ran.Load()) != c.want || int(busy.Load()) != 10-c.want || limiter.Running() != 0 {
				t.Errorf("%d ran, %d were busy, %d run; want %d, %d and 0", ran.Load(), busy.Load(), limiter.Running(), c.want, 10-c.want)
			}
			if r := background(t.Context(), at(1)); r.Code != 200 {
				t.Errorf("afterwards: %+v", r)
			}
		})
	}
}
