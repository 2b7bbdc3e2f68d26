package admin

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// errNonhuman has the sentence of the original tools for a shared account without a reason.
var errNonhuman = errors.New("please use --reason option to tell us who you REALLY are")

// defaultReason returns the user name, for hadown without --reason. It returns errNonhuman for a shared account.
func (c *command) defaultReason() (string, error) {
	who := c.userName()
	human := true
	err := eachLine(c.Nonhumans, func(line string) bool {
		name, _, _ := strings.Cut(line, "#")
		human = strings.TrimSpace(name) != who
		return human
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// In an emergency an unreadable list must not keep hadown from working.
		c.errorf("warning: read %s: %v; taking %s for a person", c.Nonhumans, err, who)
	}
	if !human {
		return "", errNonhuman
	}
	return who, nil
}

// userName returns the user behind sudo or ssh if they set a variable, else the name or the number of the effective
// user. It reads the user database itself: os/user needs the C library for that or fails for a user without an entry,
// which is common in containers.
func (c *command) userName() string {
	for _, name := range []string{"SUDO_USER", "SSH_USER"} {
		if v := strings.TrimSpace(c.Getenv(name)); v != "" {
			return v
		}
	}
	uid := strconv.Itoa(c.UID)
	if user := c.passwdEntry(func(field []string) bool { return field[2] == uid && field[0] != "" }); user != nil {
		return user[0]
	}
	return uid
}

// loginUIDFile has the user id of the login session to which this process belongs. sudo and su do not change it.
const loginUIDFile = "/proc/self/loginuid"

// unsetUID is the user id of no user: -1 in the 32 bits of the kernel.
const unsetUID = 1<<32 - 1

// loginUID returns the user id in file. If there is none, as for a service or without audit support in the kernel, it
// returns the real user id. Of root it is sudoUID, the value of $SUDO_UID, if that is a user id: sudo sets it for root, and
// another user cannot thereby take the name of a third.
func loginUID(file string, realUID int, sudoUID string) int {
	if text, err := os.ReadFile(file); err == nil {
		if uid, ok := parseUID(strings.TrimSpace(string(text))); ok {
			return uid
		}
	}
	if uid, ok := parseUID(sudoUID); ok && realUID == 0 {
		return uid
	}
	return realUID
}

// parseUID reads a user id. It returns false for text that is none, and for unsetUID.
func parseUID(s string) (int, bool) {
	uid, err := strconv.ParseUint(s, 10, 32)
	return int(uid), err == nil && uid != unsetUID
}

// by returns who runs the command, for the override that it writes: the name of Env.LoginUID, or "uid N" without one.
// Unlike in userName, no name in an environment variable counts.
func (c *command) by() string {
	uid := strconv.Itoa(c.LoginUID)
	if user := c.passwdEntry(func(field []string) bool { return field[2] == uid && field[0] != "" }); user != nil {
		return user[0]
	}
	return "uid " + uid
}

// passwdEntry returns the fields of the first user (name:password:uid:gid:...) for which match returns true. It returns
// nil if there is none or the user database cannot be read.
func (c *command) passwdEntry(match func(field []string) bool) (found []string) {
	_ = eachLine(c.Passwd, func(line string) bool {
		if field := strings.Split(line, ":"); len(field) >= 4 && match(field) {
			found = field
		}
		return found == nil
	})
	return found
}

// eachLine calls f with each line of the first megabyte of a file until f returns false.
func eachLine(path string, f func(line string) bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(io.LimitReader(file, 1<<20))
	for lines.Scan() {
		if !f(lines.Text()) {
			return nil
		}
	}
	return lines.Err()
}
