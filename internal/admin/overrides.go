package admin

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// overrides gives a command access to the spool directory. A directory that does not exist has no overrides.
type overrides struct {
	dir   *spool.Dir    // nil if it does not exist
	batch *spool.Batch  // of dir; nil outside of inBatch
	fleet []spool.Entry // overrides of the fleet that hastatus shows too
}

// openToWrite opens the spool directory. It creates a missing one so that the daemon can read it.
func (c *command) openToWrite() (overrides, error) {
	dir, err := spool.OpenDir(c.opt.spoolRoot)
	if err == nil && dir.Created() {
		c.chownToDaemon(dir)
	}
	return overrides{dir: dir}, err
}

// daemonUser is the user of the daemon in the packages.
const daemonUser = "hacheck"

// chownToDaemon gives a directory that root has just created to the owner of its parent, or to the daemon's user if that
// is root as well. It prints that the directory is new, because its name may be a typing error.
func (c *command) chownToDaemon(dir *spool.Dir) {
	uid, gid, owner := os.Geteuid(), os.Getegid(), "the user of this command"
	var parent syscall.Stat_t
	switch err := syscall.Stat(filepath.Dir(dir.Root()), &parent); {
	case uid != 0:
	case err == nil && parent.Uid != 0:
		uid, gid, owner = int(parent.Uid), int(parent.Gid), "the owner of its parent"
	default:
		owner = "root"
		if user := c.passwdEntry(func(field []string) bool { return field[0] == daemonUser }); user != nil {
			u, err := strconv.ParseUint(user[2], 10, 31)
			g, groupErr := strconv.ParseUint(user[3], 10, 31)
			if err == nil && groupErr == nil {
				uid, gid, owner = int(u), int(g), "user "+daemonUser
			}
		}
	}
	root := textfmt.OneLine(dir.Root())
	if uid != os.Geteuid() || gid != os.Getegid() {
		if err := dir.Chown(uid, gid); err != nil {
			c.errorf("warning: %s did not exist and was created, and the daemon may not be able to read it: %s", root, textfmt.OneLine(err.Error()))
			return
		}
	}
	c.errorf("%s did not exist and was created with mode 0750, it belongs to %s", root, owner)
}

// openToRead opens the spool directory and does not create it. The parent must exist: with a mistyped path, hastatus must
// not report that everything is up.
func (c *command) openToRead() (overrides, error) {
	root := c.opt.spoolRoot
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(filepath.Dir(root))
		return overrides{}, err
	}
	return c.openToWrite()
}

// spoolFiles are the calls that a Dir and a Batch have.
type spoolFiles interface {
	Read(k spool.Key) (spool.Entry, error)
	Remove(k spool.Key) error
	EndWeight(k spool.Key) error
}

// files returns the batch, or the directory outside of inBatch.
func (o overrides) files() spoolFiles {
	if o.batch != nil {
		return o.batch
	}
	return o.dir
}

// inBatch calls f with overrides that list the directory once for all targets, however many there are. The error is
// that of the directory, and f was not called, or it says that the changes of f may not last.
func (o overrides) inBatch(f func(o overrides)) error {
	if o.dir == nil {
		f(o)
		return nil
	}
	var err error
	if o.batch, err = o.dir.NewBatch(); err != nil {
		return err
	}
	f(o)
	return o.batch.Close()
}

// readAll calls f once, in a batch if the directory can be opened. f changes nothing, so that the end of the batch has no
// error.
func (o overrides) readAll(f func(o overrides)) {
	if err := o.inBatch(f); err != nil {
		f(o)
	}
}

func (o overrides) close() {
	if o.dir != nil {
		_ = o.dir.Close() // never fails
	}
}

// read returns the strongest override that is about exactly this target. Its State is Ready if there is none.
func (o overrides) read(t target) (spool.Entry, error) {
	strongest := spool.Entry{Key: t.key}
	for _, e := range o.fleet {
		if e.Key == t.key && e.State > strongest.State {
			strongest = e
		}
	}
	if o.dir == nil {
		return strongest, nil
	}
	for _, k := range t.keys() {
		e, err := o.files().Read(k)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return strongest, err
		}
		if e.State > strongest.State {
			strongest = e
			strongest.Key = t.key
		}
	}
	return strongest, nil
}

// write writes e for each target, in a batch. It removes the overrides of a target's other keys, because a stronger one
// would stay in force. It returns the error of each target.
func (o overrides) write(targets []target, e spool.Entry) []error {
	entries := make([]spool.Entry, len(targets))
	for i, t := range targets {
		entries[i] = e
		entries[i].Key = t.key
	}
	errs := o.batch.WriteAll(entries)
	for i, t := range targets {
		if errs[i] == nil || errors.Is(errs[i], spool.ErrNotDurable) {
			errs[i] = cmp.Or(errs[i], o.removeAliases(t))
		}
	}
	return errs
}

// removeAliases removes the overrides of the target's other keys. It tries all of them and returns the first error.
func (o overrides) removeAliases(t target) error {
	var first error
	for _, k := range t.aliases {
		first = cmp.Or(first, o.files().Remove(k))
	}
	return first
}

// lift removes every override of a target. It tries all keys and returns the first error.
func (o overrides) lift(t target) error {
	if o.dir == nil {
		return nil
	}
	var first error
	for _, k := range t.keys() {
		if err := o.files().Remove(k); first == nil {
			first = err
		}
	}
	return first
}

// list returns all overrides, sorted by name.
func (o overrides) list() ([]spool.Entry, error) {
	if o.dir == nil {
		return nil, nil
	}
	return o.dir.List()
}

// explainSpoolError says what went wrong in the spool directory and what the operator can do.
func (c *command) explainSpoolError(err error) string {
	root := textfmt.OneLine(c.opt.spoolRoot)
	var todo string
	switch {
	case errors.Is(err, fs.ErrPermission) && c.UID == 0:
		todo = "even root may not; look at the owner of the mount and the attributes of " + root
	case errors.Is(err, fs.ErrPermission):
		todo = "run with sudo"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		todo = "make room on the file system of " + root + " and run it again"
	case errors.Is(err, syscall.EROFS):
		todo = root + " is mounted read-only; mount it for writing, or name another directory with --spool-root"
	case errors.Is(err, syscall.ENOTDIR):
		todo = root + " must be a directory; move away what is there, or name another with --spool-root"
	case errors.Is(err, fs.ErrNotExist):
		todo = "create " + filepath.Dir(root) + ", or name another directory with --spool-root"
	default:
		return textfmt.OneLine(err.Error())
	}
	return textfmt.OneLine(err.Error()) + "; " + todo
}
