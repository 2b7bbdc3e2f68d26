//go:build darwin || freebsd

package control

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peer returns the user who has opened conn. These systems have no portable way to the process.
func peer(conn *net.UnixConn) (uid, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Xucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, 0, err
	}
	if sockErr != nil {
		return 0, 0, os.NewSyscallError("getsockopt", sockErr)
	}
	return int(cred.Uid), unknownID, nil
}

// loginUID returns false: these systems do not tell.
func loginUID(int, int) (int, bool) { return 0, false }

// isStopped returns false: these systems do not tell.
func isStopped(int, int) bool { return false }
