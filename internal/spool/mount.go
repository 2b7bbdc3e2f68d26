//go:build unix

package spool

import "log/slog"

// Which directory is the spool when the path leads to another one than before?
//
//   - A directory on the same mount: an operator has removed, renamed or linked it to put another spool in place. Only
//     the files in it count.
//   - A directory on another mount: a file system was mounted or unmounted, which says nothing about any service. The
//     files in it count, and no override ends. The overrides in force are carried over until a file of their name
//     comes or goes, a command lifts them, they expire, or the directory they come from is back.
//
// So neither a mount nor an unmount ever brings a service up. The directory counts as lost while overrides are carried,
// and while the path leads to the directory below a mount that is gone.

// dirID identifies a directory. It also tells it from a later one that has reused its inode number.
type dirID struct {
	fileID
	birth     int64  // unix nanoseconds; 0 when the file system does not have it
	mount     uint64 // the kernel's number of the mount
	mountRoot bool   // it is the root of its mount
}

// same reports whether a and b are the same directory, on whatever mount.
func (a dirID) same(b dirID) bool {
	return a.fileID == b.fileID && (a.birth == b.birth || a.birth == 0 || b.birth == 0)
}

// sameOnMount reports whether a and b are the same directory on the same mount.
func (a dirID) sameOnMount(b dirID) bool { return a.same(b) && a.mount == b.mount }

// sameMount reports whether a and b are on the same mount. Linux before 6.8 reuses the number of a mount that is gone;
// but two directories cannot both be the root of one mount.
func (a dirID) sameMount(b dirID) bool {
	return a.mount == b.mount && a.dev == b.dev && !a.mountRoot && !b.mountRoot
}

// mount is a line of the kernel's table of mounts.
type mount struct{ id, parent, device, root, point string }

// setDir makes id the directory that is watched.
func (u *update) setDir(id dirID) {
	d, old := u.dir, u.dir.id
	remounted := old != (dirID{}) && !id.same(old) && (d.unmounted || !id.sameMount(old))
	if remounted || d.mount == (mount{}) || id.mount != old.mount {
		m, _ := mountOf(d.root)
		if remounted {
			// At the old mount point there is nothing now, or id: below the old mount, or mounted in its place.
			d.underMount = d.mount != (mount{}) && !isMounted(d.mount) && m.point != d.mount.point
			u.files.carry(old)
			u.carryWeights(old)
		} else if id.same(old) {
			d.underMount = false
		}
		d.mount = m
	}
	u.endCarryingWeights(id)
	if u.files.endCarrying(id) {
		d.underMount = false // id was only mounted over
	}
	d.id, d.unmounted, d.lostReason = id, false, nil
}

// carry marks the overrides in force as carried over from the directory from.
func (t *fileTable) carry(from dirID) {
	for _, f := range t.byName {
		if f.carriedFrom == nil && f.isInForce() {
			f.carriedFrom = &from
			t.carried++
		}
	}
}

// endCarrying ends the carrying of overrides from the directory id, which can be read again. It reports whether there
// were any.
func (t *fileTable) endCarrying(id dirID) (ended bool) {
	if t.carried == 0 {
		return false
	}
	for _, f := range t.byName {
		if f.carriedFrom != nil && f.carriedFrom.same(id) {
			f.carriedFrom = nil
			t.carried--
			ended = true
		}
	}
	return ended
}

// liftCarried ends the carried overrides, or the carried weight, of the key that the file name has: a command has announced
// the end.
func (u *update) liftCarried(name string) {
	if k, ok := weightKey(name); ok {
		if w := u.pub.weights()[k]; w.isInForce() && w.carriedFrom != nil {
			u.endWeight(w)
		}
		return
	}
	k, err := ParseKey(name)
	if err != nil {
		return
	}
	for _, f := range u.files.of(k) {
		if f.carriedFrom != nil {
			u.files.remove(f)
		}
	}
	u.resolve(k)
}

// isDisplaced reports whether overrides are in force that are not in the directory to which the path leads.
func (x *Index) isDisplaced() bool { return x.dir.underMount || x.files.carried > 0 }

// logDirectory logs that a mount has replaced the directory, and that it is back.
func (u *update) logDirectory() {
	d := u.dir
	if d.lost {
		return // markLost has logged that
	}
	displaced := u.index.isDisplaced()
	switch {
	case displaced && !d.loggedDisplaced:
		msg := "another file system is mounted where the spool directory was: the overrides known before stay in force, and those in it count too; mount the old one again, or lift them with haup"
		if d.underMount {
			msg = "spool directory is unmounted: the overrides known before stay in force, and those in the directory below count too; mount it again, or lift them with haup and restart hacheck"
		}
		u.pub.notify.log(slog.LevelError, msg, slog.String("directory", d.root), slog.Int("overrides", u.files.carried))
	case !displaced && (d.loggedDisplaced || d.loggedLost):
		u.pub.notify.log(slog.LevelInfo, "spool directory is back", slog.String("directory", d.root))
	}
	if displaced != d.loggedDisplaced {
		u.index.wakeBackground() // which looks for the directory while it is displaced
	}
	d.loggedDisplaced, d.loggedLost = displaced, false
}
