package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// home asks the daemon which spool directory it reads. The answer is nil, without an error, when there is no
// daemon, or one that does not say: an older one, something else, or one on another machine.
func (d daemon) home() (*spool.DirectoryStatus, error) {
	if d.none() {
		return nil, nil
	}
	body, err := d.getWithin("/status/spool", homeTimeout)
	if err != nil && !saysNothing(err) {
		return nil, err
	}
	h := &spool.DirectoryStatus{}
	if json.Unmarshal(body, h) != nil || h.Directory == "" { // also what is no JSON, and no answer at all
		h = nil
	}
	return h, nil
}

// saysNothing reports whether err means that no daemon is there, or none that knows the question.
func saysNothing(err error) bool {
	var refused *refusal
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &refused) || errors.Is(err, errNotHTTP)
}

// notObeyed asks the daemon whether it reads the directory that the command works on, and says why not; "" when
// it does, when there is none to ask, or when it cannot be asked, which is a warning.
func (c *command) notObeyed() string {
	h, err := c.opt.daemon.home()
	if err != nil {
		c.errorf("warning: whether the daemon on %s obeys is not known: %s", c.opt.daemon, textfmt.OneLine(err.Error()))
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
			c.errorf("warning: the daemon on %s still obeys overrides of a directory that was at %s before something was mounted or unmounted there: mount that one again, or lift them with haup", c.opt.daemon, theirs)
		}
		return ""
	case !h.Read && (same || ours == theirs):
		return fmt.Sprintf("the daemon on %s cannot read %s and obeys the overrides that it knew before: %s; let its user read the directory, or make it again with the owner it had",
			c.opt.daemon, ours, textfmt.OneLine(h.Error))
	case ours == theirs:
		return fmt.Sprintf("the daemon on %s reads another directory that is %s in its own view of the file system, and does not obey what is in this one; run the command where the daemon runs, or move the spool out of /tmp and the like",
			c.opt.daemon, ours)
	default:
		return fmt.Sprintf("the daemon on %s reads %s, and does not obey what is in %s; name the right one with --spool-root, another daemon with -p, or none with -p ''",
			c.opt.daemon, theirs, ours)
	}
}

// warnNotObeyed is notObeyed for a command that only looks.
func (c *command) warnNotObeyed() {
	if why := c.notObeyed(); why != "" {
		c.errorf("warning: %s", why)
	}
}
