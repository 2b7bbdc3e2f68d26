//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotDurable is wrapped by the error of Write and Remove when the change is done and every reader sees it, but the
// directory could not be synced: a power cut may undo the change. With every other error the old state stands; if a key
// has files of several names, the error says which of them stand.
var ErrNotDurable = errors.New("done, but it may not survive a power cut")

// Dir is a spool directory as the commands use it: every call reads the disk. It holds no descriptor, so that it
// follows the path when the directory is replaced. It is safe for concurrent use, also by several processes.
type Dir struct {
	root    string
	created bool
	now     func() time.Time
}

// OpenDir returns the spool directory root. It creates a missing one with mode 0750, but not its parent. It fails if
// root is no directory or may not be read.
func OpenDir(root string) (*Dir, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open spool directory: %w", err)
	}
	err = os.Mkdir(path, 0o750)
	made := err == nil
	switch {
	case made:
		// Whatever the umask; and synced, so that a power cut does not lose the first override with the directory.
		if err := errors.Join(os.Chmod(path, 0o750), syncPath(filepath.Dir(path))); err != nil {
			return nil, fmt.Errorf("create spool directory: %w", err)
		}
	case !errors.Is(err, fs.ErrExist):
		if _, statErr := os.Stat(path); statErr != nil { // on a read-only file system Mkdir fails even if the directory exists
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
	if err := unix.Fstatat(h.fd, ".", &st, 0); err != nil { // listing may be allowed and reading files not
		return nil, fmt.Errorf("open spool directory: %w", &fs.PathError{Op: "search", Path: path, Err: err})
	}
	return d, nil
}

// Root returns the absolute path of the directory.
func (d *Dir) Root() string { return d.root }

// Created reports whether OpenDir has created the directory.
func (d *Dir) Created() bool { return d.created }

// Chown sets the owner of the directory. It follows no symbolic link, because another user may own the parent. Call it
// only if Created returns true.
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

// Close does nothing: a Dir holds no descriptor between two calls.
func (d *Dir) Close() error { return nil }

// Read returns the override of exactly k; wider ones that cover k do not count. The error is fs.ErrNotExist when there
// is none or it has expired. Every other error means that the directory could not be read, and not that k is up.
func (d *Dir) Read(k Key) (Entry, error) {
	k = k.canonical()
	h, err := openHandle(d.root)
	if err != nil {
		return Entry{}, dirError(err)
	}
	defer h.close()
	return d.lookup(h, k, true)
}

// dirError wraps an error about the directory itself, so that it does not look like fs.ErrNotExist of a file.
func dirError(err error) error {
	return fmt.Errorf("read spool directory: %v", err) //nolint:errorlint // fs.ErrNotExist would mean up
}

// lookup is Read in an open directory. Without search it reads only the file name that the commands write.
func (d *Dir) lookup(h *dirHandle, k Key, search bool) (Entry, error) {
	now := d.now()
	best, there := Entry{}, false
	consider := func(name string, typ fs.FileMode) error {
		r := h.read(name, typ)
		if r.status == readFailed {
			return fmt.Errorf("read spool file %s: %v", name, r.err) //nolint:errorlint // as in dirError
		}
		if e, ok := r.entry(k); ok && !e.Expired(now) && (!there || isStronger(&e, &best)) {
			best, there = e, true
		}
		return nil
	}
	if err := consider(k.Name(), fs.ModeIrregular); err != nil {
		return Entry{}, err
	}
	if search && (!there || !k.hasOneName()) {
		var readErr error
		err := h.eachOtherName(k, func(name string, typ fs.FileMode) {
			if readErr == nil {
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

// isStronger reports whether a takes precedence over b, an override of the same key: the larger State wins. Of equal
// states the wider scope wins, of several groups the first by name, and of two files the later expiry.
func isStronger(a, b *Entry) bool {
	switch {
	case a.State != b.State:
		return a.State > b.State
	case a.Scope != b.Scope: // all, group:NAME, host:NAME: their order is that of the alphabet
		return b.Scope == "" || a.Scope != "" && a.Scope < b.Scope
	}
	return !b.Expires.IsZero() && (a.Expires.IsZero() || a.Expires.After(b.Expires))
}

// List returns every override in force, sorted by name. It leaves out other files.
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
		k := keyOf(name)
		if k == (Key{}) || readErr != nil {
			return
		}
		r := h.read(name, typ)
		if r.status == readFailed {
			readErr = fmt.Errorf("read spool file %s: %v", name, r.err) //nolint:errorlint // as in dirError
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
	SortByName(list)
	return list, nil
}

// SortByName sorts overrides by the names of their keys. Overrides of one key keep their order.
func SortByName(list []Entry) {
	slices.SortStableFunc(list, func(a, b Entry) int { return strings.Compare(a.Key.Name(), b.Key.Name()) })
}
