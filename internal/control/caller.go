package control

import (
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// Caller is the process at the other end of a connection, as the kernel knows it.
type Caller struct {
	UID int    // effective user; unknownID if the kernel does not tell
	By  string // name of the login user if one is known (also under sudo), else of UID; "uid N" without a name
	PID int    // unknownID if the kernel does not tell
}

// unknownID is the UID or the PID of a caller whom the kernel does not tell. Such a caller is no operator.
const unknownID = -1

// maxBy is the longest name of a user that Caller.By shows, in bytes.
const maxBy = 64

// callerOf returns the process that has opened conn. The kernel has recorded it when the process connected.
func callerOf(conn *net.UnixConn) Caller {
	uid, pid, err := peer(conn)
	if err != nil {
		return Caller{UID: unknownID, PID: unknownID, By: "unknown"}
	}
	by := uid
	if login, ok := loginUID(pid, uid); ok {
		by = login
	}
	return Caller{UID: uid, PID: pid, By: userName(by)}
}

// userName returns the name of a user, or "uid N" if there is none that can be shown.
func userName(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	isPlain := func(r rune) bool { return r > ' ' && r < 0x7f }
	if err != nil || u.Username == "" || len(u.Username) > maxBy ||
		strings.ContainsFunc(u.Username, func(r rune) bool { return !isPlain(r) }) {
		return "uid " + strconv.Itoa(uid)
	}
	return u.Username
}

// IsStopped reports whether the process is stopped by a signal (SIGSTOP, ^Z) or by a debugger. It returns false where the
// kernel does not tell, and when the process has ended.
func (c Caller) IsStopped() bool { return isStopped(c.PID, c.UID) }

// IsOperator reports whether c is root or a member of one of the groups, by the user database of this machine: the
// primary group or a supplementary one. A group that does not exist has no members.
func (c Caller) IsOperator(groups []string) bool {
	if c.UID == 0 {
		return true
	}
	if c.UID < 0 || len(groups) == 0 {
		return false
	}
	u, err := user.LookupId(strconv.Itoa(c.UID))
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(groups, func(name string) bool {
		g, err := user.LookupGroup(name)
		return err == nil && (g.Gid == u.Gid || slices.Contains(ids, g.Gid))
	})
}
