package admin

import (
	"fmt"

	"hacheck/internal/spool"
)

// outcome is what became of one target, for --json.
type outcome struct {
	override
	Error string `json:"error,omitempty"`
}

// change takes targets down or up. All of them are tried: when one fails, an operator who is emptying
// a host wants the others out all the same, and is told what the failed one is now.
func (c *command) change(targets []target) int {
	entry := spool.Entry{State: spool.Down, Reason: c.opt.reason, Expires: c.opt.expires(c.Now())}
	open := c.openToRead
	if c.opt.action == actDown {
		open = c.openToWrite
		if entry.Reason == "" {
			var err error
			if entry.Reason, err = c.defaultReason(); err != nil {
				return c.refuse(err)
			}
		}
		if len(entry.Reason) > spool.MaxReason {
			c.errorf("warning: the reason is longer than %d bytes, the rest of it is not kept", spool.MaxReason)
		}
	}
	o, err := open()
	if err != nil {
		c.errorf("nothing was changed: %s", c.explain(err))
		return ExitFailed
	}
	defer o.close()

	code := ExitOK
	var done []outcome
	for _, t := range targets {
		var err error
		if c.opt.action == actDown {
			entry.Key = t.key
			err = o.dir.Write(entry)
		} else {
			err = o.lift(t)
		}
		var why string
		if err != nil {
			code = ExitFailed
			why = c.explain(err)
			c.errorf("%s: %s; %s", t.label, why, o.now(t))
		}
		if c.opt.json {
			done = append(done, outcome{o.describe(t), why})
		}
	}
	if c.opt.json {
		c.document(struct {
			Action   action    `json:"action"`
			Services []outcome `json:"services"`
		}{c.opt.action, done})
	}
	return code
}

// refuse tells a shared account to give a reason: on standard output, where scripts written for the
// original look for the sentence, unless a JSON document is expected there.
func (c *command) refuse(err error) int {
	if c.opt.json {
		c.errorf("%v", err)
	} else {
		c.printf("%v\n", err)
	}
	return ExitFailed
}

// now says what a target is after a change to it has failed. It reads the directory again, because
// the change may have arrived all the same.
func (o overrides) now(t target) string {
	e, err := o.read(t)
	switch {
	case err != nil:
		return "what it is now cannot be read: " + clean(err.Error())
	case e.State == spool.Ready:
		return t.label + " is up now"
	case e.Reason == "":
		return fmt.Sprintf("%s is %s now", t.label, word(e.State))
	}
	return fmt.Sprintf("%s is %s now: %s", t.label, word(e.State), clean(e.Reason))
}
