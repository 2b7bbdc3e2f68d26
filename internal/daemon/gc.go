package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much the heap may grow between two collections, in percent. A small heap is collected so often, when every
// request is a check, that 60 costs a twentieth of the rate against 200; of a large one, full of results that leave
// no garbage when they are answered with, most of that growth would be memory that nobody uses.
const (
	gcSmall = 200
	gcLarge = 60
	// gcSmallHeap is up to how much live memory a heap is small.
	gcSmallHeap = 6 << 20
)

// collector chooses between them. It is woken by collections alone: its finalizer runs after each.
type collector struct {
	percent int
	live    []metrics.Sample
}

// tuneCollector does so for the rest of the process, unless GOGC says what is wanted.
func tuneCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	c := &collector{live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	c.choose()
}

// choose looks at the heap, sets what is right for it, and has itself called after the next collection.
func (c *collector) choose() {
	metrics.Read(c.live)
	percent := gcSmall
	// A runtime that does not know the figure has it of another kind.
	if c.live[0].Value.Kind() == metrics.KindUint64 && c.live[0].Value.Uint64() > gcSmallHeap {
		percent = gcLarge
	}
	if percent != c.percent {
		c.percent = percent
		debug.SetGCPercent(percent)
	}
	runtime.SetFinalizer(c, (*collector).choose)
}
