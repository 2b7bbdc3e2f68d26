//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// fileID identifies a file or directory among those that exist at the same time.
type fileID struct{ dev, ino uint64 }

// dirHandle is the spool directory, open for one update or one call of a Dir. It is opened by path each time: a
// descriptor that stays open would hide that the directory was replaced, and the kernel would not report its removal.
type dirHandle struct {
	root   string
	fd     int      // AT_FDCWD without a descriptor
	prefix string   // of file names: root and a slash without a descriptor, else ""
	file   *os.File // owns fd once the directory was listed
	id     dirID
	buf    []byte
	// listOnce has eachOtherName list the directory once. otherNames are then the files that are not called Key.Name(),
	// by key; nil: not listed yet.
	listOnce   bool
	otherNames map[Key][]string
}

// openHandle opens the directory root for reading.
func openHandle(root string) (*dirHandle, error) {
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	h := &dirHandle{root: root, fd: fd}
	st, err := statDir(fd, "")
	if err != nil {
		h.close()
		return nil, &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	h.id = st.id
	return h, nil
}

// openByPath returns a handle without a descriptor, for a process that has none left. It can read the attributes of
// files but not list the directory.
func openByPath(root string) (*dirHandle, error) {
	id, err := statRoot(root)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	return &dirHandle{root: root, fd: unix.AT_FDCWD, prefix: root + "/", id: id}, nil
}

// hasDescriptor reports whether h was opened by openHandle and can list the directory.
func (h *dirHandle) hasDescriptor() bool { return h.prefix == "" }

func (h *dirHandle) close() {
	if !h.hasDescriptor() {
		return
	}
	if h.file != nil {
		_ = h.file.Close() // it was only read
		return
	}
	_ = unix.Close(h.fd)
}

// statRoot returns the identity of the directory to which root leads now.
func statRoot(root string) (dirID, error) {
	st, err := statDir(unix.AT_FDCWD, root)
	return st.id, err
}

// path returns the path of the file name for a system call on h.fd.
func (h *dirHandle) path(name string) string {
	return h.prefix + name
}

// openFile opens the file name for reading. It neither follows a symbolic link nor blocks on a FIFO.
func (h *dirHandle) openFile(name string) (int, error) {
	return retryInterrupted(func() (int, error) {
		return unix.Openat(h.fd, h.path(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
}

// eachFile calls f with the name of every file and its type: 0 for a regular file, fs.ModeIrregular when it is not
// known. It reads 1024 names at a time, so that the size of the directory does not matter to memory.
func (h *dirHandle) eachFile(f func(name string, typ fs.FileMode)) error {
	if !h.hasDescriptor() {
		return unix.EMFILE
	}
	if h.file == nil {
		h.file = os.NewFile(uintptr(h.fd), h.root)
	} else if _, err := h.file.Seek(0, 0); err != nil {
		return err
	}
	for {
		list, err := h.file.ReadDir(1024)
		for _, d := range list {
			f(d.Name(), d.Type())
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// listNames sets otherNames.
func (h *dirHandle) listNames() error {
	names := map[Key][]string{}
	err := h.eachFile(func(name string, _ fs.FileMode) {
		if k := keyOf(name); k != (Key{}) && name != k.Name() {
			names[k] = append(names[k], name)
		}
	})
	if err == nil {
		h.otherNames = names
	}
	return err
}

// eachOtherName calls f with every file about k that is not called k.Name(), and its type.
func (h *dirHandle) eachOtherName(k Key, f func(name string, typ fs.FileMode)) error {
	if h.listOnce {
		if h.otherNames == nil {
			if err := h.listNames(); err != nil {
				return err
			}
		}
		for _, name := range h.otherNames[k] {
			f(name, fs.ModeIrregular)
		}
		return nil
	}
	return h.eachFile(func(name string, typ fs.FileMode) {
		if name != k.Name() && keyOf(name) == k {
			f(name, typ)
		}
	})
}

// renameByLink is renameNoReplace for systems and file systems without such a rename.
func (h *dirHandle) renameByLink(from, to string) error {
	if err := unix.Linkat(h.fd, h.path(from), h.fd, h.path(to), 0); err != nil {
		return err
	}
	return unix.Unlinkat(h.fd, h.path(from), 0)
}

// sync makes the names in the directory survive a power cut.
func (h *dirHandle) sync() error {
	_, err := retryInterrupted(func() (int, error) { return 0, unix.Fsync(h.fd) })
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) { // not supported there
		return fmt.Errorf("%w: %w", ErrNotDurable, &fs.PathError{Op: "sync", Path: h.root, Err: err})
	}
	return nil
}

// syncPath syncs the directory path. It leaves one that the process may not read to the kernel, as the parent of the
// spool may be.
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

// retryInterrupted repeats a system call that a signal has interrupted; the Go runtime sends signals to itself.
func retryInterrupted[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR { //nolint:errorlint // a bare errno, as the call returned it
			return v, err
		}
	}
}
