//go:build unix && !linux

package spool

import (
	"time"

	"golang.org/x/sys/unix"
)

// statDir returns the identity and the time stamps of the directory path, or of fd if path is "". Without mount numbers
// every device counts as one mount.
func statDir(fd int, path string) (dirStamp, error) {
	var st unix.Stat_t
	var err error
	if path == "" {
		err = unix.Fstat(fd, &st)
	} else {
		err = unix.Stat(path, &st)
	}
	if err != nil {
		return dirStamp{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return dirStamp{}, unix.ENOTDIR
	}
	id := dirID{fileID: fileID{dev: uint64(st.Dev), ino: uint64(st.Ino)}, mount: uint64(st.Dev)} //nolint:unconvert // the types differ between systems
	return dirStamp{id, time.Unix(st.Mtim.Unix()), time.Unix(st.Ctim.Unix())}, nil
}

// mountOf is not supported here.
func mountOf(string) (mount, bool) { return mount{}, false }

// isMounted is not supported here.
func isMounted(mount) bool { return true }

// remoteFSName is not supported here, and not needed: without inotify every lookup reads the directory.
func remoteFSName(string) string { return "" }

// renameNoReplace renames from to to. It fails with EEXIST if there is a file called to.
func (h *dirHandle) renameNoReplace(from, to string) error { return h.renameByLink(from, to) }

// isOnlyOpener is not supported here.
func isOnlyOpener(int) bool { return true }
