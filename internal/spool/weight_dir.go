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

// errNoLink says why a file with the name of a weight is ignored.
var errNoLink = errors.New("a weight is a symbolic link; remove this file")

// WriteWeight puts w into force. It is atomic, and a zero w.Created becomes the time now. w.Expires is rounded up to a
// second, so that a weight is never in force for less than its time. It changes no override. See ErrNotDurable for the
// error.
func (d *Dir) WriteWeight(w Weight) error {
	if w.Created.IsZero() {
		w.Created = d.now()
	}
	if whole := w.Expires.Truncate(time.Second); !whole.Equal(w.Expires) {
		w.Expires = whole.Add(time.Second)
	}
	err := w.check()
	if err == nil {
		err = d.changeWeight(func(h *dirHandle) (bool, error) { return true, h.replaceWeight(&w) })
	}
	if err != nil {
		return fmt.Errorf("write weight of %s: %w", w.Key.canonical().Name(), err)
	}
	return nil
}

// EndWeight ends the weight of exactly k. It returns nil if there is none, and leaves alone what is no weight. See
// ErrNotDurable for the error.
func (d *Dir) EndWeight(k Key) error {
	return endWeightError(k, d.changeWeight(func(h *dirHandle) (bool, error) { return h.endWeight(k, d.now()) }))
}

func endWeightError(k Key, err error) error {
	if err != nil {
		return fmt.Errorf("end weight of %s: %w", k.canonical().Name(), err)
	}
	return nil
}

// endWeight ends the weight of k at now and reports whether there was one. The caller syncs the directory.
func (h *dirHandle) endWeight(k Key, now time.Time) (ended bool, err error) {
	k = k.canonical()
	w, err := h.readWeight(k)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h.announceEnd(weightName(k)) // the daemon may carry one from a file system that is no longer mounted
		return false, nil
	case isErrno(err):
		return false, err
	case w == nil || w.HasEnded(now):
		return false, nil
	}
	w.Percent, w.Expires = MaxWeight, now
	err = h.replaceWeight(w)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// The removal is an end too, but only until the daemon restarts. It makes room for the record.
		if err = unix.Unlinkat(h.fd, h.path(weightName(k)), 0); err == nil {
			_ = h.replaceWeight(w)
		}
	}
	return true, err
}

// ReadWeight returns the weight of exactly k, also one that has ended. The error is fs.ErrNotExist without one.
func (d *Dir) ReadWeight(k Key) (*Weight, error) {
	h, err := openHandle(d.root)
	if err != nil {
		return nil, dirError(err)
	}
	defer h.close()
	return h.readWeight(k)
}

// changeWeight calls change with the open directory, and syncs the directory if change returns true.
func (d *Dir) changeWeight(change func(h *dirHandle) (bool, error)) error {
	h, err := openHandle(d.root)
	if err != nil {
		return err
	}
	defer h.close()
	changed, err := change(h)
	if err != nil || !changed {
		return err
	}
	return h.sync()
}

// replaceWeight writes w. The caller syncs the directory.
func (h *dirHandle) replaceWeight(w *Weight) error {
	target, err := w.marshal()
	if err != nil {
		return err
	}
	name, temp := weightName(w.Key), fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64())
	if err := unix.Symlinkat(target, h.fd, temp); err != nil {
		return &os.LinkError{Op: "symlink", Old: temp, New: filepath.Join(h.root, name), Err: err}
	}
	if err := unix.Renameat(h.fd, temp, h.fd, name); err != nil {
		_ = unix.Unlinkat(h.fd, temp, 0) // err is more important
		return &os.LinkError{Op: "rename", Old: temp, New: filepath.Join(h.root, name), Err: err}
	}
	return nil
}

// readWeight reads the weight of k. The error is fs.ErrNotExist without one.
func (h *dirHandle) readWeight(k Key) (*Weight, error) { return h.readWeightLink(weightName(k), k) }

// readWeightLink reads the weight of k from the link name.
func (h *dirHandle) readWeightLink(name string, k Key) (*Weight, error) {
	buf := make([]byte, maxWeightLink+1)
	n, err := retryInterrupted(func() (int, error) { return unix.Readlinkat(h.fd, h.path(name), buf) })
	switch {
	case errors.Is(err, unix.EINVAL):
		return nil, errNoLink
	case err != nil:
		return nil, err
	}
	return parseWeight(k.canonical(), string(buf[:n]))
}

// ListWeights returns the weights in force, sorted by name. It leaves out what is no weight.
func (d *Dir) ListWeights() ([]Weight, error) {
	h, err := openHandle(d.root)
	if err != nil {
		return nil, dirError(err)
	}
	defer h.close()
	now := d.now()
	list := []Weight{}
	var readErr error
	err = h.eachFile(func(name string, _ fs.FileMode) {
		k, ok := weightKey(name)
		if !ok || readErr != nil || len(list) >= maxWeights {
			return
		}
		w, err := h.readWeight(k)
		switch {
		case err == nil && !w.HasEnded(now):
			list = append(list, *w)
		case err != nil && isErrno(err) && !errors.Is(err, fs.ErrNotExist):
			readErr = fmt.Errorf("read weight %s: %w", name, err)
		}
	})
	if err == nil {
		err = readErr
	}
	if err != nil {
		return nil, dirError(err)
	}
	sortWeights(list)
	return list, nil
}

// removeOldWeight removes the record of k if it means nothing any more at now. It sets the link aside before: a weight that
// was set since it was read gets its name back, unless a newer one has it.
func (h *dirHandle) removeOldWeight(k Key, now time.Time) {
	name, aside := weightName(k), fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64())
	if unix.Renameat(h.fd, h.path(name), h.fd, h.path(aside)) != nil {
		return // the directory does not allow it, or the record is gone
	}
	if w, err := h.readWeightLink(aside, k); err == nil && w.At(now) != 0 && h.renameNoReplace(aside, name) == nil {
		return
	}
	_ = unix.Unlinkat(h.fd, h.path(aside), 0) // the next start removes it
}

func sortWeights(list []Weight) {
	slices.SortFunc(list, func(a, b Weight) int { return strings.Compare(a.Key.Name(), b.Key.Name()) })
}

// isErrno reports whether err is one of the operating system.
func isErrno(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno)
}
