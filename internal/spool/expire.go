//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// expire ends the overrides that have expired, and brings back those that no longer have because the clock was set
// back: those about q, and all of them if todo has attExpiry.
func (u *update) expire(q *query, todo uint32) {
	var changed []*spoolFile
	consider := func(f *spoolFile) {
		if f.entry != nil && f.entry.Expired(u.now) != f.expired {
			changed = append(changed, f)
		}
	}
	if q != nil {
		for _, k := range q.keys() {
			if s := u.pub.slot(k); (s.entry == nil || s.entry.Expires.IsZero()) && s.expired == nil {
				continue
			}
			for _, f := range u.files.of(k) {
				consider(f)
			}
			u.expireFleet(k)
		}
	}
	if todo&attExpiry != 0 {
		u.files.nextExpiry = time.Time{}
		for _, f := range u.files.byName {
			consider(f)
			if f.isInForce() && !f.entry.Expired(u.now) {
				u.files.lowerNextExpiry(f.entry.Expires)
			}
		}
		u.fleet.nextExpiry = time.Time{}
		for k := range u.fleet.byKey {
			u.expireFleet(k)
		}
		u.expireWeights()
	}
	for _, f := range changed {
		u.files.remove(f)
		if f.carriedFrom == nil { // otherwise there is no file here
			f.expired = !f.expired
			u.files.add(f)
		}
		u.resolve(f.key)
		if f.carriedFrom == nil && f.expired && !f.removeFailed {
			u.setAside(f)
		}
	}
}

// How an expired file is removed without losing a renewal that is written at the same time
//
// The original tools remove it by name, and with it a renewal that has taken the name since they read it. The Index
// sets it aside instead:
//
//  1. It renames the file to a name that no service can have.
//  2. It reads the renamed file. If that is in force, it was a renewal: the Index restores it, unless a newer file has
//     the name by then.
//  3. It waits for asideGrace. A writer may have opened the old file before the rename, and fill it only now, as the
//     original tools do. It then writes to the new name, inotify reports that, and the Index restores the file.
//  4. It removes the file if that still has expired and, as far as the kernel can tell, no process has it open.
//
// All of it happens under the lock that lookups with news wait for. The next listing finds what a crash has left aside.

// asideFile is a file that was set aside.
type asideFile struct {
	since   time.Time
	checkAt time.Time // when to remove or restore it
	tries   int       // that failed
}

// asideFiles are the files that were set aside, by their new name.
type asideFiles map[string]*asideFile

// retryLater doubles the time to the next check, up to a minute or so.
func (f *asideFile) retryLater(now time.Time) {
	f.tries++
	f.checkAt = now.Add(time.Second << min(f.tries, 6))
}

// setAside moves the expired file f aside. If the directory does not allow that, f stays and counts as expired.
func (u *update) setAside(f *spoolFile) {
	if u.dir.lost || !u.openDir() {
		return
	}
	if !u.handle.hasDescriptor() { // there is none to read the file after the rename
		u.files.postpone(f)
		return
	}
	aside := newAsideName(f.name)
	err := unix.Renameat(u.handle.fd, u.handle.path(f.name), u.handle.fd, u.handle.path(aside))
	switch {
	case err == nil:
		u.trackAside(aside)
		u.checkAside(aside)
		u.load(f.name, false)
	case errors.Is(err, unix.ENOENT): // another process has moved it, and an event will tell
	case !f.removeFailed:
		f.removeFailed = true
		u.pub.notify.log(slog.LevelWarn, "override has expired and its file cannot be removed",
			slog.String("name", f.name), slog.String("error", err.Error()))
	}
}

// trackAside remembers that the file name was set aside.
func (u *update) trackAside(name string) {
	if u.aside[name] == nil && len(u.aside) < u.files.limit { // no crash leaves more
		u.aside[name] = &asideFile{since: u.mono, checkAt: u.mono}
	}
}

// checkAsideFiles checks the files aside that are due.
func (u *update) checkAsideFiles() {
	for name, f := range u.aside {
		if !f.checkAt.After(u.mono) && !u.dir.lost && u.openDir() {
			u.checkAside(name)
		}
	}
}

// checkAside removes the file aside, restores it, or schedules the next check.
func (u *update) checkAside(aside string) {
	f := u.aside[aside]
	if f == nil {
		return
	}
	name, _ := originalName(aside)
	k, err := ParseKey(name)
	if err != nil { // the Index has not made this file
		delete(u.aside, aside)
		return
	}
	r := u.handle.read(aside, typeUnknown)
	e, ok := r.entry(k)
	switch {
	case r.status == notFound || r.status == notRegular:
		delete(u.aside, aside)
	case r.status == readFailed:
		f.retryLater(u.mono)
	case !ok || !e.Expired(u.now):
		u.restoreAside(aside, name)
	case u.mono.Sub(f.since) < asideGrace:
		f.checkAt = f.since.Add(asideGrace)
	case u.removeExpired(aside, k):
		delete(u.aside, aside)
	default:
		f.retryLater(u.mono)
	}
}

// restoreAside renames aside back to name, unless there is a newer file of that name.
func (u *update) restoreAside(aside, name string) {
	err := u.handle.renameNoReplace(aside, name)
	if errors.Is(err, unix.EEXIST) {
		err = unix.Unlinkat(u.handle.fd, u.handle.path(aside), 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		u.index.stats.Errors++
		f := u.aside[aside]
		f.retryLater(u.mono)
		if f.tries == 1 {
			u.pub.notify.log(slog.LevelError, "override was renewed while it expired, and cannot be put back for now",
				slog.String("name", name), slog.String("error", err.Error()))
		}
		return
	}
	delete(u.aside, aside)
	u.load(name, false)
}

// removeExpired removes the file name, about k, if it still has expired and no other process has it open. Where the
// kernel supports that, none can open it meanwhile.
func (u *update) removeExpired(name string, k Key) bool {
	h := u.handle
	fd, err := h.openFile(name)
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		var r readResult
		if !u.index.system.isOnlyOpener(fd) || h.readFD(fd, &r) {
			return false
		}
		if e, ok := r.entry(k); ok && !e.Expired(u.now) {
			return false
		}
	} else if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.EMLINK) { // a link is removed as it is
		return false
	}
	err = unix.Unlinkat(h.fd, h.path(name), 0)
	return err == nil || errors.Is(err, unix.ENOENT)
}

// removeIfAbandoned removes the temporary file or link name if its writer was killed.
func (h *dirHandle) removeIfAbandoned(name string) {
	var st unix.Stat_t
	if unix.Fstatat(h.fd, h.path(name), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	if age := time.Since(time.Unix(st.Mtim.Unix())); age.Abs() < abandonedAfter {
		return
	}
	if fileType(&st) == fs.ModeSymlink && strings.HasPrefix(name, tempPrefix) { // of a weight; its writer needs microseconds
		_ = unix.Unlinkat(h.fd, h.path(name), 0) // the next start tries again
		return
	}
	if fileType(&st) != fs.FileMode(0) {
		return
	}
	fd, err := h.openFile(name)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return // its writer lives
	}
	_ = unix.Unlinkat(h.fd, h.path(name), 0) // the next start tries again
}
