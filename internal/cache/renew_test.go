package cache

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newRenewingCache returns a cache that asks for renewals in the last third of the life of a result.
func newRenewingCache() *Cache[val] {
	c := newCache(10, 1000)
	c.o.RenewAfter = func(_ val, ttl time.Duration) time.Duration { return ttl - ttl/3 }
	return c
}

// get returns the cached result and begins its renewal with v if Get says so, as package health does.
func get(c *Cache[val], at Generation, took time.Duration, v val, runs *atomic.Int64) (string, bool) {
	r, ok := c.Get("k", at)
	if !ok {
		return "", false
	}
	if r.Renew {
		go c.Renew("k", at, func() val { runs.Add(1); time.Sleep(took); return v })
	}
	return r.Value.s, true
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		began := time.Now()
		ask(c, "k", Generation{}, false, val{"old", keep, 1}, &runs)
		expect := func(after time.Duration, want string, wantRuns int64) {
			t.Helper()
			time.Sleep(time.Until(began.Add(after)))
			got, ok := get(c, Generation{}, 3*time.Second, val{"new", keep, 1}, &runs)
			synctest.Wait()
			if got != want || ok != (want != "") || runs.Load() != wantRuns {
				t.Fatalf("after %v: %q %v with %d checks, want %q with %d", after, got, ok, runs.Load(), want, wantRuns)
			}
		}
		expect(9*time.Second, "old", 1)
		expect(11*time.Second, "old", 2) // begins the renewal
		expect(13*time.Second, "old", 2) // it runs
		expect(15*time.Second, "new", 2) // it has ended, at 14 s
		expect(23*time.Second, "new", 2) // its age is 9 s
		expect(25*time.Second, "new", 3) // the next renewal
		expect(60*time.Second, "", 3)    // no client has asked since; nothing was renewed
		if s := c.Stats(); s.Entries != 1 || s.Bytes != 1 {
			t.Errorf("%+v, want one result of one byte", s)
		}
	})
}

// TestOneRenewalPerKey: of many clients that ask at once, one begins the renewal. Its result answers those that ask after
// the stored one has expired.
func TestOneRenewalPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		ask(c, "k", Generation{}, false, val{"old", keep, 1}, &runs)
		time.Sleep(14 * time.Second)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if s, _ := get(c, Generation{}, 10*time.Second, val{"new", keep, 1}, &runs); s != "old" {
					t.Errorf("%q, want the old result at once", s)
				}
			})
		}
		wg.Wait()
		time.Sleep(2 * time.Second) // the old one has expired
		began := time.Now()
		for range 100 {
			wg.Go(func() {
				if v, s := ask(c, "k", Generation{}, false, val{"own", keep, 1}, &runs); v.s != "new" || s != Shared {
					t.Errorf("%q %v, want the result of the renewal", v.s, s)
				}
			})
		}
		wg.Wait()
		if runs.Load() != 2 || time.Since(began) != 8*time.Second {
			t.Errorf("%d checks, waited %v; want 2, and 8s", runs.Load(), time.Since(began))
		}
	})
}

// TestRenewalAcrossTheEndOfAnOverride: no request after the end gets a result from before it, from the cache or from a
// renewal that is in flight, and no such renewal replaces a newer result.
func TestRenewalAcrossTheEndOfAnOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		before, after := Generation{Current: 1}, Generation{Current: 2, Min: 2}
		ask(c, "k", before, false, val{"old", keep, 1}, &runs)
		time.Sleep(12 * time.Second)
		get(c, before, 5*time.Second, val{"renewed", keep, 1}, &runs)
		time.Sleep(time.Second)
		if s, ok := get(c, after, 0, val{}, &runs); ok {
			t.Fatalf("%q is from before the end", s)
		}
		began := time.Now()
		if v, s := ask(c, "k", after, false, val{"after", keep, 1}, &runs); v.s != "after" || s != Miss || time.Since(began) != 0 {
			t.Fatalf("%q %v after %v, want a check of its own", v.s, s, time.Since(began))
		}
		time.Sleep(6 * time.Second)
		if s, _ := get(c, after, 0, val{}, &runs); s != "after" || runs.Load() != 3 {
			t.Fatalf("%q after %d checks: the renewal replaced a newer result", s, runs.Load())
		}
	})

	// An override that has ended while the renewal ran, before any other request came.
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		ask(c, "k", Generation{Current: 1}, false, val{"old", keep, 1}, &runs)
		time.Sleep(12 * time.Second)
		get(c, Generation{Current: 1}, time.Second, val{"renewed", keep, 1}, &runs)
		time.Sleep(2 * time.Second)
		if s, ok := get(c, Generation{Current: 2, Min: 2}, 0, val{}, &runs); ok {
			t.Fatalf("%q is from a check that began before the end", s)
		}
	})
}

// TestRenewalWithoutResult: a renewal that says nothing about the key leaves the result, is tried again after
// freshInterval, and answers no client.
func TestRenewalWithoutResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		ask(c, "k", Generation{}, false, val{"old", keep, 1}, &runs)
		time.Sleep(12 * time.Second)
		for range 2000 { // for two seconds
			if s, _ := get(c, Generation{}, 0, val{"busy", -1, 1}, &runs); s != "old" {
				t.Fatalf("%q, want the old result", s)
			}
			time.Sleep(time.Millisecond)
		}
		if n := runs.Load() - 1; n != 10 {
			t.Errorf("%d renewals in 2 s, want one per %v", n, freshInterval)
		}
		get(c, Generation{}, 5*time.Second, val{"busy", -1, 1}, &runs)
		time.Sleep(2 * time.Second) // the old one has expired
		if v, s := ask(c, "k", Generation{}, false, val{"own", keep, 1}, &runs); v.s != "own" || s != Miss {
			t.Errorf("%q %v, want the result of a check of its own", v.s, s)
		}
	})
}

// TestRenewalThatPanics: the clients that wait for it run the check themselves, and the next renewal is possible.
func TestRenewalThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		ask(c, "k", Generation{}, false, val{"old", keep, 1}, &runs)
		time.Sleep(12 * time.Second)
		if r, _ := c.Get("k", Generation{}); !r.Renew {
			t.Fatal("no renewal")
		}
		func() {
			defer func() { _ = recover() }()
			c.Renew("k", Generation{}, func() val { panic("boom") })
		}()
		time.Sleep(freshInterval)
		if r, _ := c.Get("k", Generation{}); !r.Renew {
			t.Error("no other renewal after a panic")
		}
		if len(c.group.running) != 0 {
			t.Error("the call is still in the group")
		}
	})
}

// TestFailedRenewal: a failure replaces the result, also one that is not cached.
func TestFailedRenewal(t *testing.T) {
	for _, life := range []time.Duration{0, keep} {
		synctest.Test(t, func(t *testing.T) {
			c := newRenewingCache()
			var runs atomic.Int64
			ask(c, "k", Generation{}, false, val{"up", keep, 1}, &runs)
			time.Sleep(12 * time.Second)
			get(c, Generation{}, 0, val{"down", life, 1}, &runs)
			synctest.Wait()
			if s, _ := get(c, Generation{}, 0, val{}, &runs); s == "up" || life > 0 && s != "down" {
				t.Errorf("cached for %v: %q", life, s)
			}
		})
	}
}

// TestRenewalWhileAFreshCallRuns: there is one check in flight for a key.
func TestRenewalWhileAFreshCallRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRenewingCache()
		var runs atomic.Int64
		ask(c, "k", Generation{}, false, val{"old", keep, 1}, &runs)
		time.Sleep(12 * time.Second)
		go c.DoFresh("k", Generation{}, longWait, func() val { runs.Add(1); time.Sleep(time.Second); return val{"fresh", keep, 1} })
		synctest.Wait()
		if s, _ := get(c, Generation{}, 0, val{"renewed", keep, 1}, &runs); s != "old" {
			t.Fatalf("%q", s)
		}
		time.Sleep(2 * time.Second)
		if s, _ := get(c, Generation{}, 0, val{}, &runs); s != "fresh" || runs.Load() != 2 {
			t.Errorf("%q after %d checks, want the fresh one and 2", s, runs.Load())
		}
	})
}
