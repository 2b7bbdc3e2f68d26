package cache

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// val is a result with a TTL of life and a size.
type val struct {
	s    string
	life time.Duration
	size int
}

func newCache(entries int, bytes int64) *Cache[val] {
	return New(Options[val]{
		TTL:        func(v val) time.Duration { return v.life },
		Size:       func(_ string, v val) int { return v.size },
		MaxEntries: entries, MaxBytes: bytes,
	})
}

const (
	keep     = 15 * time.Second
	longWait = time.Hour // no call in these tests takes as long
)

// ask calls Get and then Do or DoFresh, as package health does, and counts the runs.
func ask(c *Cache[val], key string, at Generation, fresh bool, v val, runs *atomic.Int64) (val, Status) {
	if !fresh {
		if r, ok := c.Get(key, at); ok {
			return *r.Value, Hit
		}
	}
	got, _, o, ok := c.do(key, at, fresh, longWait, func() val { runs.Add(1); return v })
	if !ok {
		panic("a call took longer than an hour")
	}
	return *got, o
}

func TestAgeCountsFromTheEndOfTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		runs := 0
		slow := func() val { runs++; time.Sleep(10 * time.Second); return val{"a", keep, 1} }
		if _, _, o, _ := c.Do("k", Generation{}, longWait, slow); o != Miss {
			t.Fatalf("first: %v, want miss", o)
		}
		time.Sleep(keep - time.Millisecond)
		r, ok := c.Get("k", Generation{})
		if !ok {
			t.Fatal("gone before its time, counted from the end of the check")
		}
		if r.Age != keep-time.Millisecond {
			t.Errorf("age %v", r.Age)
		}
		time.Sleep(2 * time.Millisecond)
		if _, ok := c.Get("k", Generation{}); ok {
			t.Fatal("still there after its time")
		}
	})
}

// TestClockSetBack: by the wall clock the result lives for an hour longer, by its age it has expired.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		var runs atomic.Int64
		ask(c, "k", Generation{}, false, val{"old", keep, 1}, &runs)
		e, _, _ := c.get("k", Generation{})
		c.items.Set("k", e, keep+time.Hour)
		time.Sleep(keep)
		if v, o := ask(c, "k", Generation{}, false, val{"new", keep, 1}, &runs); v.s != "old" || o != Hit {
			t.Errorf("in time: %v %v", v, o)
		}
		time.Sleep(time.Millisecond)
		if v, o := ask(c, "k", Generation{}, false, val{"new", keep, 1}, &runs); v.s != "new" || o != Miss {
			t.Errorf("too old: %v %v, want a new one", v, o)
		}
	})
}

func TestEndOfOverrideInvalidatesResults(t *testing.T) {
	c := newCache(10, 1000)
	var runs atomic.Int64
	ask(c, "k", Generation{Current: 4, Min: 4}, false, val{"old", keep, 1}, &runs)
	if v, o := ask(c, "k", Generation{Current: 9, Min: 4}, false, val{"new", keep, 1}, &runs); v.s != "old" || o != Hit {
		t.Fatalf("another override ended: %v %v, want the kept one", v, o)
	}
	if v, o := ask(c, "k", Generation{Current: 9, Min: 5}, false, val{"new", keep, 1}, &runs); v.s != "new" || o != Miss {
		t.Fatalf("ours ended: %v %v, want a new one", v, o)
	}
}

// TestInFlightAcrossTheEndOfAnOverride: a check that began before the end must neither answer a later request nor
// replace a newer result.
func TestInFlightAcrossTheEndOfAnOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		go func() {
			_, _, _, _ = c.Do("k", Generation{Current: 1}, longWait, func() val { time.Sleep(5 * time.Second); return val{"before", keep, 1} })
		}()
		time.Sleep(time.Second)
		v, _, o, _ := c.Do("k", Generation{Current: 2, Min: 2}, longWait, func() val { return val{"after", keep, 1} })
		if v.s != "after" || o != Miss {
			t.Fatalf("joined the older check: %v %v", *v, o)
		}
		time.Sleep(5 * time.Second)
		if r, ok := c.Get("k", Generation{Current: 2, Min: 2}); !ok || r.Value.s != "after" {
			t.Fatalf("the older check replaced the newer result: %v %v", r, ok)
		}
	})
}

// TestThousandCallersOneRun: a thousand callers ask for a key that is not cached at the same time.
func TestThousandCallersOneRun(t *testing.T) {
	for range 20 {
		c := newCache(10, 1000)
		var runs, misses atomic.Int64
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if _, o := ask(c, "k", Generation{}, false, val{"a", keep, 1}, &runs); o == Miss {
					misses.Add(1)
				}
			})
		}
		wg.Wait()
		if runs.Load() != 1 || misses.Load() != 1 {
			t.Fatalf("%d runs, %d called misses; want 1 and 1", runs.Load(), misses.Load())
		}
	}
}

// TestWaitLimit: a caller that stops waiting does not change the result of the others.
func TestWaitLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		go c.Do("k", Generation{}, longWait, func() val { time.Sleep(3 * time.Second); return val{"a", keep, 1} })
		synctest.Wait()
		again := func() val { t.Error("ran again"); return val{} }
		for _, fresh := range []bool{false, true} {
			began := time.Now()
			if _, _, o, ok := c.do("k", Generation{}, fresh, time.Second, again); ok || o != map[bool]Status{false: Shared, true: Bypass}[fresh] || time.Since(began) != time.Second {
				t.Fatalf("%v %v after %v, want no answer in a second", ok, o, time.Since(began))
			}
		}
		v, _, o, ok := c.Do("k", Generation{}, longWait, again)
		if !ok || o != Shared || v.s != "a" {
			t.Fatalf("%v %v %v, want the first one's check shared", v, o, ok)
		}
	})
}

// TestPanicReleasesWaiters: the callers that waited for a call that panicked run their own.
func TestPanicReleasesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		go func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was lost")
				}
			}()
			c.Do("k", Generation{}, longWait, func() val { time.Sleep(time.Second); panic("boom") })
		}()
		synctest.Wait()
		v, _, o, ok := c.Do("k", Generation{}, longWait, func() val { return val{"a", keep, 1} })
		if !ok || o != Miss || v.s != "a" {
			t.Fatalf("%v %v %v, want an answer of one's own", v, o, ok)
		}
	})
}

func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		var runs atomic.Int64
		ask(c, "k", Generation{}, false, val{"1", keep, 1}, &runs)
		if v, o := ask(c, "k", Generation{}, true, val{"2", keep, 1}, &runs); v.s != "2" || o != Bypass {
			t.Fatalf("%v %v, want a fresh one", v, o)
		}
		if v, o := ask(c, "k", Generation{}, false, val{"3", keep, 1}, &runs); v.s != "2" || o != Hit {
			t.Fatalf("%v %v, want the fresh one kept", v, o)
		}
		// Fresh ones share one run as well.
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, _, _, _ = c.DoFresh("k", Generation{}, longWait, func() val { runs.Add(1); time.Sleep(time.Second); return val{"4", keep, 1} })
			})
		}
		wg.Wait()
		if runs.Load() != 3 {
			t.Fatalf("%d runs, want 3", runs.Load())
		}
		// A failure that may not be kept still ends what was kept before.
		ask(c, "k", Generation{}, true, val{"down", 0, 1}, &runs)
		if r, ok := c.Get("k", Generation{}); ok {
			t.Fatalf("%v is older than a failure that is known", *r.Value)
		}
		// What says nothing leaves it.
		ask(c, "k", Generation{}, false, val{"5", keep, 1}, &runs)
		ask(c, "k", Generation{}, true, val{"busy", -1, 1}, &runs)
		if r, ok := c.Get("k", Generation{}); !ok || r.Value.s != "5" {
			t.Fatal("a result that says nothing replaced one that does")
		}
	})
}

// TestFreshCallsHaveAnInterval: fresh calls begin freshInterval apart, each caller gets the result of a check that ended
// after its call, and other callers do not wait.
func TestFreshCallsHaveAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		var runs atomic.Int64
		run := func() val { return val{strconv.FormatInt(runs.Add(1), 10), 0, 1} }
		demand := func(key string) (string, time.Duration) {
			began := time.Now()
			v, age, o, ok := c.DoFresh(key, Generation{}, longWait, run)
			if !ok || o != Bypass || age != 0 {
				t.Errorf("%v %v after %v", ok, o, age)
			}
			return v.s, time.Since(began)
		}
		if s, took := demand("k"); s != "1" || took != 0 {
			t.Fatalf("the first: check %s after %v", s, took)
		}
		// A hundred clients for two seconds.
		const askers, rounds = 100, 10
		var wg sync.WaitGroup
		for range askers {
			wg.Go(func() {
				for range rounds {
					if _, took := demand("k"); took > freshInterval {
						t.Errorf("waited %v", took)
					}
				}
			})
		}
		synctest.Wait()
		if s, took := demand("other"); s != "2" || took != 0 {
			t.Errorf("another key: check %s after %v", s, took)
		}
		if v, _, o, ok := c.Do("k", Generation{}, longWait, run); !ok || o != Miss || v.s != "3" {
			t.Errorf("who demands nothing: %v %v %v, want a check at once", ok, o, v)
		}
		began := time.Now()
		wg.Wait()
		if n, took := runs.Load()-3, time.Since(began); n != rounds || took != rounds*freshInterval {
			t.Errorf("%d checks in %v, want %d in %v", n, took, rounds, rounds*freshInterval)
		}
		time.Sleep(freshInterval)
		if _, took := demand("k"); took != 0 {
			t.Errorf("later: waited %v", took)
		}
		if g := &c.group; len(g.running) != 0 || len(g.waiting) != 0 || len(g.began) > 2 {
			t.Errorf("left behind: %d, %d and %d", len(g.running), len(g.waiting), len(g.began))
		}
	})
}

// TestFreshJoinsLaterCheck: a check that another caller begins while a fresh call waits answers both.
func TestFreshJoinsLaterCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10, 1000)
		var runs atomic.Int64
		ask(c, "k", Generation{}, true, val{"1", 0, 1}, &runs)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if v, o := ask(c, "k", Generation{}, true, val{"mine", 0, 1}, &runs); v.s != "2" || o != Bypass {
					t.Errorf("%s %v", v.s, o)
				}
			})
		}
		synctest.Wait()
		c.Do("k", Generation{}, longWait, func() val { runs.Add(1); time.Sleep(time.Second); return val{"2", 0, 1} })
		wg.Wait()
		if n := runs.Load(); n != 2 {
			t.Errorf("%d checks, want 2", n)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(3, 10)
		var runs atomic.Int64
		for i := range 3 {
			ask(c, strconv.Itoa(i), Generation{}, false, val{"x", keep, 2}, &runs)
		}
		if v, o := ask(c, "more", Generation{}, false, val{"y", keep, 2}, &runs); v.s != "y" || o != Miss {
			t.Fatalf("beyond the bound: %v %v, want it served", v, o)
		}
		if s := c.Stats(); s.Entries != 3 || s.Bytes != 6 || s.Uncached != 1 || s.Sets != 3 {
			t.Fatalf("%+v, want 3 entries of 6 bytes and 1 uncached", s)
		}
		// A larger result for a key that is there does not fit either, and the older one must not answer.
		ask(c, "0", Generation{}, true, val{"large", keep, 7}, &runs)
		if _, ok := c.Get("0", Generation{}); ok {
			t.Fatal("an older result is served although a newer one is known")
		}
		time.Sleep(keep + time.Second)
		ask(c, "more", Generation{}, false, val{"y", keep, 10}, &runs)
		if s := c.Stats(); s.Entries != 1 || s.Bytes != 10 {
			t.Fatalf("%+v, want room again after the others expired", s)
		}
		time.Sleep(keep + time.Second)
		ask(c, "more", Generation{}, false, val{"z", keep, 3}, &runs)
		if s := c.Stats(); s.Entries != 1 || s.Bytes != 3 {
			t.Fatalf("%+v after an expired one was replaced", s)
		}
	})
}

// TestBytesMatchEntries replaces, expires and sweeps at once and holds the sum against the entries.
func TestBytesMatchEntries(t *testing.T) {
	c := newCache(50, 1<<20)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				life := time.Duration(1+i%5) * time.Microsecond
				if i%3 == 0 {
					life = time.Hour
				}
				c.store(strconv.Itoa((i*7+g)%80), val{"", life, i % 100}, 0)
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, it := range c.items.Items() {
		sum += it.Object.(*entry[val]).size
	}
	c.storeMu.Lock()
	c.items.DeleteExpired()
	c.storeMu.Unlock()
	if s := c.Stats(); s.Bytes != sum {
		t.Fatalf("bytes %d, the entries have %d", s.Bytes, sum)
	}
}

func BenchmarkGet(b *testing.B) {
	c := newCache(100_000, 1<<20)
	var runs atomic.Int64
	for i := range 10_000 {
		ask(c, "http\x00/status/"+strconv.Itoa(i), Generation{}, false, val{"x", time.Hour, 1}, &runs)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := c.Get("http\x00/status/77", Generation{}); !ok {
				b.Fatal("miss")
			}
		}
	})
}
