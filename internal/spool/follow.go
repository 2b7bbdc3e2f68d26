//go:build unix

package spool

import (
	"time"

	"github.com/fsnotify/fsnotify"
)

// follow keeps the index up to date while nobody asks, so that changes are told when they happen. It is
// the only one to touch the fsnotify watcher, and ends with x.done.
func (x *Index) follow() {
	var (
		watcher *fsnotify.Watcher
		watched uint64
		events  chan fsnotify.Event
		errs    chan error
		ticker  *time.Ticker
		period  time.Duration
	)
	drop := func() {
		if watcher != nil {
			_ = watcher.Close() // nothing is lost with it: the next one comes with a look at the directory
		}
		watcher, events, errs = nil, nil, nil
	}
	defer func() {
		drop()
		if ticker != nil {
			ticker.Stop()
		}
	}()
	for {
		x.mu.Lock()
		home, lost, remote, polling := x.generation, x.lost, x.remoteFS != "", x.watch == nil
		astray := x.displaced()
		x.mu.Unlock()
		if watcher != nil && (lost || home != watched) {
			drop()
		}
		if watcher == nil && !lost {
			// Without inotify it fails as the raw watch did, and is tried again with it.
			if w, err := fsnotify.NewWatcher(); err == nil {
				if w.Add(x.root) == nil {
					watcher, watched, events, errs = w, home, w.Events, w.Errors
					x.updateIfPending() // what happened before it was there
				} else {
					_ = w.Close()
				}
			}
		}
		want := time.Duration(0) // a healthy local directory needs no looking after
		switch {
		case lost, astray:
			want = lostRetry
		case remote:
			want = remoteScan
		case polling || watcher == nil:
			want = inotifyRetry
		}
		if want != period {
			if ticker != nil {
				ticker.Stop()
				ticker = nil
			}
			if want > 0 {
				ticker = time.NewTicker(want)
			}
			period = want
		}
		var tick <-chan time.Time
		if ticker != nil {
			tick = ticker.C
		}
		if !x.wait(events, errs, tick, remote) {
			return
		}
	}
}

// wait handles events until the state may have changed; false when x is closed.
func (x *Index) wait(events <-chan fsnotify.Event, errs <-chan error, tick <-chan time.Time, remote bool) bool {
	for {
		select {
		case <-x.done:
			return false
		case <-x.wake:
			return true
		case _, ok := <-events:
			if !ok {
				return true
			}
			x.updateIfPending()
		case _, ok := <-errs:
			// An overflow of fsnotify's queue is none of ours: the raw watch has its own, and says so.
			if !ok {
				return true
			}
			x.updateIfPending()
		case <-tick:
			work := attVerify
			if remote {
				work |= attScan
			}
			x.mu.Lock()
			x.update(nil, work)
			x.mu.Unlock()
			return true
		}
	}
}

// updateIfPending takes up what has happened, if anything has. A burst of events costs a system call each, not a
// reading each.
func (x *Index) updateIfPending() {
	if fd := x.fd.Load(); fd >= 0 && !pending(fd) && x.attention.Load()&(attDirty|attScan) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.update(nil, 0)
}
