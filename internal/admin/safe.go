package admin

import (
	"errors"
	"time"

	"hacheck/internal/admin/wait"
)

// checkSafe returns ExitOK if the targets may go down. Otherwise it prints why they may not and returns the exit code;
// nothing has been written then.
func (c *command) checkSafe(targets []target) int {
	start := time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for hasAnswered := false; ; <-tick.C {
		p := c.poll(targets, start, requestTimeout)
		isOver := time.Since(start) >= wait.SafeTimeout
		if p.err != nil {
			if hasAnswered && !isOver && !errors.Is(p.err, errNoBalancers) {
				continue // the daemon may be restarting
			}
			return c.refuseUnsafe("not known", ExitDaemonUnavailable, c.unreachableText(p.err), start)
		}
		hasAnswered = true
		result := wait.CheckSafe(waitTargets(targets), p.report, p.requested, nil)
		switch {
		case result.Safety == wait.Safe:
			return ExitOK
		case result.Safety == wait.Unsafe || isOver:
			return c.refuseUnsafe("refused", ExitFailed, result.Reason, start)
		}
	}
}

// refuseUnsafe prints why --safe has changed nothing and returns code.
func (c *command) refuseUnsafe(result string, code int, why string, start time.Time) int {
	return c.endUnsafe(result, code, "nothing was changed: "+why, start)
}

// endUnsafe ends hadown --safe without a change: it prints why and returns code.
func (c *command) endUnsafe(result string, code int, why string, start time.Time) int {
	c.errorf("%s", why)
	switch {
	case c.opt.json && c.opt.wait != 0:
		c.printJSON(endEvent{"end", afterSeconds(time.Since(start)), result, code, []string{}, why})
	case c.opt.json:
		c.printJSON(struct {
			changeDocument
			Error string `json:"error"`
		}{changeDocument{c.opt.action, []serviceResult{}}, why})
	}
	return code
}
