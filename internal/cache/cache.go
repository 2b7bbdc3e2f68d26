// Package cache keeps results for a while and sees to it that one question is asked once at a time.
// It knows nothing of checks: values are of any type, and their owner says how long each may be kept
// and how many bytes it takes.
package cache

import (
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	gocache "github.com/patrickmn/go-cache"
)

// Status says where an answer came from. Its String is the value of X-Hacheck-Cache.
type Status uint8

// The outcomes.
const (
	Override Status = iota // nothing was asked: overrides, or a refusal, decided
	Hit                    // a kept result
	Miss                   // this request ran the check
	Shared                 // this request joined a check that another one had started
	Bypass                 // this request demanded a fresh check (Cache-Control: no-cache)
	Statuses               // how many there are
)

func (o Status) String() string {
	return [...]string{"override", "hit", "miss", "shared", "bypass"}[o]
}

// Generation places a result before or after the end of an override. See spool.View.
type Generation struct {
	Current uint64 // stored with a result that is taken now
	Min     uint64 // a result stored with a smaller Now is too old
}

// entry is one kept result. It is never changed once it is stored. There may be 100,000 of them, each looked at
// once in a while: what the cache itself adds is 24 bytes, so that with a value of 40 a hit waits for one line of
// memory here and not for three.
type entry[V any] struct {
	epoch uint64
	taken time.Duration // the end of the check, counted from Cache.began; the age counts from here
	life  uint32        // how long it is kept, in ms, which is 49 days at most
	size  uint32        // bytes that count
	value V
}

// keptFor is how long e is kept.
func (e *entry[V]) keptFor() time.Duration { return time.Duration(e.life) * time.Millisecond }

// Options say what is kept and how much of it.
type Options[V any] struct {
	// TTL returns how long v may be kept, counted from now. 0: not at all, and what was kept before
	// is dropped, since v is newer. Less than 0: v says nothing, what was kept before stands.
	TTL func(v V) time.Duration
	// Size returns the bytes that count against MaxBytes.
	Size func(key string, v V) int
	// Text returns where v has a text, which is then kept next to the key in memory; nil: v has none.
	Text func(v *V) *string
	// MaxEntries and MaxBytes bound what is kept. A result beyond them is served, counted in
	// Stats.Uncached and forgotten.
	MaxEntries int
	MaxBytes   int64
}

// Cache keeps results by key. Its methods are safe for concurrent use. It owns no goroutine:
// expired entries are swept by whoever stores the next one.
type Cache[V any] struct {
	o       Options[V]
	began   time.Time
	items   *gocache.Cache
	flights flights[V]

	storeMu sync.Mutex    // one writer at a time keeps bytes and items in step
	bytes   int64         // guarded by storeMu, as the evictions that change it are
	swept   time.Duration // guarded by storeMu; counted from began

	sets, expirations, uncached atomic.Uint64
}

// sweepEvery is how often a store looks for expired entries. A sweep of 100,000 takes some milliseconds,
// on the goroutine of a check that has just ended.
const sweepEvery = 10 * time.Second

// New returns an empty cache.
func New[V any](o Options[V]) *Cache[V] {
	// No default expiry and no janitor: the janitor of go-cache can be stopped by the garbage
	// collector only, and would wake an idle host.
	c := &Cache[V]{o: o, began: time.Now(), swept: -sweepEvery, items: gocache.New(gocache.NoExpiration, 0)}
	c.items.OnEvicted(func(_ string, v any) {
		c.bytes -= int64(v.(*entry[V]).size)
		c.expirations.Add(1)
	})
	return c
}

// Get returns the kept result for key and its age, if there is one from after the last end of an override. It is
// not to be changed. What is answered with is counted by whoever answers.
func (c *Cache[V]) Get(key string, at Generation) (v *V, age time.Duration, ok bool) {
	e, age, ok := c.get(key, at)
	if !ok {
		return nil, 0, false
	}
	return &e.value, age, true
}

func (c *Cache[V]) get(key string, at Generation) (e *entry[V], age time.Duration, ok bool) {
	v, ok := c.items.Get(key)
	if !ok {
		return nil, 0, false
	}
	e = v.(*entry[V])
	age = c.now() - e.taken
	// go-cache counts by the clock on the wall: were that set back by an hour, results would stand for an hour.
	return e, age, e.epoch >= at.Min && age <= e.keptFor()
}

// now is how long the cache has been there, which no clock that is set changes.
func (c *Cache[V]) now() time.Duration { return time.Since(c.began) }

// Do returns the answer of run for key and its age: one that is in flight already, or else a new one, which
// is kept as Options.Life says. With fresh, a kept result does not count.
//
// Whoever finds none in flight runs run, to its end: it gets no context of the caller's, since others may have
// joined, or come to. Who joins waits for patience; when that ends first, Do returns false and no answer.
//
// Answers to fresh begin forcedEvery apart for one key, however many callers demand them: a caller that comes too
// early waits, and its answer serves all that come while it waits.
func (c *Cache[V]) Do(key string, at Generation, fresh bool, patience time.Duration, run func() V) (v *V, age time.Duration, o Status, ok bool) {
	// A check that began before an override ended must not answer who asks after it: they fly apart.
	name := key
	if at.Min > 0 {
		name = key + "\x00" + strconv.FormatUint(at.Min, 36)
	}
	asked := c.now()
	var tired <-chan time.Time
	for {
		var f *flight[V]
		var first bool
		var wait time.Duration
		if fresh {
			f, first, wait = c.flights.demand(name)
		} else {
			f, first = c.flights.join(name)
		}
		if first && fresh {
			if e := c.await(f, wait, asked); e != nil {
				return &e.value, c.now() - e.taken, Bypass, true
			}
		}
		if first {
			e, ran := c.fly(f, key, at, fresh, run)
			return &e.value, c.now() - e.taken, outcome(fresh, ran), true
		}
		if tired == nil {
			t := time.NewTimer(patience)
			defer t.Stop()
			tired = t.C
		}
		select {
		case <-f.landed:
		case <-tired:
			return nil, 0, outcome(fresh, false), false
		}
		if f.e == nil || fresh && f.e.taken < asked {
			continue // run has panicked, or had only found a kept result
		}
		return &f.e.value, c.now() - f.e.taken, outcome(fresh, false), true
	}
}

// await waits until a flight that was demanded may begin. It returns nil if the caller is to fly f. If another flight
// of its name is under way by then, it lands f with the answer of that one and returns it.
func (c *Cache[V]) await(f *flight[V], wait, asked time.Duration) *entry[V] {
	time.Sleep(wait)
	for {
		other := c.flights.depart(f)
		if other == nil {
			return nil
		}
		<-other.landed
		if other.e != nil && other.e.taken >= asked {
			c.flights.land(f, other.e)
			return other.e
		}
	}
}

// fly runs run for all that are aboard f, unless a flight has landed since the caller's Get. It reports whether it did.
func (c *Cache[V]) fly(f *flight[V], key string, at Generation, fresh bool, run func() V) (e *entry[V], ran bool) {
	defer func() { c.flights.land(f, e) }()
	if !fresh {
		if e, _, ok := c.get(key, at); ok {
			return e, false
		}
	}
	return c.store(key, run(), at.Current), true
}

func outcome(fresh, ran bool) Status {
	switch {
	case fresh:
		return Bypass
	case ran:
		return Miss
	}
	return Shared
}

// store keeps v under key unless it may not be kept, would be too much, or a result from after a later
// end of an override is there already. It returns v's entry, kept or not.
func (c *Cache[V]) store(key string, v V, epoch uint64) *entry[V] {
	taken, life, size := c.now(), c.o.TTL(v), c.o.Size(key, v)
	e := new(entry[V])
	if life > 0 {
		e, key, v = c.together(key, v)
	}
	const ms = time.Millisecond
	*e = entry[V]{value: v, epoch: epoch, taken: taken, life: uint32(min((max(life, 0)+ms-1)/ms, math.MaxUint32)), size: uint32(size)}
	if life < 0 {
		return e
	}

	c.storeMu.Lock()
	defer c.storeMu.Unlock()
	if life == 0 {
		c.items.Delete(key)
		return e
	}
	if e.taken-c.swept >= sweepEvery {
		c.sweep(e.taken)
	}
	// Once a second a full cache looks for room, so that a burst does not fill it for long.
	if !c.put(key, e, life) && (e.taken-c.swept < time.Second || !c.sweep(e.taken) || !c.put(key, e, life)) {
		c.uncached.Add(1)
	}
	return e
}

// together returns room for an entry of v, and key and v with their texts right behind it in memory: a hit reads all
// of them, and with many entries each line of memory is one to wait for, and each page of it another.
func (c *Cache[V]) together(key string, v V) (*entry[V], string, V) {
	text := new(string)
	if c.o.Text != nil {
		text = c.o.Text(&v)
	}
	var e *entry[V]
	var room []byte
	switch n := len(key) + len(*text); {
	case n <= 64: // two or three lines in all, where entry is one
		e, room = roomy[V, [64]byte]()
	case n <= 128:
		e, room = roomy[V, [128]byte]()
	default:
		e, room = new(entry[V]), make([]byte, n)
	}
	n := copy(room, key)
	n += copy(room[n:], *text)
	both := unsafe.String(unsafe.SliceData(room), n) //nolint:gosec // room is never written again
	key, *text = both[:len(key)], both[len(key):]
	return e, key, v
}

// roomy returns an entry with R, an array of bytes, right behind it.
func roomy[V, R any]() (*entry[V], []byte) {
	var x struct {
		entry[V]
		room R
	}
	return &x.entry, unsafe.Slice((*byte)(unsafe.Pointer(&x.room)), unsafe.Sizeof(x.room)) //nolint:gosec // R has that size
}

// put stores e if it fits and reports whether nothing is left to do.
func (c *Cache[V]) put(key string, e *entry[V], life time.Duration) bool {
	more, places := int64(e.size), 1
	if v, ok := c.items.Get(key); ok {
		old := v.(*entry[V])
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
func (c *Cache[V]) sweep(now time.Duration) bool {
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
