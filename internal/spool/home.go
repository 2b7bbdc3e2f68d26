//go:build unix

package spool

import (
	"log/slog"
	"path/filepath"
)

// Which directory is the spool, when the path leads to another one than before?
//
//   - On the same mount somebody has removed, renamed or linked it: an operator has put another spool in place,
//     and what is in there counts.
//   - On another mount a file system was mounted or unmounted, and that is no word about any service. What is
//     in there counts, and no override ends by it: those in force are carried on, until a file of their name
//     comes or goes, a command lifts them, they expire, or the directory they come from is back.
//
// So neither a mount nor the lack of one ever brings a service up. While overrides are carried, and while the
// path leads to what lies below a mount that is gone, the directory counts as lost.

// dirID tells the directory from every other, also from one that has its number because it is gone.
type dirID struct {
	fileID
	birth     int64  // unix nanoseconds; 0 when the file system does not say
	mount     uint64 // the kernel's number of the mount
	mountRoot bool   // it is the root of its mount
}

// same reports whether a and b are the same directory, on whatever mount.
func (a dirID) same(b dirID) bool {
	return a.fileID == b.fileID && (a.birth == b.birth || a.birth == 0 || b.birth == 0)
}

// sameOnMount reports whether a and b are the same directory on the same mount.
func (a dirID) sameOnMount(b dirID) bool { return a.same(b) && a.mount == b.mount }

// sameMount reports whether a and b are on the same mount. Before Linux 6.8 the number of one that is gone is
// given away again; two directories cannot both be the root of one mount.
func (a dirID) sameMount(b dirID) bool {
	return a.mount == b.mount && a.dev == b.dev && !a.mountRoot && !b.mountRoot
}

// mount is a line of the kernel's table of mounts.
type mount struct{ id, parent, device, root, point string }

// setDir makes id the directory that is watched.
func (w *update) setDir(id dirID) {
	old := w.id
	remounted := old != (dirID{}) && !id.same(old) && (w.unmounted || !id.sameMount(old))
	if remounted || w.mount == (mount{}) || id.mount != old.mount {
		m, _ := mountOf(w.root)
		if remounted {
			// Where it was there is nothing now, or this one: below the old mount, or in its place.
			w.underMount = w.mount != (mount{}) && !isMounted(w.mount) && m.point != w.mount.point
			w.carry(old)
		} else if id.same(old) {
			w.underMount = false
		}
		w.mount = m
	}
	w.endCarrying(id)
	w.id, w.unmounted, w.lostReason = id, false, nil
}

// carry keeps the overrides in force, which come from the directory old.
func (w *update) carry(old dirID) {
	for _, f := range w.byName {
		if f.carriedFrom == nil && f.entry != nil && !f.expired {
			f.carriedFrom = &old
			w.carried++
		}
	}
}

// endCarrying ends the carrying of what comes from id: it is there to be read again.
func (w *update) endCarrying(id dirID) {
	if w.carried == 0 {
		return
	}
	for _, f := range w.byName {
		if f.carriedFrom != nil && f.carriedFrom.same(id) {
			f.carriedFrom = nil
			w.carried--
			w.underMount = false // it was only mounted over
		}
	}
}

// liftCarried ends what is carried of the file name: a command has said so.
func (w *update) liftCarried(name string) {
	k, err := ParseKey(name)
	if err != nil {
		return
	}
	for _, f := range w.filesOf(k) {
		if f.carriedFrom != nil {
			w.drop(f)
		}
	}
	w.resolve(k)
}

// displaced reports whether the path leads to a directory that is not the spool, or not all of it.
func (x *Index) displaced() bool { return x.underMount || x.carried > 0 }

// logDirectory logs that the directory has become another one by a mount, and that all is in order again.
func (w *update) logDirectory() {
	if w.lost {
		return // which is in the log
	}
	astray := w.displaced()
	switch {
	case astray && !w.loggedDisplaced:
		msg := "another file system is mounted where the spool directory was: the overrides known before stand besides those in it; mount the old one again, or lift them with haup"
		if w.underMount {
			msg = "spool directory is unmounted: the overrides known before stand besides those in the directory below; mount it again, or lift them with haup and restart hacheck"
		}
		w.notify.log(w.log, slog.LevelError, msg, slog.String("directory", w.root), slog.Int("overrides", w.carried))
	case !astray && (w.loggedDisplaced || w.loggedLost):
		w.notify.log(w.log, slog.LevelInfo, "spool directory is back", slog.String("directory", w.root))
	}
	if astray != w.loggedDisplaced {
		w.wakeFollower() // while it is astray it is looked for
	}
	w.loggedDisplaced, w.loggedLost = astray, false
}

// DirectoryStatus is the directory that an Index reads.
type DirectoryStatus struct {
	Directory string `json:"directory"` // its absolute path
	Device    uint64 `json:"device"`    // of the directory that was read last
	Inode     uint64 `json:"inode"`
	Read      bool   `json:"read"`            // false: it is gone or cannot be read, and the last known overrides stand
	Lost      bool   `json:"lost"`            // as Stats.Lost: overrides stand that are not in it
	Error     string `json:"error,omitempty"` // why it is not read
}

// DirectoryStatus returns the directory that x reads now. It looks at the disk, unless somebody else does and waits.
func (x *Index) DirectoryStatus() DirectoryStatus {
	if !x.mu.TryLock() {
		return *x.statusView.Load()
	}
	defer x.mu.Unlock()
	var todo uint32
	if id, err := statRoot(x.root); err != nil || x.lost || !id.sameOnMount(x.id) {
		todo = attVerify
	}
	x.update(nil, todo)
	return *x.statusView.Load()
}

// publishStatus publishes the directory for those that do not wait.
func (x *Index) publishStatus() {
	h := DirectoryStatus{Directory: x.root, Device: x.id.dev, Inode: x.id.ino, Read: !x.lost, Lost: x.lost || x.displaced()}
	if x.lost && x.lostReason != nil {
		h.Error = x.lostReason.Error()
	}
	if h != *x.statusView.Load() {
		x.statusView.Store(&h)
	}
}

// DirectoryID returns the device and the inode number of the directory root, as Home has them.
func DirectoryID(root string) (device, inode uint64, err error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return 0, 0, err
	}
	id, err := statRoot(path)
	if err != nil {
		return 0, 0, err
	}
	return id.dev, id.ino, nil
}
