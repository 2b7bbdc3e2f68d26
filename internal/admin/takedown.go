package admin

import (
	"context"
	"errors"
	"os"
	"time"

	"hacheck/internal/control"
	"hacheck/internal/spool"
)

// decideSafe decides who does `hadown --safe`: the daemon if it has a fleet, else the command. In the second case it
// asks the balancers as well. code is not ExitOK if the targets must not be changed; decideSafe has printed why.
func (c *command) decideSafe(targets []target) (byDaemon bool, code int) {
	start := time.Now()
	// This request changes nothing. Its answer says whether the daemon has a fleet.
	e, err := c.ask(context.Background(), control.Request{Op: control.OpHeldDown, Services: names(targets)}, answerTime, nil)
	switch {
	case errors.Is(err, control.ErrNoSocket), err == nil && e.NoFleet:
		if c.opt.fleet.waitTurn != 0 {
			f := c.newFailure(e, err)
			return false, c.refuseUnsafe(f.result, f.code, "--wait-turn needs a fleet: "+f.text, start)
		}
		return false, c.checkSafe(targets)
	case err != nil:
		// There may be a fleet, so the command must not decide without it.
		f := c.newFailure(e, err)
		return false, c.refuseUnsafe(f.result, f.code, f.text, start)
	}
	if why := c.wrongDirectory(); why != "" {
		return false, c.refuseUnsafe("failed", ExitFailed, why, start)
	}
	return true, ExitOK
}

// takeDown has the daemon do the whole of `hadown --safe`: permit, balancers and override. The open connection is the
// claim: when a signal or the end of this process closes it, the daemon withdraws the claim. takeDown returns ExitOK
// when the override is written. Otherwise it prints why and returns the exit code.
func (c *command) takeDown(o overrides, targets []target, entry spool.Entry, signals chan os.Signal, note func(string)) int {
	start := time.Now()
	r := control.Request{
		Op: control.OpTakeDown, Services: names(targets), State: entry.State.String(), Reason: entry.Reason,
		Expires: expiresOf(entry), UntilBoot: entry.Boot != "", WaitTurn: c.opt.fleet.waitTurn.Seconds(),
	}
	e, err := c.askUntilSignal(signals, r, c.opt.fleet.waitTurn+takedownTime, note)
	f := c.newFailure(e, err)
	switch {
	case f == nil:
		o.removeAllAliases(targets)
		if c.isOld(e) && o.anyLifted(targets) {
			return c.endUnsafe("failed", ExitFailed, "the override was written, and lifted by another command before this one went on; "+o.statesText(targets), start)
		}
		return ExitOK
	case !f.unknown:
		return c.refuseUnsafe(f.result, f.code, f.text, start)
	}
	why := "the claim was withdrawn: "
	if f.result != "interrupted" {
		why = "it is not known whether the change was made: "
	}
	return c.endUnsafe(f.result, f.code, why+f.text+"; "+o.statesText(targets), start)
}

// oldAnswer is the age from which an answer of the daemon may not be true any more.
const oldAnswer = 2 * time.Second

// isOld reports whether e has waited for this command, which was stopped (SIGSTOP, ^Z) meanwhile.
func (c *command) isOld(e control.Event) bool {
	return !e.WrittenAt.IsZero() && c.Now().Sub(e.WrittenAt) > oldAnswer
}

// anyLifted reports whether a target is not out any more.
func (o overrides) anyLifted(targets []target) bool {
	for _, t := range targets {
		if e, err := o.read(t); err == nil && !e.State.TakesOut() {
			return true
		}
	}
	return false
}

// removeAllAliases removes the overrides of the other keys of targets, because a stronger one would stay in force. An
// error leaves the target down.
func (o overrides) removeAllAliases(targets []target) {
	if o.dir == nil {
		return
	}
	_ = o.inBatch(func(o overrides) {
		for _, t := range targets {
			_ = o.removeAliases(t)
		}
	})
}

// results returns the override of each target, for --json.
func (o overrides) results(targets []target) []serviceResult {
	list := make([]serviceResult, len(targets))
	o.readAll(func(o overrides) {
		for i, t := range targets {
			list[i] = serviceResult{override: o.overrideOf(t)}
		}
	})
	return list
}

// takeDownNow is takeDown without --wait.
func (c *command) takeDownNow(o overrides, targets []target, entry spool.Entry) int {
	signals, stop := notifySignals()
	defer stop()
	if code := c.takeDown(o, targets, entry, signals, c.note); code != ExitOK {
		return code
	}
	if c.opt.json {
		c.printJSON(changeDocument{c.opt.action, o.results(targets)})
	}
	return ExitOK
}
