//go:build unix

package spool

import (
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// watchedDir is the directory that an Index reads: which one it is, whether the path still leads to it, and what its
// file system can do. Index.mu guards it.
type watchedDir struct {
	root       string // absolute path
	id         dirID  // of the directory that was opened last; zero: none yet
	generation uint64 // counts the directories: a new one can have the number of an old one

	lost       bool // the path leads to no readable directory; the last known overrides stand
	lostReason error
	loggedLost bool

	mount           mount // that id is on; zero when not known
	unmounted       bool  // the kernel has reported that the file system of id was unmounted
	underMount      bool  // the spool's mount is gone, and id is the directory that it had covered
	loggedDisplaced bool

	remoteFS      string   // name of the file system if other machines write to it without an event here; "" otherwise
	stamp         dirStamp // without inotify: at the last listing
	stampReliable bool     // every change after that listing shows in the stamp

	deleted       deletedFiles // in a row just now; they are restored if their directory is removed too
	deletedAt     time.Time    // the last of them
	deletionCheck time.Time    // when to check whether the directory was removed too; zero: no check
}

// deletedFiles are overrides and weights that have ended because their files were deleted.
type deletedFiles struct {
	overrides []*spoolFile
	weights   []*heldWeight
}

// isCurrent reports whether the path leads to the directory that was opened last.
func (d *watchedDir) isCurrent() bool {
	id, err := statRoot(d.root)
	return err == nil && id.sameOnMount(d.id)
}

// openDir opens the directory unless it is open, and watches it if it is another one than before. It returns false and
// marks the directory as lost when that fails.
func (u *update) openDir() bool {
	if u.handle != nil {
		return true
	}
	h, err := openHandle(u.dir.root)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		u.index.stats.Errors++
		h, err = openByPath(u.dir.root)
	}
	if err != nil {
		return u.failDir(err)
	}
	u.handle = h
	if watch := u.index.watch; !h.id.sameOnMount(u.dir.id) || u.dir.lost || watch != nil && watch.wd < 0 {
		return u.rewatch()
	}
	return true
}

func (u *update) closeDir() {
	if u.handle != nil {
		u.handle.close()
		u.handle = nil
	}
}

// failDir closes the directory and marks it as lost. It returns false.
func (u *update) failDir(err error) bool {
	u.err = err
	u.closeDir()
	u.markLost(err)
	return false
}

// rewatch makes the directory to which the path leads now the one that is watched.
func (u *update) rewatch() bool {
	for range 8 {
		if watch := u.index.watch; watch != nil {
			if err := watch.add(u.dir.root); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
				u.dropWatch(err)
			} else if err != nil {
				return u.failDir(err)
			}
		}
		// The watch was added by path. It is on the open directory only if the path still leads there.
		if id, err := statRoot(u.dir.root); err == nil && id.sameOnMount(u.handle.id) {
			u.setDir(u.handle.id)
			u.detectFileSystem()
			u.dir.lost, u.index.needScan, u.dir.stampReliable = false, true, false
			u.dir.generation++
			u.pub.nextBuilder().outdateAll() // what happened in between is not known
			u.index.wakeBackground()
			return true
		}
		u.closeDir()
		h, err := openHandle(u.dir.root)
		if err != nil {
			return u.failDir(err)
		}
		u.handle = h
	}
	return u.failDir(errors.New("it is replaced again and again"))
}

// detectFileSystem finds out on what file system the directory is: a remote one may be mounted after the start.
func (u *update) detectFileSystem() {
	x, was := u.index, u.dir.remoteFS
	u.dir.remoteFS = x.system.remoteFSName(u.dir.root)
	if u.dir.remoteFS == "" {
		x.verifyTimer.Reset(x.system.verifyEvery)
		return
	}
	x.verifyTimer.Stop() // the background goroutine lists it often enough, and no request has to wait for that
	if u.dir.remoteFS != was {
		u.pub.notify.log(slog.LevelWarn, "spool directory is on a file system that others can write to unseen: their changes show within 5 s",
			slog.String("directory", u.dir.root), slog.String("file_system", u.dir.remoteFS))
	}
}

// markLost records that the directory is gone or unreadable. The last known overrides stand: no operator has lifted
// them.
func (u *update) markLost(err error) {
	d := u.dir
	d.lostReason = err
	if d.lost || u.pub.loading {
		d.lost = true
		return
	}
	d.lost, d.loggedLost = true, true
	u.index.stats.Errors++
	if errors.Is(err, unix.ENOENT) && u.mono.Sub(d.deletedAt) <= deletionWindow {
		// `rm -r` deletes the files before their directory: restore them.
		for _, f := range d.deleted.overrides {
			if u.files.byName[f.name] == nil {
				u.files.add(f)
				u.resolve(f.key)
			}
		}
		for _, w := range d.deleted.weights {
			u.setWeight(w.Key, w)
		}
	}
	d.deleted = deletedFiles{}
	u.index.publishStats()
	u.pub.notify.log(slog.LevelError, "spool directory is lost: the last known overrides stand until it is back; mount it or make it again, readable for hacheck's user",
		slog.String("directory", d.root), slog.String("error", err.Error()), slog.Int("overrides", u.files.inForce))
	u.index.wakeBackground()
}

// recordDeletion records that the override of f, or the weight w, ends because its file was deleted: its directory may be
// removed next. One of f and w is nil.
func (u *update) recordDeletion(f *spoolFile, w *heldWeight) {
	d := u.dir
	if u.mono.Sub(d.deletedAt) > deletionGap {
		d.deleted = deletedFiles{}
	}
	if f != nil {
		d.deleted.overrides = append(d.deleted.overrides, f)
	}
	if w != nil {
		d.deleted.weights = append(d.deleted.weights, w)
	}
	d.deletedAt = u.mono
	if d.deletionCheck.IsZero() {
		d.deletionCheck = u.mono.Add(deletionCheckDelay)
	}
	u.deletions = true
}

// confirmDeletions checks that the directory still exists after files were deleted from it. If it was removed with them
// confirmDeletions returns false, and the overrides stand.
func (u *update) confirmDeletions() bool {
	if !u.deletions || u.dir.lost {
		return true
	}
	u.deletions = false
	if u.dir.isCurrent() {
		return true
	}
	u.closeDir()
	u.openDir()
	return false
}

// verify checks whether the path still leads to the watched directory, and schedules what no event tells.
func (u *update) verify(todo uint32) {
	x, d := u.index, u.dir
	if u.mono.Sub(d.deletedAt) > deletionWindow {
		d.deleted = deletedFiles{}
	}
	if x.watch == nil {
		if x.openWatch(); x.watch != nil {
			x.publishStats()
			u.pub.notify.log(slog.LevelInfo, "inotify is back", slog.String("directory", d.root))
		}
	}
	u.closeDir()
	u.openDir() // which adds the directory to a new watch
	if todo&attVerify != 0 {
		x.attention.And(^attVerify)
		if d.remoteFS == "" { // the background goroutine verifies a remote one, so that no request waits for it
			x.verifyTimer.Reset(x.system.verifyEvery)
		}
	}
	roomAgain := u.files.tooMany && len(u.files.byName) < u.files.limit/10*9
	if x.watch == nil || d.remoteFS != "" || roomAgain || todo&attScan != 0 {
		x.needScan = true
	}
	for _, f := range u.aside {
		f.checkAt = u.mono
	}
}
