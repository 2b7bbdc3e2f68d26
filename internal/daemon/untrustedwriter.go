package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The permissions that files should not have.
const (
	othersRead  = 0o004
	othersWrite = 0o002
)

// maxSymlinks is how many symbolic links one path may lead through; it is the kernel's limit.
const maxSymlinks = 40

// exposure is a file or directory that an untrusted user may write. Trusted users are root and the user of this process.
// Groups are trusted too, because an administrator chose their members.
type exposure struct {
	path string
	info fs.FileInfo
}

// findUntrustedWriter returns what lets an untrusted user change or replace the file at path: the file itself, or a directory above
// it or above a symbolic link that path leads through. It returns false if there is nothing, or if it cannot be read. A
// file that does not exist is exposed if others may create it. The mode of a directory at the end of path does not
// count.
func findUntrustedWriter(path string) (exposure, bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return exposure{}, false
	}
	dir, rest, links := "/", strings.Split(path, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..": // of the target of a link; dir has no links in it
			dir = filepath.Dir(dir)
			continue
		}
		parent, err := os.Lstat(dir)
		if err != nil {
			return exposure{}, false
		}
		next := filepath.Join(dir, name)
		info, err := os.Lstat(next)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return exposure{}, false
		}
		if replaceable(parent, info) {
			return exposure{dir, parent}, true
		}
		switch {
		case info == nil:
			return exposure{}, false
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(next)
			if links++; err != nil || links > maxSymlinks {
				return exposure{}, false
			}
			if filepath.IsAbs(to) {
				dir = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
		case info.Mode().IsRegular():
			return exposure{next, info}, info.Mode()&othersWrite != 0 || !trusted(info)
		default:
			dir = next
		}
	}
	return exposure{}, false
}

// replaceable reports whether an untrusted user may remove, rename or create the entry of a directory; entry is nil
// if it does not exist. In a directory with the sticky bit, such as /tmp, only the owner may remove an entry.
func replaceable(dir, entry fs.FileInfo) bool {
	if !trusted(dir) {
		return true
	}
	protected := dir.Mode()&fs.ModeSticky != 0 && entry != nil && trusted(entry)
	return dir.Mode()&othersWrite != 0 && !protected
}

// trusted reports whether a file belongs to root or to the user of this process.
func trusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

// attrs returns the attributes that describe e in a log line.
func (e exposure) attrs() []any {
	args := []any{"writable", e.path, "mode", e.info.Mode().String()}
	if stat, ok := e.info.Sys().(*syscall.Stat_t); ok {
		args = append(args, "owner", stat.Uid)
	}
	return args
}
