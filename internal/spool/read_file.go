//go:build unix

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links in a row are followed.
const maxLinks = 8

// typeUnknown makes read find out the type of the file.
const typeUnknown = fs.ModeIrregular

// fileStatus says what a name in the directory turned out to be.
type fileStatus uint8

const (
	notFound   fileStatus = iota // no such file
	readOK                       // a regular file that was read
	readDenied                   // a regular file that may not be read
	readFailed                   // something is there, and it could not be read for now; err says why
	notRegular                   // not a regular file of this directory; reason says what it is
)

// readResult is what read found under a name.
type readResult struct {
	status    fileStatus
	content   []byte // of a regular file, at most maxContent+1 bytes; valid until the next read
	err       error  // of readDenied and readFailed
	reason    string // of notRegular
	via       []string
	unwatched bool // behind a link into a subdirectory, where no event tells of changes
}

// entry returns the override that r is under the key k. A file that cannot be read is down.
func (r *readResult) entry(k Key) (Entry, bool) {
	switch r.status {
	case readOK:
		e := ParseEntry(k, r.content)
		e.endAtBoot(BootID)
		return e, true
	case readDenied, readFailed:
		return Entry{Key: k, State: Down, Reason: "spool file cannot be read: " + r.err.Error()}, true
	default:
		return Entry{}, false
	}
}

// read reads the file name. Only regular files count, also behind symbolic links that stay in the directory. It never
// blocks on a FIFO and never opens a device.
func (h *dirHandle) read(name string, typ fs.FileMode) readResult {
	var r readResult
	for range maxLinks {
		if typ == typeUnknown {
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
			if changed := h.readRegular(name, &r); !changed {
				return r
			}
			typ = typeUnknown // it has changed since
		case fs.ModeSymlink:
			target, unwatched, err := h.readLink(name)
			switch {
			case errors.Is(err, unix.ENOENT):
				return r.setMissing()
			case errors.Is(err, unix.EINVAL): // it is no link any more
				typ = typeUnknown
				continue
			case err != nil:
				r.status, r.reason = notRegular, err.Error()
				return r
			case unwatched:
				r.unwatched = true
				h.readInSubdirectory(target, &r)
				return r
			}
			r.via = append(r.via, target)
			name, typ = target, typeUnknown
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

// readRegular opens and reads name, which was a regular file when it was last checked. It returns true when it no
// longer is one.
func (h *dirHandle) readRegular(name string, r *readResult) (changed bool) {
	fd, err := h.openFile(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		r.setMissing()
		return false
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENXIO):
		return true // a link (EMLINK on FreeBSD), a socket or a FIFO
	case err != nil:
		r.setError(err)
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return h.readFD(fd, r)
}

// readFD reads the open file fd. It returns true when that is no regular file.
func (h *dirHandle) readFD(fd int, r *readResult) (irregular bool) {
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

// errOutsideLink says why a link is ignored.
var errOutsideLink = errors.New("a symbolic link out of the directory")

// readLink returns the target of the symbolic link name: a name in the directory, or the path of a file in a
// subdirectory (unwatched).
func (h *dirHandle) readLink(name string) (target string, unwatched bool, err error) {
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
	// Compare the parent by identity, because an absolute link may name this directory too.
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

// readInSubdirectory reads a file in a subdirectory. os.Root refuses every link on the way that leads out.
func (h *dirHandle) readInSubdirectory(target string, r *readResult) {
	root, err := os.OpenRoot(h.root)
	if err != nil {
		r.setError(err)
		return
	}
	defer func() { _ = root.Close() }()
	// Open regular files only: opening a device can have an effect.
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
	if irregular := h.readFD(int(f.Fd()), r); irregular {
		r.status, r.reason = notRegular, "no regular file"
	}
}

// bareError returns the error inside a path error, whose path would be redundant.
func bareError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// fileType returns the type of a file as in fs.DirEntry.
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

// describeType returns a text for the type of a file that is not regular.
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
