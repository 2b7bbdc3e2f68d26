package admin

import (
	"errors"
	"time"
)

// safeFor is how long --safe listens for every balancer to ask.
const safeFor = 10 * time.Second

// askSafe returns ExitOK when the targets may go down, and otherwise says why they may not and returns the
// exit code. Nothing has been written then.
func (c *command) askSafe(targets []target) int {
	w := &waitOn{command: c, watcher: newWatcher(targets, false, c.opt.fall), began: time.Now()}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for answered := false; ; <-tick.C {
		a := w.ask()
		over := w.since() >= safeFor
		if a.err != nil {
			if answered && !over && !errors.Is(a.err, errNoBalancers) {
				continue // it is being started anew, perhaps
			}
			return c.unsafe("not known", ExitNotAsked, c.unreachable(a.err), w.since())
		}
		answered = true
		objection, missing := judgeSafe(targets, a.report, a.asked)
		switch {
		case objection != "":
			return c.unsafe("refused", ExitFailed, objection, w.since())
		case missing == "":
			return ExitOK
		case over:
			return c.unsafe("refused", ExitFailed, missing, w.since())
		}
	}
}

// unsafe says why nothing was done.
func (c *command) unsafe(result string, code int, why string, after time.Duration) int {
	why = "nothing was changed: " + why
	c.errorf("%s", why)
	switch {
	case c.opt.json && c.opt.wait != 0:
		c.document(endEvent{"end", float64(after.Milliseconds()) / 1000, result, code, []string{}, why})
	case c.opt.json:
		c.document(struct {
			changed
			Error string `json:"error"`
		}{changed{c.opt.action, []outcome{}}, why})
	}
	return code
}
