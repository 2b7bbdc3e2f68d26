package control

import (
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peer returns the user and the process that have opened conn.
func peer(conn *net.UnixConn) (uid, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, 0, err
	}
	if sockErr != nil {
		return 0, 0, os.NewSyscallError("getsockopt", sockErr)
	}
	return int(cred.Uid), int(cred.Pid), nil
}

// loginUID returns the user who has logged in to start the process pid, which has the effective user uid. It returns
// false if there is none, for example for a service.
//
// The process may have ended, and its number may belong to another one. So the process that is read has to have the
// user of the connection. Directory and file are read from one open directory, which stays with one process.
func loginUID(pid, uid int) (int, bool) {
	if pid <= 0 { // a process that this namespace does not see
		return 0, false
	}
	dir, err := os.OpenRoot(filepath.Join("/proc", strconv.Itoa(pid)))
	if err != nil {
		return 0, false
	}
	defer func() { _ = dir.Close() }()
	text, err := dir.ReadFile("loginuid")
	if err != nil {
		return 0, false
	}
	status, err := dir.ReadFile("status")
	if err != nil || effectiveUID(string(status)) != uid {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || n == math.MaxUint32 { // not set
		return 0, false
	}
	return int(n), true
}

// isStopped reports whether the process pid of the effective user uid is stopped. See loginUID for the comparison.
func isStopped(pid, uid int) bool {
	if pid <= 0 {
		return false
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	return err == nil && effectiveUID(string(status)) == uid && isStoppedStatus(string(status))
}

// isStoppedStatus reports whether the text of /proc/PID/status says that the process is stopped: "T (stopped)", or
// "t (tracing stop)".
func isStoppedStatus(status string) bool {
	for line := range strings.Lines(status) {
		if state, ok := strings.CutPrefix(line, "State:"); ok {
			return strings.HasPrefix(strings.ToUpper(strings.TrimSpace(state)), "T")
		}
	}
	return false
}

// effectiveUID returns the effective user of a process from /proc/PID/status, or unknownID.
func effectiveUID(status string) int {
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) == 5 && fields[0] == "Uid:" {
			if n, err := strconv.Atoi(fields[2]); err == nil {
				return n
			}
		}
	}
	return unknownID
}
