//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// abandonedAfter is the age at which the daemon removes a temporary file of a writer that was killed. A live writer
// needs milliseconds, and holds a lock meanwhile.
const abandonedAfter = time.Minute

// Write puts e into force. It is atomic: a reader sees the old override or the new one, and so does the next start
// after a crash. A zero e.Created becomes that of the override in force for the key if it has the same reason, and
// otherwise the time now. See ErrNotDurable for the error.
func (d *Dir) Write(e Entry) error {
	err := func() error {
		h, err := openHandle(d.root)
		if err != nil {
			return err
		}
		defer h.close()
		if err := d.write(h, e); err != nil {
			return err
		}
		return h.sync()
	}()
	return writeError(e.Key, err)
}

func writeError(k Key, err error) error {
	if err != nil {
		return fmt.Errorf("write override of %s: %w", k.Name(), err)
	}
	return nil
}

// write is Write in an open directory, which the caller syncs.
func (d *Dir) write(h *dirHandle, e Entry) error {
	t, err := d.prepare(h, e)
	if err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		t.discard()
		return err
	}
	return t.putInForce()
}

// preparedWrite is the content of an override in a temporary file. The caller syncs the file, and then calls either
// putInForce or discard.
type preparedWrite struct {
	handle *dirHandle
	key    Key
	temp   string // name of the file
	file   *os.File
}

// prepare writes the content of e to a temporary file.
func (d *Dir) prepare(h *dirHandle, e Entry) (*preparedWrite, error) {
	e.Key = e.Key.canonical()
	if err := e.Key.Check(); err != nil {
		return nil, err
	}
	if e.State == Ready || e.State > Maint {
		return nil, fmt.Errorf("state %d is no override", e.State)
	}
	if e.Created.IsZero() {
		e.Created = d.now()
		old, err := d.lookup(h, e.Key, !e.Key.hasOneName())
		if err == nil && old.Reason == truncateReason(e.Reason) && (old.State == ForceUp) == (e.State == ForceUp) && !old.Created.IsZero() {
			e.Created = old.Created
		}
	}
	t, err := h.createTemp()
	if err != nil {
		return nil, err
	}
	t.key = e.Key
	// The lock tells the daemon that this writer lives. On a file system without locks only the age counts.
	_ = unix.Flock(int(t.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	err = t.file.Chmod(0o644) // whatever the umask
	if err == nil {
		_, err = t.file.Write(e.Marshal())
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

// createTemp creates a temporary file, whose name no override has.
func (h *dirHandle) createTemp() (*preparedWrite, error) {
	for {
		temp := fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64())
		fd, err := retryInterrupted(func() (int, error) {
			return unix.Openat(h.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		switch path := filepath.Join(h.root, temp); {
		case err == nil:
			return &preparedWrite{handle: h, temp: temp, file: os.NewFile(uintptr(fd), path)}, nil
		case !errors.Is(err, unix.EEXIST):
			return nil, &fs.PathError{Op: "create", Path: path, Err: err}
		}
	}
}

// discard removes the temporary file. It ignores errors, because the error that led here is more important.
func (t *preparedWrite) discard() {
	_ = t.file.Close()
	_ = unix.Unlinkat(t.handle.fd, t.temp, 0)
}

// putInForce gives the file the name of its override, and removes the other files of the key. A reader sees the old
// override or the new one. The caller syncs the directory.
func (t *preparedWrite) putInForce() error {
	h, name := t.handle, t.key.Name()
	if err := unix.Renameat(h.fd, t.temp, h.fd, name); err != nil {
		t.discard()
		return &os.LinkError{Op: "rename", Old: t.temp, New: filepath.Join(h.root, name), Err: err}
	}
	if err := t.file.Close(); err != nil { // the file has its name and cannot be undone
		return fmt.Errorf("%w: %w", ErrNotDurable, err)
	}
	if !t.key.hasOneName() {
		// A stronger override of another file name would decide.
		if _, err := h.removeAll(t.key, name); err != nil {
			return fmt.Errorf("the new override is there, and so is an older one: %w", err)
		}
	}
	return nil
}

// Remove ends the override of k, under every file name that means k. It returns nil if there was none. See
// ErrNotDurable for the error.
func (d *Dir) Remove(k Key) error {
	err := func() error {
		h, err := openHandle(d.root)
		if err != nil {
			return err
		}
		defer h.close()
		removed, err := h.remove(k)
		if err != nil || !removed {
			return err
		}
		return h.sync()
	}()
	return removeError(k, err)
}

func removeError(k Key, err error) error {
	if err != nil {
		return fmt.Errorf("remove override of %s: %w", k.canonical().Name(), err)
	}
	return nil
}

// remove ends the override of k and reports whether there was one. The caller syncs the directory.
func (h *dirHandle) remove(k Key) (removed bool, err error) {
	k = k.canonical()
	if err := k.Check(); err != nil && !errors.Is(err, ErrAllInstance) {
		return false, err
	}
	removed, err = h.removeAll(k, "")
	if err == nil && !removed {
		h.announceEnd(k.Name())
	}
	return removed, err
}

// announceEnd tells the daemon that the override or weight of the file name ends although there was no file to remove:
// the daemon may carry it from a file system that is no longer mounted. It creates and removes a file, because only the
// events count. It ignores errors: a caller that may not write here has ended nothing.
func (h *dirHandle) announceEnd(name string) {
	name = liftPrefix + name
	fd, err := unix.Openat(h.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	_ = unix.Close(fd)
	_ = unix.Unlinkat(h.fd, name, 0)
}

// unlink removes the file name. It renames the file first, so that the daemon can tell a lifted override from the plain
// deletions of an `rm -r` that removes the whole directory.
func (h *dirHandle) unlink(name string) error {
	if isDir(h, name) { // every reader ignores it
		return nil
	}
	aside := fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64())
	if err := unix.Renameat(h.fd, h.path(name), h.fd, h.path(aside)); err != nil {
		return unix.Unlinkat(h.fd, h.path(name), 0) // on a full disk there may be no room for the longer name
	}
	// It is no override any more; the next start of the daemon removes what is left.
	_ = unix.Unlinkat(h.fd, h.path(aside), 0)
	return nil
}

func isDir(h *dirHandle, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// removeAll removes the files about k, except for the file keep. It also removes those that the daemon has set aside,
// because the daemon restores them if they are in force.
func (h *dirHandle) removeAll(k Key, keep string) (removed bool, err error) {
	unlink := func(name string) {
		switch unlinkErr := h.unlink(name); {
		case unlinkErr == nil:
			removed = true
		case errors.Is(unlinkErr, unix.ENOENT):
		default:
			err = errors.Join(err, &fs.PathError{Op: "remove", Path: filepath.Join(h.root, name), Err: unlinkErr})
		}
	}
	if name := k.Name(); name != keep {
		unlink(name)
	}
	listErr := h.eachOtherName(k, func(name string, _ fs.FileMode) {
		if name != keep {
			unlink(name)
		}
	})
	return removed, errors.Join(err, listErr)
}
