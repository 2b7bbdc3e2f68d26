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

// parked is a file that was moved aside.
type parked struct {
	since time.Time
	next  time.Time // when to look at it
	tries int
}

// expire ends what has expired, and brings back what no longer has, the clock having been set back: for
// the keys of t, and for all when the timer says so.
func (w *work) expire(t *query, todo uint32) {
	var turned []*file
	consider := func(f *file) {
		if f.entry != nil && f.entry.Expired(w.now) != f.over {
			turned = append(turned, f)
		}
	}
	if t != nil {
		for _, k := range t.keys() {
			if s := w.slotOf(k); (s.entry == nil || s.entry.Expires.IsZero()) && s.late == nil {
				continue
			}
			for _, f := range w.filesOf(k) {
				consider(f)
			}
		}
	}
	if todo&attExpiry != 0 {
		w.expiry = time.Time{}
		for _, f := range w.files {
			consider(f)
			if f.entry == nil || f.over || f.entry.Expired(w.now) {
				continue
			}
			if e := f.entry.Expires; !e.IsZero() && (w.expiry.IsZero() || e.Before(w.expiry)) {
				w.expiry = e
			}
		}
	}
	for _, f := range turned {
		w.drop(f)
		if f.from != nil { // there is no file here that could be removed, or be renewed
			w.resolve(f.key)
			continue
		}
		f.over = !f.over
		w.store(f)
		w.resolve(f.key)
		if f.over && !f.kept {
			w.bury(f)
		}
	}
}

// bury moves an expired file aside. If it may not be, nothing is lost: it counts no more either way.
func (w *work) bury(f *file) {
	if w.lost || !w.open() {
		return
	}
	if w.h.dir != "" { // no descriptor to look at what was moved: at the next lookup
		w.later(f)
		return
	}
	aside := parkName(f.name)
	err := unix.Renameat(w.h.fd, w.h.at(f.name), w.h.fd, w.h.at(aside))
	switch {
	case err == nil:
		w.park(aside)
		w.settle(aside)
		w.load(f.name, false)
	case errors.Is(err, unix.ENOENT): // somebody else was faster; the event says so
	case !f.kept:
		f.kept = true
		w.told.log(w.log, slog.LevelWarn, "override has expired and its file cannot be removed",
			slog.String("name", f.name), slog.String("error", err.Error()))
	}
}

// park remembers the file name as moved aside.
func (w *work) park(name string) {
	if w.parked[name] == nil && len(w.parked) < w.system.maxFiles { // so many come of no crash
		w.parked[name] = &parked{since: w.mono, next: w.mono}
	}
}

// settleParked looks at the files that were moved aside and whose time has come.
func (w *work) settleParked() {
	for name, p := range w.parked {
		if !p.next.After(w.mono) && !w.lost && w.open() {
			w.settle(name)
		}
	}
}

// settle removes the file aside, puts it back, or leaves it for later.
func (w *work) settle(aside string) {
	p := w.parked[aside]
	if p == nil {
		return
	}
	name, _ := parkedName(aside)
	k, err := ParseKey(name)
	if err != nil { // nobody of ours made it
		delete(w.parked, aside)
		return
	}
	r := w.h.read(aside, typeUnknown)
	e, ok := r.entry(k)
	if r.found == absent || r.found == noFile {
		delete(w.parked, aside)
		return
	}
	if r.found == failed { // not a word about what it says
		p.later(w.mono)
		return
	}
	if !ok || !e.Expired(w.now) {
		w.putBack(aside, name)
		return
	}
	if rest := parkGrace - w.mono.Sub(p.since); rest > 0 {
		p.next = w.mono.Add(rest)
		return
	}
	if w.unlinkExpired(aside, k) {
		delete(w.parked, aside)
		return
	}
	p.later(w.mono)
}

// later has p looked at again, after twice the time each time.
func (p *parked) later(now time.Time) {
	p.tries++
	p.next = now.Add(time.Second << min(p.tries, 6))
}

// putBack gives aside its name again, unless something newer has it.
func (w *work) putBack(aside, name string) {
	err := w.h.renameNew(aside, name)
	if errors.Is(err, unix.EEXIST) {
		err = unix.Unlinkat(w.h.fd, w.h.at(aside), 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		w.stats.Errors++
		p := w.parked[aside]
		p.later(w.mono)
		if p.tries == 1 {
			w.told.log(w.log, slog.LevelError, "override was renewed while it expired, and cannot be put back for now",
				slog.String("name", name), slog.String("error", err.Error()))
		}
		return
	}
	delete(w.parked, aside)
	w.load(name, false)
}

// unlinkExpired removes the file name, about k, if nobody else has it open and it still has expired. While
// it is looked at nobody else can open it, where the kernel grants that.
func (w *work) unlinkExpired(name string, k Key) bool {
	h := w.h
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Openat(h.fd, h.at(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		var r reading
		if !w.system.alone(fd) || h.readFD(fd, &r) {
			return false
		}
		if e, ok := r.entry(k); ok && !e.Expired(w.now) {
			return false
		}
	} else if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.EMLINK) { // a link is removed as it is
		return false
	}
	err = unix.Unlinkat(h.fd, h.at(name), 0)
	return err == nil || errors.Is(err, unix.ENOENT)
}

// sweep removes the file name if a writer that was killed has left it behind.
func (h *handle) sweep(name string) {
	var st unix.Stat_t
	if unix.Fstatat(h.fd, h.at(name), &st, unix.AT_SYMLINK_NOFOLLOW) != nil || fileType(&st) != fs.FileMode(0) {
		return
	}
	if age := time.Since(time.Unix(st.Mtim.Unix())); age.Abs() < staleAfter {
		return
	}
	fd, err := unix.Openat(h.fd, h.at(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return // its writer lives
	}
	_ = unix.Unlinkat(h.fd, h.at(name), 0) // it will be tried again at the next start
}
