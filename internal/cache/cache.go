// Package cache keeps results for a while and sees to it that one question is asked once at a time.
// It knows nothing of checks: values are of any type, and their owner says how long each may be kept
// and how many bytes it takes.
package cache

import (
	"context"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	gocache "github.com/patrickmn/go-cache"
	"golang.org/x/sync/singleflight"
)

// Outcome says where an answer came from. Its String is the value of X-Hacheck-Cache.
type Outcome uint8

// The outcomes.
const (
	Override Outcome = iota // nothing was asked: overrides, or a refusal, decided
	Hit                     // a kept result
	Miss                    // this request ran the check
	Shared                  // this request joined a check that another one had started
	Bypass                  // this request demanded a fresh check (Cache-Control: no-cache)
	Outcomes                // how many there are
)

func (o Outcome) String() string {
	return [...]string{"override", "hit", "miss", "shared", "bypass"}[o]
}

// Epoch places a result before or after the end of an override. See spool.View.
type Epoch struct {
	Now   uint64 // stored with a result that is taken now
	Ended uint64 // a result stored with a smaller Now is too old
}

// Entry is one kept result. It is never changed once it is stored.
type Entry[V any] struct {
	// What every request looks at comes first: with many entries each line of memory is one to wait for.
	epoch uint64
	Taken time.Time // the end of the check; the age counts from here
	life  uint32    // how long it is kept, in ms, which is 49 days at most
	size  uint32    // bytes that count; both are small, for there are 100,000 of them
	Value V
}

// keptFor is how long e is kept.
func (e *Entry[V]) keptFor() time.Duration { return time.Duration(e.life) * time.Millisecond }

// Options say what is kept and how much of it.
type Options[V any] struct {
	// Life returns how long v may be kept, counted from now. 0: not at all, and what was kept before
	// is dropped, since v is newer. Less than 0: v says nothing, what was kept before stands.
	Life func(v V) time.Duration
	// Size returns the bytes that count against MaxBytes.
	Size func(key string, v V) int
	// Pack returns key and v with what they point to moved next to each other in memory, or as they are.
	// nil leaves them. The key must stay the same text.
	Pack func(key string, v V) (string, V)
	// MaxEntries and MaxBytes bound what is kept. A result beyond them is served, counted in
	// Stats.Uncached and forgotten.
	MaxEntries int
	MaxBytes   int64
}

// Cache keeps results by key. Its methods are safe for concurrent use. It owns no goroutine:
// expired entries are swept by whoever stores the next one.
type Cache[V any] struct {
	o       Options[V]
	items   *gocache.Cache
	flights singleflight.Group

	storeMu sync.Mutex // one writer at a time keeps bytes and items in step
	bytes   int64      // guarded by storeMu, as the evictions that change it are
	swept   time.Time  // guarded by storeMu

	sets, expirations, uncached atomic.Uint64
}

// sweepEvery is how often a store looks for expired entries. A sweep of 100,000 takes some milliseconds,
// on the goroutine of a check that has just ended.
const sweepEvery = 10 * time.Second

// New returns an empty cache.
func New[V any](o Options[V]) *Cache[V] {
	// No default expiry and no janitor: the janitor of go-cache can be stopped by the garbage
	// collector only, and would wake an idle host.
	c := &Cache[V]{o: o, items: gocache.New(gocache.NoExpiration, 0)}
	c.items.OnEvicted(func(_ string, v any) {
		c.bytes -= int64(v.(*Entry[V]).size)
		c.expirations.Add(1)
	})
	return c
}

// Get returns the kept result for key and its age, if there is one from after the last end of an override. What
// is answered with is counted by whoever answers.
func (c *Cache[V]) Get(key string, at Epoch) (e *Entry[V], age time.Duration, ok bool) {
	v, ok := c.items.Get(key)
	if !ok {
		return nil, 0, false
	}
	e = v.(*Entry[V])
	age = time.Since(e.Taken)
	// go-cache counts by the clock on the wall: were that set back by an hour, results would stand for an hour.
	return e, age, e.epoch >= at.Ended && age <= e.keptFor()
}

// Do returns the answer of run for key: one that is in flight already, or else a new one, which is
// kept as Options.Life says. With fresh, a kept result does not count. run gets no context of the
// caller's: it lives on when ctx ends, for whoever else has joined and for the next one to ask. When
// ctx ends first, Do returns its error and no entry. run must not panic.
func (c *Cache[V]) Do(ctx context.Context, key string, at Epoch, fresh bool, run func() V) (*Entry[V], Outcome, error) {
	// A check that began before an override ended must not answer who asks after it: they fly apart.
	flight := key
	if at.Ended > 0 {
		flight = key + "\x00" + strconv.FormatUint(at.Ended, 36)
	}
	asked := time.Now()
	for {
		var ran atomic.Bool
		ch := c.flights.DoChan(flight, func() (any, error) {
			// Another flight may have landed between the caller's Get and here.
			if !fresh {
				if e, _, ok := c.Get(key, at); ok {
					return e, nil
				}
			}
			ran.Store(true)
			e := &Entry[V]{Value: run(), epoch: at.Now}
			c.store(key, e)
			return e, nil
		})
		select {
		case r := <-ch:
			e := r.Val.(*Entry[V])
			if fresh && e.Taken.Before(asked) {
				continue // joined a flight that had only found a kept result
			}
			return e, outcome(fresh, ran.Load()), nil
		case <-ctx.Done():
			return nil, outcome(fresh, ran.Load()), ctx.Err()
		}
	}
}

func outcome(fresh, ran bool) Outcome {
	switch {
	case fresh:
		return Bypass
	case ran:
		return Miss
	}
	return Shared
}

// store keeps e under key unless it may not be kept, would be too much, or a result from after a later
// end of an override is there already.
func (c *Cache[V]) store(key string, e *Entry[V]) {
	e.Taken = time.Now()
	life := c.o.Life(e.Value)
	if life < 0 {
		return
	}
	const ms = time.Millisecond
	e.life = uint32(min((life+ms-1)/ms, math.MaxUint32))
	e.size = uint32(c.o.Size(key, e.Value))
	if c.o.Pack != nil && life > 0 {
		key, e.Value = c.o.Pack(key, e.Value)
	}

	c.storeMu.Lock()
	defer c.storeMu.Unlock()
	if life == 0 {
		c.items.Delete(key)
		return
	}
	if e.Taken.Sub(c.swept) >= sweepEvery {
		c.sweep(e.Taken)
	}
	// Once a second a full cache looks for room, so that a burst does not fill it for long.
	if !c.put(key, e, life) && (e.Taken.Sub(c.swept) < time.Second || !c.sweep(e.Taken) || !c.put(key, e, life)) {
		c.uncached.Add(1)
	}
}

// put stores e if it fits and reports whether nothing is left to do.
func (c *Cache[V]) put(key string, e *Entry[V], life time.Duration) bool {
	more, places := int64(e.size), 1
	if v, ok := c.items.Get(key); ok {
		old := v.(*Entry[V])
		if old.epoch > e.epoch {
			return true // what is kept is from after a later end of an override
		}
		more, places = more-int64(old.size), 0
	} else {
		c.items.Delete(key) // an expired one that is still there would be overwritten without OnEvicted
	}
	if c.items.ItemCount()+places > c.o.MaxEntries || c.bytes+more > c.o.MaxBytes {
		c.items.Delete(key) // nobody may get the older one now
		return false
	}
	c.items.Set(key, e, life)
	c.bytes += more
	c.sets.Add(1)
	return true
}

// sweep drops what has expired and reports whether that made room.
func (c *Cache[V]) sweep(now time.Time) bool {
	c.swept = now
	before := c.items.ItemCount()
	c.items.DeleteExpired()
	return c.items.ItemCount() < before
}

// Stats are counters since the start, and what is kept now.
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
