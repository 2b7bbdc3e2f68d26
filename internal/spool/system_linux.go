package spool

import (
	"errors"

	"golang.org/x/sys/unix"
)

// remoteFS returns the name of root's file system when others may write to it without this kernel
// knowing, so that no event tells; "" when it is local.
func remoteFS(root string) string {
	var st unix.Statfs_t
	if unix.Statfs(root, &st) != nil {
		return ""
	}
	switch uint32(st.Type) { // the magic numbers are 32 bits wide
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.FUSE_SUPER_MAGIC: // also virtiofs
		return "fuse"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "cifs"
	case unix.CEPH_SUPER_MAGIC:
		return "ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "afs"
	case unix.CODA_SUPER_MAGIC:
		return "coda"
	case unix.OCFS2_SUPER_MAGIC:
		return "ocfs2"
	case 0x01161970:
		return "gfs2"
	case 0x0bd00bd0:
		return "lustre"
	case 0x47504653:
		return "gpfs"
	case 0x19830326:
		return "beegfs"
	case 0x786f4256:
		return "vboxsf"
	case 0x7c7c6673:
		return "prl_fs"
	default:
		return ""
	}
}

// renameNew renames from to to unless there is something called to: then it fails with EEXIST.
func (h *handle) renameNew(from, to string) error {
	err := unix.Renameat2(h.fd, h.at(from), h.fd, h.at(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		return h.linkNew(from, to)
	}
	return err
}

// alone reports whether nobody else has the open file fd open, as far as the kernel tells: a write lease
// is given only then, and only to the owner or root. The lease lasts until fd is closed; who opens the
// file meanwhile waits.
func alone(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	return !errors.Is(err, unix.EAGAIN)
}
