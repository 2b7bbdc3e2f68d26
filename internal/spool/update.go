//go:build unix

package spool

import (
	"log/slog"
	"time"
)

// update is one pass that brings an Index up to date. Index.mu is held from newUpdate to finish.
type update struct {
	index *Index
	dir   *watchedDir // of index, as the next four
	files *fileTable
	fleet *fleetTable
	aside asideFiles
	pub   *publisher

	handle          *dirHandle // nil: the directory is not open
	now             time.Time  // wall clock, for expirations
	mono            time.Time  // the start by the monotonic clock, for durations
	changes         int        // slots changed so far, plus files that vanished between listing and reading
	deletions       bool       // an override ended because its file was deleted, and confirmDeletions was not called since
	lastRound       bool       // no round follows: see postpone
	removeAbandoned bool       // the next listing removes what killed writers have left behind
	err             error      // of the last attempt to open or list the directory
}

func (x *Index) newUpdate() *update {
	return &update{
		index: x, dir: &x.dir, files: &x.files, fleet: &x.fleet, aside: x.aside, pub: &x.pub,
		now: x.system.now(), mono: time.Now(),
	}
}

// update brings x up to date for q, or as a whole when q is nil. todo are attention flags to handle in addition to those that
// are set. x.mu is held.
func (x *Index) update(q *query, todo uint32) {
	if x.closed {
		return
	}
	u := x.newUpdate()
	u.run(q, x.attention.Load()|todo)
	u.finish()
}

// run repeats rounds of reading until one finds nothing new. A file is read after the event that names it, and may
// already have the content of a later event that is not yet read. With `hadown web; haup all`, an update that has seen
// `all` go must read the event of `web` before a lookup is answered.
func (u *update) run(q *query, todo uint32) {
	if check := u.dir.deletionCheck; !check.IsZero() && !check.After(u.mono) {
		u.dir.deletionCheck = time.Time{}
		todo |= attVerify
	}
	for round := range maxRounds {
		u.lastRound = round == maxRounds-1 || round > 0 && time.Since(u.mono) > maxUpdateTime
		before := u.changes
		busy := u.round(q, todo)
		if !busy && u.changes == before && u.confirmDeletions() {
			return
		}
		if u.lastRound {
			break
		}
		todo = 0
	}
	u.confirmDeletions()
}

// round reads the pending events and everything that todo asks for. busy reports that there was something to read.
func (u *update) round(q *query, todo uint32) (busy bool) {
	generation := u.dir.generation
	b := u.readEvents()
	busy = b.count > 0
	switch {
	case todo&(attVerify|attScan) != 0:
		u.verify(todo)
		busy = true
	case b.count > 0:
		u.openDir() // before its files count, check that it still is our directory
	}
	if !u.dir.lost {
		if u.dir.generation == generation { // otherwise the events are about files of the previous directory
			u.applyEvents(&b)
		}
		busy = u.scanIfNeeded() || busy
		u.reloadUnwatched(q, todo)
	}
	u.expire(q, todo)
	u.checkAsideFiles()
	return busy
}

// readEvents takes the pending events off the kernel's queue. It sets attDirty before: a lookup that then finds the
// queue empty waits for this update.
func (u *update) readEvents() (b eventBatch) {
	x := u.index
	if x.watch == nil || !hasUnreadEvents(x.fd.Load()) {
		return b
	}
	x.attention.Or(attDirty)
	if err := x.watch.drain(&b); err != nil {
		x.stats.Errors++
		u.dropWatch(err)
		b.count++
		x.needScan = true
	}
	x.stats.Events += b.count
	u.dir.unmounted = u.dir.unmounted || b.unmounted
	if b.overflow {
		x.stats.Overflows++
		x.needScan = true
		u.pub.nextBuilder().outdateAll() // which overrides ended is not known
	}
	return b
}

// dropWatch closes the watch. The next verification tries to open another one.
func (u *update) dropWatch(err error) {
	x := u.index
	u.pub.notify.log(slog.LevelWarn, "inotify fails: every request looks at the spool directory instead",
		slog.String("directory", u.dir.root), slog.String("error", err.Error()))
	x.attention.Or(attPoll) // before lookups find no descriptor
	x.fd.Store(-1)
	x.watch.close()
	x.watch = nil
	x.wakeBackground()
}

// finish publishes the update and starts the timer for the next one.
func (u *update) finish() {
	u.closeDir()
	u.pub.publish()
	u.logDirectory()
	u.index.publishStats()
	u.pub.notifyChanges() // OnChange must find the change when it calls the Index
	u.setAttention()
	u.setTimer()
}

// setAttention sets the attention flags that stay after this update, and clears attDirty and attExpiry. It sets before
// it clears: at no instant may a lookup miss a flag. attVerify stays as it is, because its timer may set it at any
// time.
func (u *update) setAttention() {
	x := u.index
	var keep uint32
	if x.watch == nil {
		keep |= attPoll
	}
	if len(x.files.alwaysReload) > 0 {
		keep |= attReload
	}
	if x.files.tooMany {
		keep |= attTooManyFiles
	}
	if x.needScan && !x.dir.lost {
		keep |= attScan
	}
	x.attention.Or(keep)
	x.attention.And(keep | attVerify | attClosed)
}

// setTimer starts expiryTimer for the next override that expires and the next file or directory that is to be checked.
func (u *update) setTimer() {
	wait, expiry := maxTimer, earlier(earlier(u.files.nextExpiry, u.fleet.nextExpiry), u.pub.weightExpiry)
	if !expiry.IsZero() {
		wait = min(wait, expiry.Sub(u.now))
	}
	if !u.dir.lost { // otherwise nothing can be done for files set aside until the directory is back
		for _, f := range u.aside {
			wait = min(wait, f.checkAt.Sub(u.mono))
		}
	}
	if !u.dir.deletionCheck.IsZero() {
		wait = min(wait, u.dir.deletionCheck.Sub(u.mono))
	}
	if wait < maxTimer || !expiry.IsZero() {
		u.index.expiryTimer.Reset(max(wait, time.Millisecond))
	} else {
		u.index.expiryTimer.Stop()
	}
}
