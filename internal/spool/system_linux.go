package spool

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// statDir returns the identity and the time stamps of the directory path, or of fd if path is "".
func statDir(fd int, path string) (dirStamp, error) {
	flags := 0
	if path == "" {
		flags = unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	// From Linux 6.8 on mount numbers are unique; older kernels ignore that bit.
	const mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE
	_, err := retryInterrupted(func() (int, error) { return 0, unix.Statx(fd, path, flags, mask, &st) })
	if err != nil {
		return dirStamp{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return dirStamp{}, unix.ENOTDIR
	}
	id := dirID{fileID: fileID{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}}
	id.mount = id.dev // Linux before 5.8
	if st.Mask&(unix.STATX_MNT_ID|unix.STATX_MNT_ID_UNIQUE) != 0 {
		id.mount = st.Mnt_id
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	id.mountRoot = st.Attributes&st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
	at := func(ts unix.StatxTimestamp) time.Time { return time.Unix(ts.Sec, int64(ts.Nsec)) }
	return dirStamp{id, at(st.Mtime), at(st.Ctime)}, nil
}

// mountOf returns the mount on which root is now; false if the kernel does not say.
func mountOf(root string) (mount, bool) {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, root, 0, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return mount{}, false
	}
	id := strconv.FormatUint(st.Mnt_id, 10)
	var found mount
	ok := eachMount(func(m mount) bool {
		found = m
		return m.id == id
	})
	return found, ok
}

// isMounted reports whether m is still mounted where it was. Without /proc it returns true.
func isMounted(m mount) bool {
	if _, err := os.Stat(mountTable); err != nil {
		return true
	}
	return eachMount(func(other mount) bool { return other == m })
}

// mountTable lists the mounts of this process: see proc(5).
const mountTable = "/proc/self/mountinfo"

// eachMount calls f with each mount until f returns true, and reports whether it did.
func eachMount(f func(mount) bool) bool {
	file, err := os.Open(mountTable)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // it was only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && f(mount{id: fields[0], parent: fields[1], device: fields[2], root: fields[3], point: fields[4]}) {
			return true
		}
	}
	return false
}

// remoteFSName returns the name of root's file system if other machines may write to it without an event here; "" if it
// is local.
func remoteFSName(root string) string {
	var st unix.Statfs_t
	if unix.Statfs(root, &st) != nil {
		return ""
	}
	return map[uint32]string{
		unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse" /* also virtiofs */, unix.V9FS_MAGIC: "9p",
		unix.SMB_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "cifs", unix.CIFS_SUPER_MAGIC: "cifs",
		unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs", unix.AFS_FS_MAGIC: "afs",
		unix.CODA_SUPER_MAGIC: "coda", unix.OCFS2_SUPER_MAGIC: "ocfs2", 0x01161970: "gfs2", 0x0bd00bd0: "lustre",
		0x47504653: "gpfs", 0x19830326: "beegfs", 0x786f4256: "vboxsf", 0x7c7c6673: "prl_fs",
	}[uint32(st.Type)]
}

// renameNoReplace renames from to to. It fails with EEXIST if there is a file called to.
func (h *dirHandle) renameNoReplace(from, to string) error {
	err := unix.Renameat2(h.fd, h.path(from), h.fd, h.path(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		return h.renameByLink(from, to)
	}
	return err
}

// isOnlyOpener returns false if another process has the open file fd open. It asks for a write lease, which the kernel
// grants only then, and only to the owner or root; without the right to ask it returns true. Until fd is closed, the
// lease blocks other processes that open the file.
func isOnlyOpener(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	return !errors.Is(err, unix.EAGAIN)
}
