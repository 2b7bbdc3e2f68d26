//go:build unix

package spool

import (
	"io/fs"
	"log/slog"
	"strings"

	"golang.org/x/sys/unix"
)

// eventBatch is what one reading of the kernel's queue has returned.
type eventBatch struct {
	names     map[string]bool // file names; true: the last event of the name was a plain deletion
	overflow  bool            // the kernel has dropped events
	unmounted bool            // the file system of the directory is gone
	count     uint64          // events, also those about the directory itself
}

func (b *eventBatch) add(name string, deleted bool) {
	if b.names == nil {
		b.names = map[string]bool{}
	}
	b.names[name] = deleted
}

// applyEvents reloads the files that b names. Plain deletions come last: if there are no other events, they may be the
// start of an `rm -r`.
func (u *update) applyEvents(b *eventBatch) {
	for _, deletions := range []bool{false, true} {
		for name, deleted := range b.names {
			if deleted == deletions {
				u.applyEvent(name)
				if !deleted {
					u.dir.deleted = deletedFiles{}
				}
			}
		}
	}
}

// applyEvent handles an event of the file name.
func (u *update) applyEvent(name string) {
	for link := range u.files.linksTo[name] {
		u.reload(link)
	}
	if _, ok := originalName(name); ok {
		u.trackAside(name)
		if f := u.aside[name]; f != nil {
			f.checkAt = u.mono
		}
		return
	}
	if lifted, ok := strings.CutPrefix(name, liftPrefix); ok {
		u.liftCarried(lifted)
		return
	}
	if k, ok := weightKey(name); ok {
		u.loadWeight(k, true)
		return
	}
	before := u.files.byName[name]
	u.load(name, true)
	if f := u.files.byName[name]; f != nil && f.removeFailed && before != nil && before.removeFailed {
		u.setAside(f) // the event may be of a change that allows it
	}
}

// loadedFile is what was read under a file name.
type loadedFile struct {
	name       string
	typ        fs.FileMode // as the listing has it, or typeUnknown
	key        Key
	result     readResult
	entry      Entry
	isOverride bool // entry is one
	fromEvent  bool // an event has named the file
}

// read reads the file. The result's content is dropped, because h reuses its memory.
func (l *loadedFile) read(h *dirHandle) {
	l.result = h.read(l.name, l.typ)
	l.entry, l.isOverride = l.result.entry(l.key)
	l.result.content = nil
}

// reload reads the file name and applies what it says.
func (u *update) reload(name string) {
	if u.openDir() {
		u.load(name, false)
	}
}

// load is reload in an open directory. fromEvent says that an event has named the file.
func (u *update) load(name string, fromEvent bool) {
	k, err := ParseKey(name)
	if err == nil {
		l := loadedFile{name: name, typ: typeUnknown, key: k, fromEvent: fromEvent}
		l.read(u.handle)
		u.apply(&l)
		return
	}
	if isOwnFile(name) {
		return
	}
	var st unix.Stat_t
	if unix.Fstatat(u.handle.fd, u.handle.path(name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		u.logIgnored(name, err.Error())
	}
}

// apply brings the file table and the next snapshot up to date with l.
func (u *update) apply(l *loadedFile) {
	u.index.stats.Reloads++
	old := u.files.byName[l.name]
	if l.result.status == notRegular {
		u.logIgnored(l.name, l.result.reason)
	}
	switch {
	case old != nil && old.carriedFrom != nil && !l.isOverride && (!l.fromEvent || l.result.status != notFound):
		// Carried: that the directory of another mount has no such file does not end it.
	case !l.isOverride && len(l.result.via) == 0 && !l.result.unwatched:
		u.applyMissing(l, old)
	default:
		u.applyFile(l, old)
	}
}

// applyMissing applies l when there is no override, and no link either that could lead to one without an event of
// l.name.
func (u *update) applyMissing(l *loadedFile, old *spoolFile) {
	switch {
	case old == nil:
		if l.fromEvent && u.pub.slot(l.key).entry == nil {
			u.pub.nextBuilder().end(l.key) // a file was there since the last event
		}
	case u.lastRound && old.entry != nil:
		u.files.postpone(old)
	default:
		if l.result.status == notFound && old.isInForce() {
			u.recordDeletion(old, nil)
		}
		u.files.remove(old)
		u.resolve(l.key)
	}
}

// applyFile applies l when it is an override or a link that may lead to one.
//
// As applyMissing, it postpones a weaker or missing override in the last round, which may add or strengthen overrides
// but not end them: an event still unread may belong to the same change.
func (u *update) applyFile(l *loadedFile, old *spoolFile) {
	f := u.newFile(l, old)
	switch {
	case old == nil:
		u.dir.deleted = deletedFiles{} // `rm -r` creates no files
		if len(u.files.byName) >= u.files.limit {
			u.logTooMany()
			return
		}
	case u.lastRound && old.entry != nil && (f.entry == nil || f.entry.State < old.entry.State):
		u.files.postpone(old)
		return
	default:
		if f.entry == nil && old.isInForce() { // the file behind the link is gone
			u.recordDeletion(old, nil)
		}
		u.files.remove(old)
	}
	u.files.add(f)
	u.resolve(l.key)
	if f.expired && !f.removeFailed {
		u.setAside(f)
	}
}

// newFile returns the row of the file table for l, which replaces old. If l could not be read the override of old
// stays.
func (u *update) newFile(l *loadedFile, old *spoolFile) *spoolFile {
	f := &spoolFile{name: l.name, key: l.key, via: l.result.via, unwatched: l.result.unwatched, listing: u.files.listing}
	if l.isOverride {
		entry := l.entry
		f.entry = &entry
	}
	if l.result.status == readFailed {
		u.index.stats.Errors++
		f.retry = true
		if old != nil && old.entry != nil {
			f.entry, f.carriedFrom = old.entry, old.carriedFrom
		}
		if old == nil || !old.retry {
			u.pub.notify.log(slog.LevelError, "spool file cannot be read for now, and counts as down unless it was known",
				slog.String("name", l.name), slog.String("error", l.result.err.Error()))
		}
	}
	if old != nil && old.entry != nil && f.entry != nil && *old.entry == *f.entry {
		f.entry, f.removeFailed = old.entry, old.removeFailed // unchanged
	}
	f.expired = f.entry != nil && f.entry.Expired(u.now)
	return f
}

// resolve brings k's slot up to date with the files and the overrides of the fleet about k.
func (u *update) resolve(k Key) {
	var s keyRecord
	for _, f := range u.files.of(k) {
		if f.entry != nil {
			s.add(f.entry, f.expired)
		}
	}
	for _, o := range u.fleet.byKey[k] {
		s.add(o.entry, o.expired)
	}
	if u.pub.set(k, s, u.now) {
		u.changes++
	}
}

// logTooMany logs once that the file table is full, and records it.
func (u *update) logTooMany() {
	u.files.tooMany = true
	if !u.files.loggedTooMany {
		u.files.loggedTooMany = true
		u.pub.notify.log(slog.LevelError, "too many spool files: for those beyond the limit every request looks at the disk, and no result is reused",
			slog.String("directory", u.dir.root), slog.Int("limit", u.files.limit))
	}
}

// logIgnored logs once that the file name is not an override.
func (u *update) logIgnored(name, why string) {
	x := u.index
	if x.ignored[name] || len(x.ignored) > maxIgnored {
		return
	}
	x.ignored[name] = true
	x.stats.Ignored++
	if len(x.ignored) > maxIgnored {
		u.pub.notify.logUnlimited(slog.LevelWarn, "more files in the spool directory are no overrides; no more is said of them", slog.String("directory", u.dir.root))
		return
	}
	u.pub.notify.logUnlimited(slog.LevelWarn, "file in the spool directory is ignored", slog.String("name", name), slog.String("why", why))
}
