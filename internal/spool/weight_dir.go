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

	"golang.org/x/sys/unix"
)

// errNoLink says why a file with the name of a weight is ignored.
var errNoLink = errors.New("a weight is a symbolic link; remove this file")

// WriteWeight puts w into force. It is atomic, and a zero w.Created becomes the time now. It changes no override. See
// ErrNotDurable for the error.
func (d *Dir) WriteWeight(w Weight) error {
	if w.Created.IsZero() {
		w.Created = d.now()
	}
	err := w.check()
	if err == nil {
		err = d.withHandle(func(h *dirHandle) error { return h.replaceWeight(&w) })
	}
	if err != nil {
		return fmt.Errorf("write weight of %s: %w", w.Key.canonical().Name(), err)
	}
	return nil
}

// EndWeight ends the weight of exactly k. It returns nil if there is none. See ErrNotDurable for the error.
func (d *Dir) EndWeight(k Key) error {
	err := d.withHandle(func(h *dirHandle) error {
		w, err := h.readWeight(k)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil: // garbage: it is no weight, and it is not ours to remove
			return nil //nolint:nilerror // as the comment says
		case w.HasEnded(d.now()):
			return nil
		}
		w.Expires = d.now()
		return h.replaceWeight(w)
	})
	if err != nil {
		return fmt.Errorf("end weight of %s: %w", k.canonical().Name(), err)
	}
	return nil
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

// withHandle calls change with the open directory and syncs it.
func (d *Dir) withHandle(change func(h *dirHandle) error) error {
	h, err := openHandle(d.root)
	if err != nil {
		return err
	}
	defer h.close()
	if err := change(h); err != nil {
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
func (h *dirHandle) readWeight(k Key) (*Weight, error) {
	buf := make([]byte, maxWeightLink+1)
	n, err := retryInterrupted(func() (int, error) { return unix.Readlinkat(h.fd, h.path(weightName(k)), buf) })
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

func sortWeights(list []Weight) {
	slices.SortFunc(list, func(a, b Weight) int { return strings.Compare(a.Key.Name(), b.Key.Name()) })
}

// isErrno reports whether err is one of the operating system.
func isErrno(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno)
}
