package health

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/spool"
)

func TestRenewAfter(t *testing.T) {
	for _, c := range []struct{ ttl, took, want time.Duration }{
		{15 * time.Second, time.Millisecond, 12 * time.Second},
		{15 * time.Second, 2 * time.Second, 11 * time.Second},
		{5 * time.Second, 1500 * time.Millisecond, 2500 * time.Millisecond},
		{15 * time.Second, time.Minute, 7500 * time.Millisecond},
	} {
		if got := renewAfter(check.Result{Took: c.took}, c.ttl); got != c.want {
			t.Errorf("cached for %v, the check took %v: renewed after %v, want %v", c.ttl, c.took, got, c.want)
		}
	}
}

// timedCheck is a check that takes a while, obeys its context and counts its runs.
type timedCheck struct {
	takes time.Duration
	runs  atomic.Int64
	panic atomic.Bool
}

func (c *timedCheck) run(ctx context.Context, _ check.Target) check.Result {
	c.runs.Add(1)
	if c.panic.Load() {
		panic("boom")
	}
	select {
	case <-time.After(c.takes):
		return check.Result{Code: 200, Body: fmt.Append(nil, c.runs.Load()), Took: c.takes}
	case <-ctx.Done():
		return check.Result{Code: 503, Reason: check.ReasonTimeout, Body: []byte("timed out"), Err: ctx.Err()}
	}
}

// TestSteadyClientNeverWaits: a client that asks every 2 s about a check of 1.5 s waits once. No answer is older than
// cache_time, and a service without clients is not checked.
func TestSteadyClientNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &timedCheck{takes: 1500 * time.Millisecond}
		e, _, _ := newEvaluator(t, c.run, func(o *Options) { o.CacheTime = 5 * time.Second })
		e.Evaluate(target(nil))
		for range 60 {
			time.Sleep(2 * time.Second)
			began := time.Now()
			if v := e.Evaluate(target(nil)); v.Cache != cache.Hit || time.Since(began) != 0 || v.Age > 5*time.Second {
				t.Fatalf("%v of age %v after %v; want a hit at once", v.Cache, v.Age, time.Since(began))
			}
		}
		time.Sleep(time.Minute)
		s := e.Stats()
		if n := c.runs.Load(); n < 20 || n > 32 || s.Renewals.Done != uint64(n)-1 || s.Renewals.Busy != 0 || s.Renewals.InFlight != 0 {
			t.Errorf("%d checks in 2 minutes, %+v; want one in 4 to 6 s, the first one of them no renewal", n, s.Renewals)
		}
		if s.Answers[cache.Hit] != 60 || s.Answers[cache.Miss] != 1 {
			t.Errorf("%v; a renewal is no answer", s.Answers)
		}
	})
}

// TestRenewalAndOverrides: an override decides without a renewal, and the first request after its end runs a check, also
// if a renewal is in flight.
func TestRenewalAndOverrides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &timedCheck{takes: time.Second}
		e, s, _ := newEvaluator(t, c.run, func(o *Options) { o.MaxClients = 4 })
		e.Evaluate(target(nil))
		time.Sleep(14 * time.Second)
		down := spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}}
		s.set(down)
		e.Evaluate(target(nil))
		synctest.Wait()
		if n := c.runs.Load(); n != 1 {
			t.Fatalf("%d checks while an override decides, want 1 from before", n)
		}
		s.set(spool.View{})
		e.Evaluate(target(nil)) // begins a renewal
		synctest.Wait()
		s.set(down)
		s.set(spool.View{Generation: 1, MinGeneration: 1}) // set and lifted meanwhile
		if v := e.Evaluate(target(nil)); v.Cache != cache.Miss || string(v.Result.Body) != "3" {
			t.Errorf("%v of check %s, want a miss and the third check", v.Cache, v.Result.Body)
		}
		time.Sleep(2 * time.Second)
		if v := e.Evaluate(target(nil)); v.Cache != cache.Hit || string(v.Result.Body) != "3" {
			t.Errorf("later: %v of check %s, want the third", v.Cache, v.Result.Body)
		}
	})
}

// TestRenewalsAndSlots: renewals hold half of the slots at most and never wait for one. What they may not renew stays.
func TestRenewalsAndSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &timedCheck{}
		e, _, _ := newEvaluator(t, c.run, func(o *Options) { o.MaxClients = 4 })
		port := func(n uint16) *Request { return target(func(a *Request) { a.Target.Port = n }) }
		for n := range uint16(10) {
			e.Evaluate(port(1 + n))
		}
		time.Sleep(14 * time.Second)
		c.takes = time.Minute // until the timeout of 10 s
		for n := range uint16(10) {
			if v := e.Evaluate(port(1 + n)); v.Cache != cache.Hit || v.Result.Code != 200 {
				t.Fatalf("%v %d, want the cached result", v.Cache, v.Result.Code)
			}
		}
		synctest.Wait()
		if s := e.Stats(); s.Renewals.InFlight != 2 || s.Renewals.Busy != 8 || s.Busy != 0 || s.Waiting != 0 {
			t.Errorf("%+v, want 2 renewals with 4 slots, and no client told that hacheck was busy", s)
		}
		c.takes = 0
		if v := e.Evaluate(port(100)); v.Result.Code != 200 || v.Cache != cache.Miss {
			t.Errorf("another check meanwhile: %v %d", v.Cache, v.Result.Code)
		}
		if v := e.Evaluate(port(10)); v.Cache != cache.Hit || v.Result.Code != 200 {
			t.Errorf("after a renewal without a slot: %v %d, want the cached result", v.Cache, v.Result.Code)
		}
		time.Sleep(20 * time.Second)
	})
}

// TestStopRenewals cancels a renewal. Its result is not cached, no log line blames the service, and a client that
// waits for it gets the answer of a check of its own.
func TestStopRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &timedCheck{takes: 3 * time.Second}
		e, _, log := newEvaluator(t, c.run, nil)
		e.Evaluate(target(nil))
		time.Sleep(14 * time.Second)
		e.Evaluate(target(nil)) // begins a renewal
		time.Sleep(2 * time.Second)
		answer := make(chan Verdict)
		go func() { answer <- e.Evaluate(target(nil)) }() // the result has expired
		synctest.Wait()
		e.StopRenewals()
		if v := <-answer; v.Result.Code != 200 || v.Cache != cache.Miss || string(v.Result.Body) != "3" {
			t.Errorf("%v %s, want the answer of the third check", v.Cache, v.Result.Body)
		}
		if log.count("service is not up") != 0 {
			t.Error("the log blames the service for a cancelled check")
		}
		time.Sleep(14 * time.Second)
		e.Evaluate(target(nil))
		synctest.Wait()
		if s := e.Stats(); s.Renewals != (Renewals{}) || c.runs.Load() != 3 {
			t.Errorf("%+v and %d checks, want no renewal and 3", s.Renewals, c.runs.Load())
		}
	})
}

// TestPanicInRenewal: it is a failed check.
func TestPanicInRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &timedCheck{}
		e, _, log := newEvaluator(t, c.run, nil)
		e.Evaluate(target(nil))
		time.Sleep(14 * time.Second)
		c.panic.Store(true)
		e.Evaluate(target(nil))
		synctest.Wait()
		if v := e.Evaluate(target(nil)); v.Result.Code != 503 || v.Cache != cache.Hit || log.count("check panicked") != 1 {
			t.Errorf("%v %d; want the failure cached, and a line in the log", v.Cache, v.Result.Code)
		}
	})
}

// TestNoCacheRequestsRenewNothing: a request that runs a check of its own needs no renewal.
func TestNoCacheRequestsRenewNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &timedCheck{}
		e, _, _ := newEvaluator(t, c.run, nil)
		e.Evaluate(target(nil))
		time.Sleep(14 * time.Second)
		e.Evaluate(target(func(a *Request) { a.NoCache = true }))
		e.Evaluate(target(nil))
		synctest.Wait()
		if n := c.runs.Load(); n != 2 {
			t.Errorf("%d checks, want 2", n)
		}
	})
}
