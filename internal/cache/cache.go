// Package cache stores results for a limited time and runs one check at a time per key. It does not know what a check
// is: values are of any type, and Options say how long each value is stored and how many bytes it counts.
package cache

import (
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	gocache "github.com/patrickmn/go-cache"
)

// Status says where an answer came from. Its String is the value of the header X-Hacheck-Cache.
type Status uint8

// The statuses.
const (
	Override    Status = iota // nothing was checked: an override or a rejected request decided
	Hit                       // a cached result
	Miss                      // this request ran the check
	Shared                    // this request waited for a check that another request ran
	Bypass                    // this request demanded a new check (Cache-Control: no-cache)
	NumStatuses               // the number of statuses
)

// String returns the status in one lower-case word.
func (s Status) String() string {
	return [...]string{"override", "hit", "miss", "shared", "bypass"}[s]
}

// Generation orders results and the ends of overrides. See spool.View.
type Generation struct {
	Current uint64 // stored with a result whose check begins now
	Min     uint64 // a result that was stored with a smaller Current is too old
}

// entry is a stored result. Its value does not change after it is stored.
type entry[V any] struct {
	value      V
	generation uint64
	finished   time.Duration // the end of the check, since Cache.started; the age counts from here
	ttl        time.Duration
	size       int64 // the bytes that count against Options.MaxBytes

	// renewAfter is the age in nanoseconds from which Get asks its caller for a renewal. It is noRenewal while a renewal
	// is in flight. It is the one field that changes.
	renewAfter atomic.Int64
}

// noRenewal is an age that no result reaches.
const noRenewal = math.MaxInt64

// Options are the options of New. TTL and Size are required.
type Options[V any] struct {
	// TTL returns how long v is stored, from now. 0 stores nothing and deletes the stored result, because v is newer.
	// A negative TTL means that v says nothing about the key: the stored result stays.
	TTL func(v V) time.Duration
	// RenewAfter returns the age from which Get asks for a renewal of v, which is stored for ttl. nil: never.
	RenewAfter func(v V, ttl time.Duration) time.Duration
	// Size returns the bytes that v counts against MaxBytes.
	Size func(key string, v V) int
	// MaxEntries and MaxBytes limit the cache. A result beyond them is returned, counted in Stats.Uncached and not
	// stored.
	MaxEntries int
	MaxBytes   int64
}

// Cache stores results by key. It is safe for concurrent use. It starts no goroutine: a store sweeps expired entries.
type Cache[V any] struct {
	o       Options[V]
	started time.Time
	items   *gocache.Cache
	group   group[V]

	storeMu sync.Mutex    // held for each change of items, so that bytes is their sum
	bytes   int64         // guarded by storeMu
	swept   time.Duration // the last sweep, since started; guarded by storeMu

	sets, expirations, uncached atomic.Uint64
}

// sweepInterval is the time between two sweeps of expired entries. A sweep of 100,000 entries takes some milliseconds
// on the goroutine of a check that has just ended.
const sweepInterval = 10 * time.Second

// New returns an empty cache.
func New[V any](o Options[V]) *Cache[V] {
	// The cache uses no janitor of go-cache: only the garbage collector can stop it, and it would wake an idle host.
	c := &Cache[V]{o: o, started: time.Now(), swept: -sweepInterval, items: gocache.New(gocache.NoExpiration, 0)}
	c.items.OnEvicted(func(_ string, v any) {
		c.bytes -= v.(*entry[V]).size
		c.expirations.Add(1)
	})
	return c
}

// CachedResult is what Get returns.
type CachedResult[V any] struct {
	Value *V // read-only
	Age   time.Duration
	// Renew says that the result expires soon and that the caller must call Cache.Renew, on another goroutine. Get sets
	// it for one caller at a time.
	Renew bool
}

// Get returns the cached result for key. It returns false if there is none, or if an override of the key has ended
// since.
func (c *Cache[V]) Get(key string, at Generation) (r CachedResult[V], ok bool) {
	e, age, ok := c.get(key, at)
	if !ok {
		return CachedResult[V]{}, false
	}
	r = CachedResult[V]{Value: &e.value, Age: age}
	if after := e.renewAfter.Load(); int64(age) >= after {
		r.Renew = e.renewAfter.CompareAndSwap(after, noRenewal)
	}
	return r, true
}

func (c *Cache[V]) get(key string, at Generation) (e *entry[V], age time.Duration, ok bool) {
	v, ok := c.items.Get(key)
	if !ok {
		return nil, 0, false
	}
	e = v.(*entry[V])
	age = c.now() - e.finished
	// go-cache compares wall-clock times. If the clock is set back by an hour, it returns results for an hour longer.
	return e, age, e.generation >= at.Min && age <= e.ttl
}

// now returns the age of the cache by the monotonic clock.
func (c *Cache[V]) now() time.Duration { return time.Since(c.started) }

// Do returns the result of the call that is in flight for key. If there is none, it calls run and stores the result as
// Options.TTL says.
//
// The first caller calls run and blocks until it returns. run gets no context, because other callers may share its
// result. The other callers block for at most wait; after that Do returns ok false and no result.
func (c *Cache[V]) Do(key string, at Generation, wait time.Duration, run func() V) (v *V, age time.Duration, s Status, ok bool) {
	return c.do(key, at, false, wait, run)
}

// DoFresh is Do, but it returns only a result that is newer than this call: neither a stored one nor one of a call
// that began earlier.
//
// For one key, fresh calls begin at least freshInterval apart. A caller that comes earlier blocks until then, and its
// result serves all callers of DoFresh that come meanwhile.
func (c *Cache[V]) DoFresh(key string, at Generation, wait time.Duration, run func() V) (v *V, age time.Duration, s Status, ok bool) {
	return c.do(key, at, true, wait, run)
}

func (c *Cache[V]) do(key string, at Generation, fresh bool, wait time.Duration, run func() V) (*V, time.Duration, Status, bool) {
	name := callName(key, at)
	began := c.now()
	var timeout <-chan time.Time
	for {
		x, first := c.group.startOrWait(name, fresh)
		if first {
			e, status := c.runCall(x, key, at, fresh, began, run)
			return &e.value, c.now() - e.finished, status, true
		}
		if timeout == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			timeout = t.C
		}
		status := Shared
		if fresh {
			status = Bypass
		}
		select {
		case <-x.done:
		case <-timeout:
			return nil, 0, status, false
		}
		if x.result == nil || fresh && x.result.finished < began {
			continue // run has panicked, or the call had no result or a stored one
		}
		return &x.result.value, c.now() - x.result.finished, status, true
	}
}

// runCall gets the result for all callers that wait for x: from the cache, if a call has ended since the caller's Get; from
// another call, if one has begun while a fresh call waited for its delay; else from run.
func (c *Cache[V]) runCall(x *call[V], key string, at Generation, fresh bool, began time.Duration, run func() V) (e *entry[V], s Status) {
	defer func() { c.group.finish(x, e) }()
	if fresh {
		time.Sleep(x.delay)
		for running := c.group.begin(x); running != nil; running = c.group.begin(x) {
			<-running.done
			if running.result != nil && running.result.finished >= began {
				return running.result, Bypass
			}
		}
		return c.store(key, run(), at.Current), Bypass
	}
	if e, _, ok := c.get(key, at); ok {
		return e, Shared
	}
	return c.store(key, run(), at.Current), Miss
}

// callName returns the name of the calls for key. The generation is part of it: a call that began before an override
// ended must not answer a request that came after the end.
func callName(key string, at Generation) string {
	if at.Min == 0 {
		return key
	}
	return key + "\x00" + strconv.FormatUint(at.Min, 36)
}

// store stores v under key and returns its entry. It stores nothing if v's TTL is not positive, if the cache is full,
// or if the stored result began after a later end of an override.
func (c *Cache[V]) store(key string, v V, generation uint64) *entry[V] {
	e := &entry[V]{value: v, generation: generation, finished: c.now(), ttl: c.o.TTL(v), size: int64(c.o.Size(key, v))}
	if e.ttl < 0 {
		return e
	}
	e.renewAfter.Store(noRenewal)
	if c.o.RenewAfter != nil {
		e.renewAfter.Store(int64(c.o.RenewAfter(v, e.ttl)))
	}
	c.storeMu.Lock()
	defer c.storeMu.Unlock()
	if e.ttl == 0 {
		c.items.Delete(key)
		return e
	}
	if e.finished-c.swept >= sweepInterval {
		c.sweep(e.finished)
	}
	// A full cache is swept at most once a second, so that it has room soon after a burst.
	if !c.put(key, e) && (e.finished-c.swept < time.Second || !c.sweep(e.finished) || !c.put(key, e)) {
		c.uncached.Add(1)
	}
	return e
}

// put stores e and returns true. It returns false if the cache is full.
func (c *Cache[V]) put(key string, e *entry[V]) bool {
	bytes, entries := e.size, 1
	if v, ok := c.items.Get(key); ok {
		old := v.(*entry[V])
		if old.generation > e.generation {
			return true // the stored result is newer
		}
		bytes, entries = bytes-old.size, 0
	} else {
		c.items.Delete(key) // Set would overwrite an expired entry without a call of OnEvicted
	}
	if c.items.ItemCount()+entries > c.o.MaxEntries || c.bytes+bytes > c.o.MaxBytes {
		c.items.Delete(key) // a stored result is older than e, which does not fit
		return false
	}
	c.items.Set(key, e, e.ttl)
	c.bytes += bytes
	c.sets.Add(1)
	return true
}

// sweep deletes expired entries and reports whether there were any.
func (c *Cache[V]) sweep(now time.Duration) bool {
	c.swept = now
	before := c.items.ItemCount()
	c.items.DeleteExpired()
	return c.items.ItemCount() < before
}

// Stats are counters since New, and the size of the cache now.
type Stats struct {
	Sets, Expirations, Uncached uint64
	Entries                     int
	Bytes                       int64
}

// Stats returns the counters.
func (c *Cache[V]) Stats() Stats {
	c.storeMu.Lock()
	defer c.storeMu.Unlock()
	return Stats{
		Sets: c.sets.Load(), Expirations: c.expirations.Load(), Uncached: c.uncached.Load(),
		Entries: c.items.ItemCount(), Bytes: c.bytes,
	}
}
