package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// directoryStatus asks the daemon which spool directory it reads. It returns nil without an error if there is no daemon
// or if it does not tell: an older one, another program, or one on another machine.
func (d daemonAddr) directoryStatus(timeout time.Duration) (*spool.DirectoryStatus, error) {
	if d.isNone() {
		return nil, nil
	}
	body, err := d.getWithTimeout("/status/spool", timeout)
	if err != nil && !isNoAnswer(err) {
		return nil, err
	}
	h := &spool.DirectoryStatus{}
	if json.Unmarshal(body, h) != nil || h.Directory == "" { // also if body is empty or not JSON
		h = nil
	}
	return h, nil
}

// isNoAnswer reports whether err means that there is no daemon, or one that does not have the page.
func isNoAnswer(err error) bool {
	var refused *statusError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &refused) || errors.Is(err, errNotHTTP)
}

// wrongDirectory returns why the daemon does not obey the overrides in the directory of the command. It returns "" if it
// does or if there is no daemon. If the daemon cannot be asked it prints a warning and returns "".
func (c *command) wrongDirectory() string {
	h, err := c.opt.daemon.directoryStatus(c.withinWait(directoryTimeout))
	if err != nil {
		c.errorf("warning: it is not known whether the daemon on %s obeys this: %s", c.opt.daemon, textfmt.OneLine(err.Error()))
		return ""
	}
	if h == nil {
		return ""
	}
	ours, err := filepath.Abs(c.opt.spoolRoot)
	if err != nil {
		ours = c.opt.spoolRoot
	}
	device, inode, err := spool.DirectoryID(ours)
	same := err == nil && device == h.Device && inode == h.Inode
	ours, theirs := textfmt.OneLine(ours), textfmt.OneLine(h.Directory)
	switch {
	case same && h.Read:
		if h.Lost {
			c.errorf("warning: the daemon on %s still obeys the overrides of the directory that was at %s before a mount or an unmount: mount that directory again, or lift the overrides with haup", c.opt.daemon, theirs)
		}
		return ""
	case !h.Read && (same || ours == theirs):
		return fmt.Sprintf("the daemon on %s cannot read %s and obeys the overrides that it knew before: %s; let its user read the directory, or create it again with its former owner",
			c.opt.daemon, ours, textfmt.OneLine(h.Error))
	case ours == theirs:
		return fmt.Sprintf("the daemon on %s reads another directory that is %s in its own view of the file system, and does not obey what is in this one; run the command where the daemon runs, or move the spool out of /tmp and the like",
			c.opt.daemon, ours)
	default:
		return fmt.Sprintf("the daemon on %s reads %s, and does not obey what is in %s; name the right one with --spool-root, another daemon with -p, or none with -p ''",
			c.opt.daemon, theirs, ours)
	}
}

// withinWait returns a timeout that leaves most of the time of --wait for the other requests of the command.
func (c *command) withinWait(timeout time.Duration) time.Duration {
	if c.opt.wait == 0 {
		return timeout
	}
	return min(timeout, c.opt.wait/4)
}

// warnWrongDirectory prints wrongDirectory as a warning, for a command that changes nothing.
func (c *command) warnWrongDirectory() {
	if why := c.wrongDirectory(); why != "" {
		c.errorf("warning: %s", why)
	}
}
