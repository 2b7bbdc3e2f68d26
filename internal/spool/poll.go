//go:build unix

package spool

import (
	"time"

	"golang.org/x/sys/unix"
)

// dirStamp changes when a name is added to or taken from a directory.
type dirStamp struct {
	id           dirID
	mtime, ctime time.Time
}

// isReliable reports whether a change after began must give the directory another stamp. The kernel's clock
// for time stamps ticks: two changes within one tick leave the same stamp, so that a listing only counts
// when it began clearly after the last change it can have seen.
func (s dirStamp) isReliable(began time.Time) bool {
	for _, ts := range []time.Time{s.mtime, s.ctime} {
		tick := mtimeTick
		if ts.Nanosecond() == 0 {
			tick = secondTick
		}
		if began.Sub(ts) < tick {
			return false
		}
	}
	return true
}

// poll does without inotify what events do with it: it lists the names again when the directory says that
// one came or went, or when it cannot tell. What is in the files of a target is read for each lookup.
func (w *update) poll() {
	began := time.Now() // the clock of the stamps, whatever clock expirations go by
	stamp, err := statDir(unix.AT_FDCWD, w.root)
	switch {
	case err != nil || !stamp.id.sameOnMount(w.id):
		w.closeDir()
		if !w.openDir() {
			return
		}
		w.scanIfNeeded()
		return
	case stamp == w.stamp && w.stampReliable:
		return
	}
	if !w.openDir() || w.handle.prefix != "" {
		return // no descriptor to list with: trusted stays false
	}
	if stamp != w.stamp {
		w.edit().outdateAll() // a name may have come and gone, and the names do not tell
	}
	if !w.scan(true) {
		return
	}
	w.stamp, w.stampReliable = stamp, stamp.isReliable(began)
}
