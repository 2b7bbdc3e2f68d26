//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// How an expired file is removed without losing a renewal that is written at the same time:
//
// The original removes it by name, and with it whatever has taken that name since it was read. Here it is
// renamed aside first, to a name that no service can have, and only then looked at: what was moved is
// what will be removed, and if that turns out to be in force it is put back, unless something newer has
// the name by then. A writer that opened the old file before it was moved, and fills it only now, as the
// original tools do, still reaches it under the new name: the kernel tells, and it is put back. So it is
// kept for parkGrace, and removed then if it still has expired and, as far as the kernel can tell, nobody
// has it open. All of it happens under the lock that lookups with news wait on, and what a crash leaves
// moved aside is looked at when the directory is next read.

// asideFile is a file that was moved aside.
type asideFile struct {
	since time.Time
	checkAt  time.Time // when to look at it
	tries int
}

// expire ends what has expired, and brings back what no longer has, the clock having been set back: for
// the keys of t, and for all when the timer says so.
func (w *update) expire(t *query, todo uint32) {
	var turned []*spoolFile
	consider := func(f *spoolFile) {
		if f.entry != nil && f.entry.Expired(w.now) != f.expired {
			turned = append(turned, f)
		}
	}
	if t != nil {
		for _, k := range t.keys() {
			if s := w.slotOf(k); (s.entry == nil || s.entry.Expires.IsZero()) && s.expired == nil {
				continue
			}
			for _, f := range w.filesOf(k) {
				consider(f)
			}
		}
	}
	if todo&attExpiry != 0 {
		w.nextExpiry = time.Time{}
		for _, f := range w.byName {
			consider(f)
			if f.entry == nil || f.expired || f.entry.Expired(w.now) {
				continue
			}
			if e := f.entry.Expires; !e.IsZero() && (w.nextExpiry.IsZero() || e.Before(w.nextExpiry)) {
				w.nextExpiry = e
			}
		}
	}
	for _, f := range turned {
		w.drop(f)
		if f.carriedFrom != nil { // there is no file here that could be removed, or be renewed
			w.resolve(f.key)
			continue
		}
		f.expired = !f.expired
		w.store(f)
		w.resolve(f.key)
		if f.expired && !f.removeFailed {
			w.setAside(f)
		}
	}
}

// setAside moves an expired file aside. If it may not be, nothing is lost: it counts no more either way.
func (w *update) setAside(f *spoolFile) {
	if w.lost || !w.openDir() {
		return
	}
	if w.handle.prefix != "" { // no descriptor to look at what was moved: at the next lookup
		w.postpone(f)
		return
	}
	aside := newAsideName(f.name)
	err := unix.Renameat(w.handle.fd, w.handle.path(f.name), w.handle.fd, w.handle.path(aside))
	switch {
	case err == nil:
		w.trackAside(aside)
		w.checkAside(aside)
		w.reload(f.name, false)
	case errors.Is(err, unix.ENOENT): // somebody else was faster; the event says so
	case !f.removeFailed:
		f.removeFailed = true
		w.notify.log(w.log, slog.LevelWarn, "override has expired and its file cannot be removed",
			slog.String("name", f.name), slog.String("error", err.Error()))
	}
}

// trackAside remembers the file name as moved aside.
func (w *update) trackAside(name string) {
	if w.parked[name] == nil && len(w.parked) < w.system.maxFiles { // so many come of no crash
		w.parked[name] = &asideFile{since: w.mono, checkAt: w.mono}
	}
}

// checkAsideFiles looks at the files that were moved aside and whose time has come.
func (w *update) checkAsideFiles() {
	for name, p := range w.parked {
		if !p.checkAt.After(w.mono) && !w.lost && w.openDir() {
			w.checkAside(name)
		}
	}
}

// checkAside removes the file aside, puts it back, or leaves it for later.
func (w *update) checkAside(aside string) {
	p := w.parked[aside]
	if p == nil {
		return
	}
	name, _ := originalName(aside)
	k, err := ParseKey(name)
	if err != nil { // nobody of ours made it
		delete(w.parked, aside)
		return
	}
	r := w.handle.read(aside, typeUnknown)
	e, ok := r.entry(k)
	if r.status == notFound || r.status == notRegular {
		delete(w.parked, aside)
		return
	}
	if r.status == readFailed { // not a word about what it says
		p.retryLater(w.mono)
		return
	}
	if !ok || !e.Expired(w.now) {
		w.restoreAside(aside, name)
		return
	}
	if rest := asideGrace - w.mono.Sub(p.since); rest > 0 {
		p.checkAt = w.mono.Add(rest)
		return
	}
	if w.removeExpired(aside, k) {
		delete(w.parked, aside)
		return
	}
	p.retryLater(w.mono)
}

// retryLater has p looked at again, after twice the time each time.
func (p *asideFile) retryLater(now time.Time) {
	p.tries++
	p.checkAt = now.Add(time.Second << min(p.tries, 6))
}

// restoreAside gives aside its name again, unless something newer has it.
func (w *update) restoreAside(aside, name string) {
	err := w.handle.renameNoReplace(aside, name)
	if errors.Is(err, unix.EEXIST) {
		err = unix.Unlinkat(w.handle.fd, w.handle.path(aside), 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		w.stats.Errors++
		p := w.parked[aside]
		p.retryLater(w.mono)
		if p.tries == 1 {
			w.notify.log(w.log, slog.LevelError, "override was renewed while it expired, and cannot be put back for now",
				slog.String("name", name), slog.String("error", err.Error()))
		}
		return
	}
	delete(w.parked, aside)
	w.reload(name, false)
}

// removeExpired removes the file name, about k, if nobody else has it open and it still has expired. While
// it is looked at nobody else can open it, where the kernel grants that.
func (w *update) removeExpired(name string, k Key) bool {
	h := w.handle
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Openat(h.fd, h.path(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		var r readResult
		if !w.system.onlyOpener(fd) || h.readFD(fd, &r) {
			return false
		}
		if e, ok := r.entry(k); ok && !e.Expired(w.now) {
			return false
		}
	} else if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.EMLINK) { // a link is removed as it is
		return false
	}
	err = unix.Unlinkat(h.fd, h.path(name), 0)
	return err == nil || errors.Is(err, unix.ENOENT)
}

// removeIfAbandoned removes the file name if a writer that was killed has left it behind.
func (h *dirHandle) removeIfAbandoned(name string) {
	var st unix.Stat_t
	if unix.Fstatat(h.fd, h.path(name), &st, unix.AT_SYMLINK_NOFOLLOW) != nil || fileType(&st) != fs.FileMode(0) {
		return
	}
	if age := time.Since(time.Unix(st.Mtim.Unix())); age.Abs() < abandonedAfter {
		return
	}
	fd, err := unix.Openat(h.fd, h.path(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return // its writer lives
	}
	_ = unix.Unlinkat(h.fd, h.path(name), 0) // it will be tried again at the next start
}
