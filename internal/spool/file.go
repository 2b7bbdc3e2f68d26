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

// handle is the spool directory, open for one round of work. It is opened by path each time: a
// descriptor kept open would hide that the directory was replaced, and would keep the kernel from
// telling the watch that it was removed.
type handle struct {
	root string
	fd   int      // AT_FDCWD when no descriptor was to be had
	dir  string   // then root and a slash, to put before names; "" otherwise
	file *os.File // around fd once the directory is listed
	id   dirID
	buf  []byte
}

// openHandle opens the directory root for reading.
func openHandle(root string) (*handle, error) {
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	h := &handle{root: root, fd: fd}
	st, err := statDir(fd, "")
	if err != nil {
		h.close()
		return nil, &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	h.id = st.id
	return h, nil
}

// pathHandle returns a handle without a descriptor, for when the process has none left: whether files are
// there can still be told.
func pathHandle(root string) (*handle, error) {
	id, err := statRoot(root)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	return &handle{root: root, fd: unix.AT_FDCWD, dir: root + "/", id: id}, nil
}

// at returns the path of name for a system call on h.fd.
func (h *handle) at(name string) string {
	if h.dir == "" {
		return name
	}
	return h.dir + name
}

func (h *handle) close() {
	if h.dir != "" {
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

// each calls f with the name of every file and its type (0 is a regular file, fs.ModeIrregular not known).
func (h *handle) each(f func(name string, typ fs.FileMode)) error {
	if h.dir != "" {
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

// linkNew is renameNew for systems and file systems without such a rename.
func (h *handle) linkNew(from, to string) error {
	if err := unix.Linkat(h.fd, h.at(from), h.fd, h.at(to), 0); err != nil {
		return err
	}
	return unix.Unlinkat(h.fd, h.at(from), 0)
}

// found says what kind of thing a name in the directory turned out to be.
type found uint8

const (
	absent  found = iota // no such file
	content              // a regular file that was read
	denied               // a regular file that may not be read
	failed               // something is there, and it could not be read for now: err says why
	noFile               // not a regular file of this directory: why says what
)

// reading is what read found under a name.
type reading struct {
	found   found
	content []byte // of a regular file, at most maxContent+1 bytes; valid until the next read
	err     error  // of denied and failed
	why     string // of noFile
	via     []string
	deep    bool // behind a link into a subdirectory, whose changes the watch of this directory cannot tell
}

// entry returns the override that r is under the key k. A file that cannot be read is down, never nothing.
func (r *reading) entry(k Key) (Entry, bool) {
	switch r.found {
	case content:
		return ParseEntry(k, r.content), true
	case denied, failed:
		return Entry{Key: k, State: Down, Reason: "spool file cannot be read: " + r.err.Error()}, true
	default:
		return Entry{}, false
	}
}

// read reads the file name. Only regular files count, also behind symbolic links as long as those stay
// in the directory. Opening never waits (a FIFO) and never touches a device.
func (h *handle) read(name string, typ fs.FileMode) reading {
	var r reading
	for range maxLinks {
		if typ == fs.ModeIrregular {
			var st unix.Stat_t
			_, err := retryInterrupted(func() (int, error) {
				return 0, unix.Fstatat(h.fd, h.at(name), &st, unix.AT_SYMLINK_NOFOLLOW)
			})
			switch {
			case errors.Is(err, unix.ENOENT):
				return r.missing()
			case err != nil:
				return r.failure(err)
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
			next, deep, err := h.follow(name)
			switch {
			case errors.Is(err, unix.ENOENT):
				return r.missing()
			case errors.Is(err, unix.EINVAL): // it was a link a moment ago
				typ = fs.ModeIrregular
				continue
			case err != nil:
				r.found, r.why = noFile, err.Error()
				return r
			case deep:
				r.deep = true
				h.readDeep(next, &r)
				return r
			}
			r.via = append(r.via, next)
			name, typ = next, fs.ModeIrregular
		default:
			r.found, r.why = noFile, typeName(typ)
			return r
		}
	}
	r.found, r.why = noFile, "too many symbolic links"
	return r
}

func (r *reading) missing() reading {
	if len(r.via) > 0 {
		r.found, r.why = noFile, "a symbolic link to a file that does not exist"
	}
	return *r
}

func (r *reading) failure(err error) reading {
	r.found, r.err = failed, err
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		r.found = denied
	}
	return *r
}

// readRegular opens and reads name, which was a regular file when last looked at. It reports true when
// it is something else by now.
func (h *handle) readRegular(name string, r *reading) (again bool) {
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Openat(h.fd, h.at(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		r.missing()
		return false
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENXIO):
		return true // a link (FreeBSD says EMLINK), or a socket or FIFO
	case err != nil:
		r.failure(err)
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return h.readFD(fd, r)
}

// readFD reads the open file fd. It reports true when that is no regular file.
func (h *handle) readFD(fd int, r *reading) (again bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		r.failure(err)
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
			r.failure(err)
			return false
		}
		n += got
		if got == 0 || n < len(h.buf) && int64(n) >= st.Size {
			break
		}
	}
	r.found, r.content = content, h.buf[:n]
	return false
}

// errOutside is why a link does not count.
var errOutside = errors.New("a symbolic link out of the directory")

// follow returns what the symbolic link name points to: a name in the directory, or the path of a file
// in a subdirectory (deep).
func (h *handle) follow(name string) (target string, deep bool, err error) {
	buf := make([]byte, unix.PathMax)
	n, err := retryInterrupted(func() (int, error) { return unix.Readlinkat(h.fd, h.at(name), buf) })
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
			return "", false, errOutside
		}
	}
	if !filepath.IsLocal(target) {
		return "", false, errOutside
	}
	return target, true, nil
}

// readDeep reads a file in a subdirectory. os.Root sees to it that no link on the way leads out.
func (h *handle) readDeep(target string, r *reading) {
	root, err := os.OpenRoot(h.root)
	if err != nil {
		r.failure(err)
		return
	}
	defer func() { _ = root.Close() }()
	// Only a regular file is opened: opening can already be an act on a device.
	info, err := root.Stat(target)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, fs.ErrPermission):
		r.failure(underlying(err))
		return
	case err != nil:
		r.found, r.why = noFile, fmt.Sprintf("a symbolic link to what cannot be reached: %v", err)
		return
	case !info.Mode().IsRegular():
		r.found, r.why = noFile, typeName(info.Mode().Type())
		return
	}
	f, err := root.OpenFile(target, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		r.failure(underlying(err))
		return
	}
	defer func() { _ = f.Close() }()
	if again := h.readFD(int(f.Fd()), r); again {
		r.found, r.why = noFile, "no regular file"
	}
}

// underlying returns the bare error of a path error, whose path says nothing new.
func underlying(err error) error {
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

// typeName says in words what is no regular file.
func typeName(typ fs.FileMode) string {
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
