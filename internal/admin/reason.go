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

// errNonhuman is the original's sentence for a shared account that gives no reason.
var errNonhuman = errors.New("please use --reason option to tell us who you REALLY are")

// defaultReason is who took a service down, when why is not said. It is errNonhuman when the answer
// is an account that nobody in particular uses.
func (c *command) defaultReason() (string, error) {
	who := c.who()
	human := true
	err := eachLine(c.Nonhumans, func(line string) bool {
		name, _, _ := strings.Cut(line, "#")
		human = strings.TrimSpace(name) != who
		return human
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// The list guards good manners, not the host: it must not stand in the way of an emergency.
		c.errorf("warning: read %s: %v; taking %s for a person", c.Nonhumans, err, who)
	}
	if !human {
		return "", errNonhuman
	}
	return who, nil
}

// who is the person at the keyboard: the one behind sudo or ssh if they say so, else the user the
// command runs as, by name if the user database has one. The file is read here because os/user asks
// the C library, which a static program has not, and refuses a user without an entry, such as the
// ones of containers.
func (c *command) who() string {
	for _, name := range []string{"SUDO_USER", "SSH_USER"} {
		if v := strings.TrimSpace(c.Getenv(name)); v != "" {
			return v
		}
	}
	uid := strconv.Itoa(c.UID)
	who := uid
	// An error leaves the number, which is what the file could not improve on.
	_ = eachLine(c.Passwd, func(line string) bool {
		field := strings.SplitN(line, ":", 4) // name:password:uid:...
		if len(field) == 4 && field[2] == uid && field[0] != "" {
			who = field[0]
			return false
		}
		return true
	})
	return who
}

// eachLine calls f with each line of a file until f says that it has seen enough. Lines beyond the
// first megabyte are not looked at.
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
