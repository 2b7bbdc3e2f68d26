//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links in a row are followed.
const maxLinks = 8

// fileID tells one file or directory from every other that exists at the same time.
type fileID struct{ dev, ino uint64 }

// dirHandle is the spool directory, open for one round of work. It is opened by path each time: a
// descriptor kept open would hide that the directory was replaced, and would keep the kernel from
// telling the watch that it was removed.
type dirHandle struct {
	root string
	fd   int      // AT_FDCWD when no descriptor was to be had
	prefix  string   // then root and a slash, to put before names; "" otherwise
	file *os.File // around fd once the directory is listed
	id   dirID
	buf  []byte
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

// openByPath returns a handle without a descriptor, for when the process has none left: whether files are
// there can still be told.
func openByPath(root string) (*dirHandle, error) {
	id, err := statRoot(root)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	return &dirHandle{root: root, fd: unix.AT_FDCWD, prefix: root + "/", id: id}, nil
}

// path returns the path of name for a system call on h.fd.
func (h *dirHandle) path(name string) string {
	if h.prefix == "" {
		return name
	}
	return h.prefix + name
}

func (h *dirHandle) close() {
	if h.prefix != "" {
		return
	}
	if h.file != nil {
		_ = h.file.Close() // nothing was written through it
		return
	}
	_ = unix.Close(h.fd)
}

// statRoot returns the identity of the directory that root names now.
func statRoot(root string) (dirID, error) {
	st, err := statDir(unix.AT_FDCWD, root)
	return st.id, err
}

// retryInterrupted repeats a system call that a signal interrupted, which the Go runtime sends itself.
func retryInterrupted[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR { //nolint:errorlint // a bare errno, as the call returned it
			return v, err
		}
	}
}

// eachFile calls f with the name of every file and its type (0 is a regular file, fs.ModeIrregular not known).
func (h *dirHandle) eachFile(f func(name string, typ fs.FileMode)) error {
	if h.prefix != "" {
		return unix.EMFILE
	}
	if h.file == nil {
		h.file = os.NewFile(uintptr(h.fd), h.root)
	} else if _, err := h.file.Seek(0, 0); err != nil {
		return err
	}
	for {
		// In portions, so that a directory of millions of files takes time and not memory.
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

// renameByLink is renameNew for systems and file systems without such a rename.
func (h *dirHandle) renameByLink(from, to string) error {
	if err := unix.Linkat(h.fd, h.path(from), h.fd, h.path(to), 0); err != nil {
		return err
	}
	return unix.Unlinkat(h.fd, h.path(from), 0)
}

// fileStatus says what kind of thing a name in the directory turned out to be.
type fileStatus uint8

const (
	notFound  fileStatus = iota // no such file
	readOK              // a regular file that was read
	readDenied               // a regular file that may not be read
	readFailed               // something is there, and it could not be read for now: err says why
	notRegular               // not a regular file of this directory: why says what
)

// readResult is what read found under a name.
type readResult struct {
	status   fileStatus
	content []byte // of a regular file, at most maxContent+1 bytes; valid until the next read
	err     error  // of denied and failed
	reason     string // of noFile
	via     []string
	unwatched    bool // behind a link into a subdirectory, whose changes the watch of this directory cannot tell
}

// entry returns the override that r is under the key k. A file that cannot be read is down, never nothing.
func (r *readResult) entry(k Key) (Entry, bool) {
	switch r.status {
	case readOK:
		return ParseEntry(k, r.content), true
	case readDenied, readFailed:
		return Entry{Key: k, State: Down, Reason: "spool file cannot be read: " + r.err.Error()}, true
	default:
		return Entry{}, false
	}
}

// read reads the file name. Only regular files count, also behind symbolic links as long as those stay
// in the directory. Opening never waits (a FIFO) and never touches a device.
func (h *dirHandle) read(name string, typ fs.FileMode) readResult {
	var r readResult
	for range maxLinks {
		if typ == fs.ModeIrregular {
			var st unix.Stat_t
			_, err := retryInterrupted(func() (int, error) {
				return 0, unix.Fstatat(h.fd, h.path(name), &st, unix.AT_SYMLINK_NOFOLLOW)
			})
			switch {
			case errors.Is(err, unix.ENOENT):
				return r.setMissing()
			case err != nil:
				return r.setError(err)
			}
			typ = fileType(&st)
		}
		switch typ {
		case 0:
			if again := h.readRegular(name, &r); !again {
				return r
			}
			typ = fs.ModeIrregular // it is no longer what it was a moment ago
		case fs.ModeSymlink:
			next, deep, err := h.readLink(name)
			switch {
			case errors.Is(err, unix.ENOENT):
				return r.setMissing()
			case errors.Is(err, unix.EINVAL): // it was a link a moment ago
				typ = fs.ModeIrregular
				continue
			case err != nil:
				r.status, r.reason = notRegular, err.Error()
				return r
			case deep:
				r.unwatched = true
				h.readInSubdirectory(next, &r)
				return r
			}
			r.via = append(r.via, next)
			name, typ = next, fs.ModeIrregular
		default:
			r.status, r.reason = notRegular, describeType(typ)
			return r
		}
	}
	r.status, r.reason = notRegular, "too many symbolic links"
	return r
}

func (r *readResult) setMissing() readResult {
	if len(r.via) > 0 {
		r.status, r.reason = notRegular, "a symbolic link to a file that does not exist"
	}
	return *r
}

func (r *readResult) setError(err error) readResult {
	r.status, r.err = readFailed, err
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		r.status = readDenied
	}
	return *r
}

// readRegular opens and reads name, which was a regular file when last looked at. It reports true when
// it is something else by now.
func (h *dirHandle) readRegular(name string, r *readResult) (again bool) {
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Openat(h.fd, h.path(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		r.setMissing()
		return false
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENXIO):
		return true // a link (FreeBSD says EMLINK), or a socket or FIFO
	case err != nil:
		r.setError(err)
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return h.readFD(fd, r)
}

// readFD reads the open file fd. It reports true when that is no regular file.
func (h *dirHandle) readFD(fd int, r *readResult) (again bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		r.setError(err)
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return true
	}
	if h.buf == nil {
		h.buf = make([]byte, 4096)
	}
	n := 0
	for n <= maxContent {
		if n == len(h.buf) {
			h.buf = append(h.buf, make([]byte, min(len(h.buf), maxContent+1-len(h.buf)))...)
		}
		got, err := retryInterrupted(func() (int, error) { return unix.Read(fd, h.buf[n:]) })
		if err != nil {
			r.setError(err)
			return false
		}
		n += got
		if got == 0 || n < len(h.buf) && int64(n) >= st.Size {
			break
		}
	}
	r.status, r.content = readOK, h.buf[:n]
	return false
}

// errOutsideLink is why a link does not count.
var errOutsideLink = errors.New("a symbolic link out of the directory")

// readLink returns what the symbolic link name points to: a name in the directory, or the path of a file
// in a subdirectory (deep).
func (h *dirHandle) readLink(name string) (target string, deep bool, err error) {
	buf := make([]byte, unix.PathMax)
	n, err := retryInterrupted(func() (int, error) { return unix.Readlinkat(h.fd, h.path(name), buf) })
	if err != nil {
		return "", false, err
	}
	target = filepath.Clean(string(buf[:n]))
	parent := filepath.Dir(target)
	if !filepath.IsAbs(parent) {
		parent = filepath.Join(h.root, parent)
	}
	// The parent decides, however it is spelled: an absolute link may name this directory too.
	if id, err := statRoot(parent); err == nil && id.fileID == h.id.fileID && filepath.Base(target) != ".." {
		return filepath.Base(target), false, nil
	}
	if filepath.IsAbs(target) {
		if target, err = filepath.Rel(h.root, target); err != nil {
			return "", false, errOutsideLink
		}
	}
	if !filepath.IsLocal(target) {
		return "", false, errOutsideLink
	}
	return target, true, nil
}

// readInSubdirectory reads a file in a subdirectory. os.Root sees to it that no link on the way leads out.
func (h *dirHandle) readInSubdirectory(target string, r *readResult) {
	root, err := os.OpenRoot(h.root)
	if err != nil {
		r.setError(err)
		return
	}
	defer func() { _ = root.Close() }()
	// Only a regular file is opened: opening can already be an act on a device.
	info, err := root.Stat(target)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, fs.ErrPermission):
		r.setError(bareError(err))
		return
	case err != nil:
		r.status, r.reason = notRegular, fmt.Sprintf("a symbolic link to what cannot be reached: %v", err)
		return
	case !info.Mode().IsRegular():
		r.status, r.reason = notRegular, describeType(info.Mode().Type())
		return
	}
	f, err := root.OpenFile(target, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		r.setError(bareError(err))
		return
	}
	defer func() { _ = f.Close() }()
	if again := h.readFD(int(f.Fd()), r); again {
		r.status, r.reason = notRegular, "no regular file"
	}
}

// bareError returns the bare error of a path error, whose path says nothing new.
func bareError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// fileType returns the type of a file as fs.DirEntry has it.
func fileType(st *unix.Stat_t) fs.FileMode {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 0
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	default:
		return fs.ModeDevice
	}
}

// describeType says in words what is no regular file.
func describeType(typ fs.FileMode) string {
	switch {
	case typ&fs.ModeDir != 0:
		return "a directory"
	case typ&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case typ&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}
