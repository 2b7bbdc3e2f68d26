//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotDurable is wrapped by the error of Write and Remove when the change is done and every reader
// sees it, but the directory could not be synced: the change may not survive a power cut. With every
// other error the old state stands; where a key has files of several names, what stands is in the error.
var ErrNotDurable = errors.New("done, but it may not survive a power cut")

// Names that no service can have, for files that are not overrides.
const (
	ownPrefix  = "#hacheck-"
	tempPrefix  = ownPrefix + "new." // being written, not yet an override
	liftPrefix  = ownPrefix + "end." // made and removed at once: the override of the file name that follows is over
	asidePrefix = ownPrefix + "old." // moved aside as expired: parkPrefix, 16 hex digits, "#", the file's name
)

// abandonedAfter is the age at which a file that a killed writer left behind may be removed. A living writer
// needs milliseconds, and is known by its lock besides.
const abandonedAfter = time.Minute

// newAsideName returns a name under which the file name is moved aside.
func newAsideName(name string) string {
	return fmt.Sprintf("%s%016x#%s", asidePrefix, rand.Uint64(), name)
}

// originalName returns the name of the file that was moved aside to name.
func originalName(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, asidePrefix)
	if !ok || len(rest) < 18 || rest[16] != '#' {
		return "", false
	}
	return rest[17:], true
}

// Dir is a spool directory as the commands use it: every call looks at the disk. It holds no descriptor,
// so that it follows the path when the directory is replaced. Safe for concurrent use, also by other
// processes.
type Dir struct {
	root string
	created bool
	now  func() time.Time
}

// OpenDir returns the spool directory root. It is created with mode 0750 when missing; its parent must
// exist. The error says so when root is no directory or may not be read.
func OpenDir(root string) (*Dir, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open spool directory: %w", err)
	}
	err = os.Mkdir(path, 0o750)
	made := err == nil
	switch {
	case made:
		// Whatever the umask; and on disk, or a power cut would take the first override with it.
		if err := errors.Join(os.Chmod(path, 0o750), syncPath(filepath.Dir(path))); err != nil {
			return nil, fmt.Errorf("create spool directory: %w", err)
		}
	case !errors.Is(err, fs.ErrExist):
		if _, statErr := os.Stat(path); statErr != nil { // there already, on a read-only file system
			return nil, fmt.Errorf("create spool directory: %w", err)
		}
	}
	d := &Dir{root: path, created: made, now: time.Now}
	h, err := openHandle(path)
	if err != nil {
		return nil, fmt.Errorf("open spool directory: %w", err)
	}
	defer h.close()
	var st unix.Stat_t
	if err := unix.Fstatat(h.fd, ".", &st, 0); err != nil { // listing is allowed, looking into files is not
		return nil, fmt.Errorf("open spool directory: %w", &fs.PathError{Op: "search", Path: path, Err: err})
	}
	return d, nil
}

// Root returns the absolute path of the directory.
func (d *Dir) Root() string { return d.root }

// Created reports whether OpenDir has created the directory.
func (d *Dir) Created() bool { return d.created }

// Chown makes uid and gid the owner of the directory that OpenDir has created. It follows no link: the parent
// may belong to somebody else.
func (d *Dir) Chown(uid, gid int) error {
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Open(d.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
		err = unix.Fchown(fd, uid, gid)
	}
	if err != nil {
		return &fs.PathError{Op: "chown", Path: d.root, Err: err}
	}
	return nil
}

// Close ends the use of d. It never fails; a Dir holds nothing open between two calls.
func (d *Dir) Close() error { return nil }

// Write puts e into force. It is atomic: a reader sees the old override or the new one, and a crash at
// any instant leaves one of the two. Where e.Created is zero it becomes the time of an override that is
// in force for the same key with the same reason, and now otherwise. See ErrNotDurable for the error.
func (d *Dir) Write(e Entry) error {
	if err := d.write(e); err != nil {
		return fmt.Errorf("write override of %s: %w", e.Key.Name(), err)
	}
	return nil
}

func (d *Dir) write(e Entry) error {
	e.Key = e.Key.canonical()
	if err := e.Key.Check(); err != nil {
		return err
	}
	if e.State == Ready || e.State > Maint {
		return fmt.Errorf("state %d is no override", e.State)
	}
	h, err := openHandle(d.root)
	if err != nil {
		return err
	}
	defer h.close()
	if e.Created.IsZero() {
		e.Created = d.now()
		old, err := d.lookup(h, e.Key, !e.Key.oneName())
		if err == nil && old.Reason == truncateReason(e.Reason) && (old.State == ForceUp) == (e.State == ForceUp) && !old.Created.IsZero() {
			e.Created = old.Created
		}
	}
	name := e.Key.Name()
	if err := h.replace(name, e.Marshal(), true); err != nil {
		return err
	}
	if !e.Key.oneName() {
		// What else is about this key would speak louder if it were stronger.
		if _, err := h.removeAll(e.Key, name); err != nil {
			return fmt.Errorf("the new override is there, and so is an older one: %w", err)
		}
	}
	return h.sync()
}

// replace makes content the file name, whole or not at all; durable says that this shall hold across a
// power cut as well.
func (h *dirHandle) replace(name string, content []byte, durable bool) error {
	temp, fd := "", -1
	for {
		temp = fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64())
		var err error
		fd, err = retryInterrupted(func() (int, error) {
			return unix.Openat(h.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EEXIST) {
			return &fs.PathError{Op: "create", Path: filepath.Join(h.root, temp), Err: err}
		}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(h.root, temp))
	err := func() error {
		// Held until the file has its name: it tells the daemon that this writer lives. A file system
		// without locks leaves that to the age of the file.
		_ = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err := f.Chmod(0o644); err != nil { // whatever the umask: everybody may know
			return err
		}
		if _, err := f.Write(content); err != nil {
			return err
		}
		if durable {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if err := unix.Renameat(h.fd, temp, h.fd, name); err != nil {
			return &os.LinkError{Op: "rename", Old: temp, New: filepath.Join(h.root, name), Err: err}
		}
		return nil
	}()
	closeErr := f.Close()
	if err != nil {
		_ = unix.Unlinkat(h.fd, temp, 0) // the error to tell is the first one
		return err
	}
	if closeErr != nil { // after a good sync, and under its name: nothing that could still be undone
		return fmt.Errorf("%w: %w", ErrNotDurable, closeErr)
	}
	return nil
}

// sync makes the names of the directory survive a power cut.
func (h *dirHandle) sync() error {
	_, err := retryInterrupted(func() (int, error) { return 0, unix.Fsync(h.fd) })
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) { // a file system that has no such thing
		return fmt.Errorf("%w: %w", ErrNotDurable, &fs.PathError{Op: "sync", Path: h.root, Err: err})
	}
	return nil
}

// syncPath syncs the directory path; one that may not be read, as the parent of the spool may be, is left
// to the kernel.
func syncPath(path string) error {
	h, err := openHandle(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.close()
	return h.sync()
}

// Remove ends the override of k, under every name that means k. It is nil when there was none. See
// ErrNotDurable for the error.
func (d *Dir) Remove(k Key) error {
	k = k.canonical()
	if err := k.Check(); err != nil && !errors.Is(err, ErrAllInstance) {
		return fmt.Errorf("remove override: %w", err)
	}
	err := func() error {
		h, err := openHandle(d.root)
		if err != nil {
			return err
		}
		defer h.close()
		removed, err := h.removeAll(k, "")
		if err != nil {
			return err
		}
		if !removed {
			h.announceLift(k)
			return nil
		}
		return h.sync()
	}()
	if err != nil {
		return fmt.Errorf("remove override of %s: %w", k.Name(), err)
	}
	return nil
}

// announceLift tells the daemon that nothing is said about k any more, though there was no file to remove: it
// may know of one from a file system that is no longer mounted. The event is all that counts, so that an error
// says nothing: who may not write here had nothing to remove.
func (h *dirHandle) announceLift(k Key) {
	name := liftPrefix + k.Name()
	fd, err := unix.Openat(h.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	_ = unix.Close(fd)
	_ = unix.Unlinkat(h.fd, name, 0)
}

// unlink removes the file name. It is renamed first, so that the daemon can tell an operator's word from the
// plain deletions of an `rm -r` that takes the whole directory.
func (h *dirHandle) unlink(name string) error {
	if isDir(h, name) { // ignored by every reader, and not ours to remove
		return nil
	}
	aside := fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64())
	if err := unix.Renameat(h.fd, h.path(name), h.fd, h.path(aside)); err != nil {
		return unix.Unlinkat(h.fd, h.path(name), 0) // a longer name may need room on a full disk
	}
	// It no longer counts; what stays of it is swept up by the daemon.
	_ = unix.Unlinkat(h.fd, h.path(aside), 0)
	return nil
}

// removeAll removes the files that are about k, except the one called keep, and what the daemon has moved
// aside of them: it would be put back if it turned out to be in force.
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
	listErr := h.eachFile(func(name string, _ fs.FileMode) {
		if name != keep && h.about(name) == k && name != k.Name() {
			unlink(name)
		}
	})
	return removed, errors.Join(err, listErr)
}

func isDir(h *dirHandle, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// about returns the key that the file name is about, also when it is moved aside; the zero Key for none.
func (h *dirHandle) about(name string) Key {
	if parked, ok := originalName(name); ok {
		name = parked
	}
	k, err := ParseKey(name)
	if err != nil {
		return Key{}
	}
	return k
}

// Read returns the override of exactly k; that of a whole service says nothing about its instances here.
// When nothing is said, or what was said has expired, the error is fs.ErrNotExist. Any other error means
// that the directory could not be read, and not that k is up.
func (d *Dir) Read(k Key) (Entry, error) {
	k = k.canonical()
	h, err := openHandle(d.root)
	if err != nil {
		return Entry{}, dirError(err)
	}
	defer h.close()
	return d.lookup(h, k, true)
}

// dirError wraps an error about the directory itself such that nobody takes it for the absence of a file.
func dirError(err error) error {
	return fmt.Errorf("read spool directory: %v", err) //nolint:errorlint // fs.ErrNotExist would mean up
}

// lookup is Read in an open directory; without search it looks at the name that the commands write only.
func (d *Dir) lookup(h *dirHandle, k Key, search bool) (Entry, error) {
	now := d.now()
	best, there := Entry{}, false
	consider := func(name string, typ fs.FileMode) error {
		r := h.read(name, typ)
		if r.status == readFailed {
			return fmt.Errorf("read spool file %s: %v", name, r.err) //nolint:errorlint // as in unreadable
		}
		if e, ok := r.entry(k); ok && !e.Expired(now) && (!there || isStronger(&e, &best)) {
			best, there = e, true
		}
		return nil
	}
	if err := consider(k.Name(), fs.ModeIrregular); err != nil {
		return Entry{}, err
	}
	if search && (!there || !k.oneName()) {
		var readErr error
		err := h.eachFile(func(name string, typ fs.FileMode) {
			if readErr == nil && name != k.Name() && h.about(name) == k {
				readErr = consider(name, typ)
			}
		})
		if err != nil {
			return Entry{}, dirError(err)
		}
		if readErr != nil {
			return Entry{}, readErr
		}
	}
	if !there {
		return Entry{}, fs.ErrNotExist
	}
	return best, nil
}

// isStronger reports whether a goes before b, both about the same key: the stronger one does, and of equals
// the one that ends later.
func isStronger(a, b *Entry) bool {
	if a.State != b.State {
		return a.State > b.State
	}
	return !b.Expires.IsZero() && (a.Expires.IsZero() || a.Expires.After(b.Expires))
}

// List returns every override in force, sorted by name. Files that are none are left out.
func (d *Dir) List() ([]Entry, error) {
	h, err := openHandle(d.root)
	if err != nil {
		return nil, dirError(err)
	}
	defer h.close()
	now := d.now()
	best := map[Key]Entry{}
	var readErr error
	err = h.eachFile(func(name string, typ fs.FileMode) {
		k := h.about(name)
		if k == (Key{}) || readErr != nil {
			return
		}
		r := h.read(name, typ)
		if r.status == readFailed {
			readErr = fmt.Errorf("read spool file %s: %v", name, r.err) //nolint:errorlint // as in unreadable
			return
		}
		e, ok := r.entry(k)
		if !ok || e.Expired(now) {
			return
		}
		if old, there := best[k]; !there || isStronger(&e, &old) {
			best[k] = e
		}
	})
	if err != nil {
		return nil, dirError(err)
	}
	if readErr != nil {
		return nil, readErr
	}
	list := make([]Entry, 0, len(best))
	for _, e := range best {
		list = append(list, e)
	}
	sortByName(list)
	return list, nil
}

func sortByName(list []Entry) {
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Key.Name(), b.Key.Name()) })
}
