//go:build unix

package spool

import "time"

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

	deleted       []*spoolFile // files deleted in a row just now; they are restored if their directory is removed too
	deletedAt     time.Time    // the last of them
	deletionCheck time.Time    // when to check whether the directory was removed too; zero: no check
}

// recordDeletion remembers a file that was deleted at now, in case its directory is removed next.
func (d *watchedDir) recordDeletion(f *spoolFile, now time.Time) {
	if now.Sub(d.deletedAt) > deletionGap {
		d.deleted = nil
	}
	d.deleted, d.deletedAt = append(d.deleted, f), now
	if d.deletionCheck.IsZero() {
		d.deletionCheck = now.Add(deletionCheckDelay)
	}
}

// deletionCheckDue reports whether a deletion check is due at now, and cancels it.
func (d *watchedDir) deletionCheckDue(now time.Time) bool {
	if d.deletionCheck.IsZero() || d.deletionCheck.After(now) {
		return false
	}
	d.deletionCheck = time.Time{}
	return true
}

// isCurrent reports whether the path leads to the directory that was opened last.
func (d *watchedDir) isCurrent() bool {
	id, err := statRoot(d.root)
	return err == nil && id.sameOnMount(d.id)
}
