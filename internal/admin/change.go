package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// serviceResult is the state of one target after a change, for --json.
type serviceResult struct {
	override
	Weight      int    `json:"weight,omitempty"`       // that haup --weight has set, in percent
	EndedWeight int    `json:"ended_weight,omitempty"` // that haup has ended, in percent
	Error       string `json:"error,omitempty"`
}

// change takes targets down or up. With --wait it then waits for the balancers. It tries all targets even if one fails,
// because an operator who empties a host wants the others out all the same.
func (c *command) change(targets []target) int {
	entry := spool.Entry{State: c.opt.state(), Reason: c.opt.reason, Expires: c.opt.expiresAt(c.Now())}
	if c.opt.writesOverride() {
		entry.By = c.by()
	}
	switch {
	case c.opt.forceUp:
		entry.Reason, entry.Expires = c.userName(), time.Time{}
	case c.opt.action == actDown && entry.Reason == "":
		var err error
		if entry.Reason, err = c.defaultReason(); err != nil {
			return c.refuseNonhuman(err)
		}
	}
	if c.opt.writesOverride() && len(entry.Reason) > spool.MaxReason {
		c.errorf("warning: the reason is longer than %d bytes, the rest of it is not kept", spool.MaxReason)
	}
	toWrite := targets
	if c.opt.untilBoot {
		var err error
		if entry.Boot, err = spool.BootID(); err == nil {
			toWrite, err = c.withoutOverride(targets, entry.State)
		}
		if err != nil {
			c.errorf("nothing was changed: %s", c.explainSpoolError(err))
			return ExitFailed
		}
	}
	byDaemon := false
	if c.opt.safe && len(toWrite) > 0 {
		var code int
		if byDaemon, code = c.decideSafe(toWrite); code != ExitOK {
			return code
		}
	}
	if c.opt.setsWeight() {
		if code := c.checkAgents(targets); code != ExitOK {
			return code
		}
	}
	open := c.openToRead
	if c.opt.writesOverride() || c.opt.setsWeight() {
		open = c.openToWrite
	}
	o, err := open()
	if err != nil {
		c.errorf("nothing was changed: %s", c.explainSpoolError(err))
		return ExitFailed
	}
	defer o.close()
	switch {
	case c.opt.wait != 0:
		return c.changeAndWait(o, targets, toWrite, entry, byDaemon)
	case byDaemon:
		return c.takeDownNow(o, toWrite, entry)
	}
	done, code := c.apply(o, toWrite, entry)
	if c.opt.json {
		unchanged := slices.DeleteFunc(slices.Clone(targets), func(t target) bool {
			return slices.ContainsFunc(toWrite, func(w target) bool { return w.key == t.key })
		})
		c.printJSON(changeDocument{c.opt.action, append(done, o.results(unchanged)...)})
	}
	return code
}

// withoutOverride returns the targets that --until-boot may take out: those without an override of an operator. One that was
// set with --until-boot and is weaker than state is replaced. It returns an error if a target is forced up, because then
// the host would not go out.
func (c *command) withoutOverride(targets []target, state spool.State) ([]target, error) {
	o, err := c.openToRead()
	if err != nil {
		return nil, err
	}
	defer o.close()
	var free []target
	o.readAll(func(o overrides) { free, err = c.withoutOverrideIn(o, targets, state) })
	return free, err
}

func (c *command) withoutOverrideIn(o overrides, targets []target, state spool.State) (free []target, _ error) {
	for _, t := range targets {
		e, err := o.read(t)
		switch {
		case err != nil:
			return nil, err
		case e.State == spool.ForceUp:
			return nil, fmt.Errorf("%s is forced up, and --until-boot replaces no override; lift it with %s", t.label, liftCommand(e.Scope, t.label))
		case e.State == spool.Ready, e.Boot != "" && e.State < state:
			free = append(free, t)
		default:
			c.note(fmt.Sprintf("%s is %s already, and stays so: %s", t.label, e.State.Word(), e.ReasonText()))
		}
	}
	return free, nil
}

// changeDocument is the JSON document of haup and hadown.
type changeDocument struct {
	Action   action          `json:"action"`
	Services []serviceResult `json:"services"`
}

// apply writes entry for each target, or lifts the override of each. It prints errors and, for --json, returns the results.
func (c *command) apply(o overrides, targets []target, entry spool.Entry) ([]serviceResult, int) {
	code, failed := ExitOK, 0
	done := []serviceResult{}
	errs := make([]error, len(targets))
	weights, weightsErr := c.weightsToEnd(o)
	batchErr := o.inBatch(func(o overrides) {
		if c.opt.writesOverride() {
			errs = o.write(targets, entry)
			return
		}
		for i, t := range targets {
			if c.opt.setsWeight() {
				errs[i] = o.weigh(t, c.newWeight())
			} else {
				errs[i] = cmp.Or(o.liftFully(t), weightsErr)
			}
		}
	})
	o.readAll(func(o overrides) {
		for i, t := range targets {
			var why string
			if err := cmp.Or(errs[i], batchErr); err != nil {
				code = ExitFailed
				failed++
				why = c.explainSpoolError(err)
				c.errorf("%s: %s; %s", t.label, why, o.stateText(t))
			}
			result := serviceResult{Error: why}
			if w, ok := weights[t.key]; ok && why == "" {
				c.printEnded(t, w)
				result.EndedWeight = w.Percent
			}
			if c.opt.setsWeight() && why == "" {
				result.Weight = c.opt.weight
			}
			if c.opt.json {
				result.override = o.overrideOf(t)
				done = append(done, result)
			}
		}
	})
	if failed == len(targets) { // also without targets
		return done, code
	}
	if !c.opt.writesOverride() {
		for i, h := range c.heldDown(targets) {
			if h.text == "" {
				continue
			}
			code = ExitFailed
			if c.opt.json && done[i].Error == "" {
				o := &done[i].override
				o.State, o.Reason, o.By, o.Scope = stateWord(h.strongest.State), h.strongest.Reason, h.strongest.By, h.strongest.Scope
				done[i].Error = h.text
			}
		}
	}
	if why := c.wrongDirectory(); why != "" {
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

// refuseNonhuman prints that a shared account must give a reason. Scripts for the original tools read the sentence from
// standard output. With --json it goes to standard error.
func (c *command) refuseNonhuman(err error) int {
	if c.opt.json {
		c.errorf("%v", err)
	} else {
		c.printf("%v\n", err)
	}
	return ExitFailed
}

// statesText returns stateText of each target.
func (o overrides) statesText(targets []target) string {
	states := make([]string, len(targets))
	o.readAll(func(o overrides) {
		for i, t := range targets {
			states[i] = o.stateText(t)
		}
	})
	return strings.Join(states, "; ")
}

// stateText returns the state of a target after a failed change. It reads the directory again, because the change may
// have taken effect all the same.
func (o overrides) stateText(t target) string {
	e, err := o.read(t)
	switch {
	case err != nil:
		return "what it is now cannot be read: " + textfmt.OneLine(err.Error())
	case e.State == spool.Ready:
		return t.label + " is up now"
	case e.Reason == "":
		return fmt.Sprintf("%s is %s now", t.label, e.State.Word())
	}
	return fmt.Sprintf("%s is %s now: %s", t.label, e.State.Word(), textfmt.OneLine(e.Reason))
}
