//go:build unix

package spool

import (
	"time"

	"github.com/fsnotify/fsnotify"
)

// background updates an Index without a request, so that changes are logged and notified when they happen.
//
// There are two inotify watchers on the directory. fsnotify's wakes this goroutine. It cannot serve lookups: it hides
// its descriptor and takes events off the queue early, and a lookup has to ask the queue itself (see the package
// comment). Only the goroutine of run uses the fields.
type background struct {
	index      *Index
	watcher    *fsnotify.Watcher // nil: there is no directory or no inotify
	generation uint64            // of the directory that watcher watches
	ticker     *time.Ticker      // nil: a healthy local directory needs none
	period     time.Duration     // of ticker; 0 without
}

// run returns when Index.done is closed.
func (b *background) run() {
	defer b.setPeriod(0)
	defer b.closeWatcher()
	x := b.index
	for {
		x.mu.Lock()
		generation, lost, remote, polling := x.dir.generation, x.dir.lost, x.dir.remoteFS != "", x.watch == nil
		displaced := x.isDisplaced()
		x.mu.Unlock()
		if lost || generation != b.generation {
			b.closeWatcher()
		}
		if b.watcher == nil && !lost {
			b.openWatcher(generation)
		}
		switch {
		case lost, displaced:
			b.setPeriod(lostRetry)
		case remote:
			b.setPeriod(remoteScan)
		case polling || b.watcher == nil:
			b.setPeriod(inotifyRetry)
		default:
			b.setPeriod(0)
		}
		if !b.wait(remote) {
			return
		}
	}
}

// openWatcher makes a watcher of the directory. Without inotify it fails as Index.watch does, and is tried again with
// the next tick.
func (b *background) openWatcher(generation uint64) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return
	}
	if w.Add(b.index.dir.root) != nil {
		_ = w.Close()
		return
	}
	b.watcher, b.generation = w, generation
	b.index.updateIfPending() // for events before w
}

func (b *background) closeWatcher() {
	if b.watcher != nil {
		_ = b.watcher.Close() // no event is lost with it: the next one begins with an update
		b.watcher = nil
	}
}

func (b *background) setPeriod(period time.Duration) {
	if period == b.period {
		return
	}
	if b.ticker != nil {
		b.ticker.Stop()
		b.ticker = nil
	}
	if b.period = period; period > 0 {
		b.ticker = time.NewTicker(period)
	}
}

// wait handles events until the state of the Index may have changed. It returns false when the Index is closed.
func (b *background) wait(remote bool) bool {
	var events chan fsnotify.Event
	var errs chan error
	var tick <-chan time.Time
	if b.watcher != nil {
		events, errs = b.watcher.Events, b.watcher.Errors
	}
	if b.ticker != nil {
		tick = b.ticker.C
	}
	x := b.index
	for {
		var open bool
		select {
		case <-x.done:
			return false
		case <-x.wake:
			return true
		case _, open = <-events:
		case _, open = <-errs: // also an overflow of fsnotify's queue; Index.watch notices its own
		case <-tick:
			todo := attVerify
			if remote {
				todo |= attScan
			}
			x.mu.Lock()
			x.update(nil, todo)
			x.mu.Unlock()
			return true
		}
		if !open {
			b.closeWatcher()
			return true
		}
		x.updateIfPending()
	}
}

// updateIfPending updates x if an event is pending or was read without an update. So a burst of events costs a system
// call each, and not an update each.
func (x *Index) updateIfPending() {
	if fd := x.fd.Load(); fd >= 0 && !hasUnreadEvents(fd) && x.attention.Load()&(attDirty|attScan) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.update(nil, 0)
}
