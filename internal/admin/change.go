package admin

import (
	"fmt"
	"time"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// outcome is what became of one target, for --json.
type outcome struct {
	override
	Error string `json:"error,omitempty"`
}

// change takes targets down or up, and waits for the balancers if it is to. All are tried: when one fails,
// an operator who is emptying a host wants the others out all the same, and is told what the failed one is
// now.
func (c *command) change(targets []target) int {
	entry := spool.Entry{State: c.opt.state(), Reason: c.opt.reason, Expires: c.opt.expires(c.Now())}
	switch {
	case c.opt.forceUp:
		entry.Reason, entry.Expires = c.who(), time.Time{}
	case c.opt.action == actDown && entry.Reason == "":
		var err error
		if entry.Reason, err = c.defaultReason(); err != nil {
			return c.refuse(err)
		}
	}
	if c.opt.writes() && len(entry.Reason) > spool.MaxReason {
		c.errorf("warning: the reason is longer than %d bytes, the rest of it is not kept", spool.MaxReason)
	}
	if c.opt.safe {
		if code := c.checkSafe(targets); code != ExitOK {
			return code
		}
	}
	open := c.openToRead
	if c.opt.writes() {
		open = c.openToWrite
	}
	o, err := open()
	if err != nil {
		c.errorf("nothing was changed: %s", c.explain(err))
		return ExitFailed
	}
	defer o.close()
	if c.opt.wait != 0 {
		return c.changeAndWait(o, targets, entry)
	}
	done, code := c.apply(o, targets, entry)
	if c.opt.json {
		c.document(changed{c.opt.action, done})
	}
	return code
}

// changed is what haup and hadown say in JSON.
type changed struct {
	Action   action    `json:"action"`
	Services []outcome `json:"services"`
}

// apply writes entry for each target, or lifts what is said of it, and tells what became of each.
func (c *command) apply(o overrides, targets []target, entry spool.Entry) ([]outcome, int) {
	code, failed := ExitOK, 0
	var done []outcome
	for _, t := range targets {
		var err error
		if c.opt.writes() {
			entry.Key = t.key
			err = o.write(t, entry)
		} else {
			err = o.lift(t)
		}
		var why string
		if err != nil {
			code = ExitFailed
			failed++
			why = c.explain(err)
			c.errorf("%s: %s; %s", t.label, why, o.stateText(t))
		}
		if c.opt.json {
			done = append(done, outcome{o.describe(t), why})
		}
	}
	if failed == len(targets) {
		return done, code
	}
	if why := c.notObeyed(); why != "" {
		code = ExitFailed
		c.errorf("%s", why)
		for i := range done {
			if done[i].Error == "" {
				done[i].Error = why
			}
		}
	}
	return done, code
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

// stateText says what a target is after a change to it has failed. It reads the directory again, because
// the change may have arrived all the same.
func (o overrides) stateText(t target) string {
	e, err := o.read(t)
	switch {
	case err != nil:
		return "what it is now cannot be read: " + textfmt.OneLine(err.Error())
	case e.State == spool.Ready:
		return t.label + " is up now"
	case e.Reason == "":
		return fmt.Sprintf("%s is %s now", t.label, word(e.State))
	}
	return fmt.Sprintf("%s is %s now: %s", t.label, word(e.State), textfmt.OneLine(e.Reason))
}
