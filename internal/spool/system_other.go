//go:build unix && !linux

package spool

import (
	"time"

	"golang.org/x/sys/unix"
)

// statDir returns the identity and the time stamps of the directory that path names, or that fd is when
// path is "". Without mount identifiers every device counts as one mount.
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

// mountOf cannot tell here.
func mountOf(string) (mount, bool) { return mount{}, false }

// isMounted cannot tell here.
func isMounted(mount) bool { return true }

// remoteFSName cannot tell here; every lookup looks at the directory anyway.
func remoteFSName(string) string { return "" }

// renameNoReplace renames from to to unless there is something called to: then it fails with EEXIST.
func (h *dirHandle) renameNoReplace(from, to string) error { return h.renameByLink(from, to) }

// isOnlyOpener cannot tell here.
func isOnlyOpener(int) bool { return true }
