package admin

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"hacheck/internal/admin/wait"
	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

const (
	pollInterval = 250 * time.Millisecond // between two requests to the daemon
	// maxDaemonAway is how long a daemon that has answered before may be away: a restart, or an upgrade.
	maxDaemonAway = 10 * time.Second
	// nearestNameTimeout is the time limit of the request for the names that balancers ask about.
	nearestNameTimeout = time.Second
	// pollsPerRecheck is how many polls pass between two checks that the override is still what the command wrote.
	pollsPerRecheck = 4
)

// waitRun is one run of --wait.
type waitRun struct {
	*command
	tracker   *wait.Tracker
	progress  *progress
	targets   []target
	overrides overrides
	start     time.Time
	signals   chan os.Signal

	finalEntry   *spool.Entry // to write when all balancers have followed; nil for none
	finalTargets []target     // of finalEntry

	// superseded returns why there is nothing to wait for any more, "" if there is. states says what the targets are.
	superseded func() string
	states     func() string

	hasAnswered           bool          // the daemon has answered a poll
	hasAnsweredSinceWrite bool          // it has answered one that began after the change
	lastAnswer            time.Duration // when it last did, or when the wait began
	unlimited             time.Duration // how long the change took that --wait does not limit
	polls                 int
}

// newWaitRun begins a run and catches signals. The caller must call stop.
func (c *command) newWaitRun(o overrides, targets []target) (w *waitRun, stop func()) {
	goal := wait.Out
	if c.opt.action == actUp {
		goal = wait.Up
	}
	w = &waitRun{
		command: c, tracker: wait.NewTracker(waitTargets(targets), goal, c.opt.fall),
		targets: targets, overrides: o, start: time.Now(),
	}
	if c.opt.connections {
		w.tracker.WaitForConnections()
	}
	w.superseded = w.supersededInSpool
	w.states = func() string { return o.statesText(targets) }
	w.progress = newProgress(c, w.tracker, goal, w.start)
	w.signals, stop = notifySignals()
	return w, stop
}

// elapsed is the clock of the tracker.
func (w *waitRun) elapsed() time.Duration { return time.Since(w.start) }

// observeBefore finds the balancers that are silent before the change.
func (w *waitRun) observeBefore() {
	// The other half is for the change and the wait, so that a daemon that hangs does not double the time.
	p := w.poll(w.targets, w.start, min(requestTimeout, w.opt.wait/2))
	if w.hasAnswered = p.err == nil; w.hasAnswered {
		w.tracker.Observe(p.report, p.requested, p.received)
	}
}

// setWritten begins the wait: the change is in force.
func (w *waitRun) setWritten() {
	w.progress.written = w.elapsed()
	w.tracker.SetWritten(w.progress.written)
	w.lastAnswer = w.elapsed()
}

// changeAndWait takes targets down or up and returns when the balancers have followed. byDaemon is for --safe: the daemon
// makes the change. It writes only toWrite; the other targets are out already.
func (c *command) changeAndWait(o overrides, targets, toWrite []target, entry spool.Entry, byDaemon bool) int {
	w, stop := c.newWaitRun(o, targets)
	defer stop()
	w.observeBefore()
	if entry.State == spool.Maint {
		maint := entry
		w.finalEntry, w.finalTargets = &maint, toWrite
		entry.State = spool.Drain
		// A drain would let new sessions in where the target is down or in maintenance already.
		toWrite = slices.DeleteFunc(slices.Clone(toWrite), func(t target) bool {
			e, err := o.read(t)
			return err == nil && e.State >= spool.Down
		})
	}
	if byDaemon && len(toWrite) > 0 {
		code := w.unlimitedChange(func() int { return c.takeDown(o, toWrite, entry, w.signals, w.note) })
		if code != ExitOK {
			return code
		}
		w.printWritten(o.results(toWrite))
	} else if code := w.write(toWrite, entry); code != ExitOK {
		return w.progress.fail("failed", code, "not every service could be changed, so the command does not wait")
	}
	w.setWritten()
	return w.wait()
}

// unlimitedChange runs a change that may take longer than --wait: its time does not count.
func (w *waitRun) unlimitedChange(change func() int) int {
	began := w.elapsed()
	code := change()
	w.unlimited += w.elapsed() - began
	return code
}

// note prints the progress of the change: an event with --json, else a line on standard error.
func (w *waitRun) note(text string) {
	if w.opt.json {
		w.progress.event(noteEvent{"note", w.progress.after(), text})
		return
	}
	w.command.note(text)
}

func waitTargets(targets []target) []wait.Target {
	list := make([]wait.Target, len(targets))
	for i, t := range targets {
		list[i] = wait.Target{Key: t.key, Label: t.label}
	}
	return list
}

// write is apply with a JSON event.
func (w *waitRun) write(targets []target, entry spool.Entry) int {
	done, code := w.apply(w.overrides, targets, entry)
	w.printWritten(done)
	return code
}

func (w *waitRun) printWritten(done []serviceResult) {
	if w.opt.json {
		w.progress.event(writtenEvent{"written", w.progress.after(), changeDocument{w.opt.action, done}})
	}
}

// pollResult is the answer of the daemon. requested and received are durations since the command began.
type pollResult struct {
	report              *balancer.Report
	err                 error
	requested, received time.Duration
}

// poll asks the daemon about the balancers of the targets.
func (c *command) poll(targets []target, start time.Time, timeout time.Duration) pollResult {
	service := targets[0].key.Service
	for _, t := range targets {
		if t.key.Service != service {
			service = spool.All
		}
	}
	p := pollResult{requested: time.Since(start)}
	p.report, p.err = c.opt.daemon.connections(service, timeout)
	p.received = time.Since(start)
	return p
}

// wait polls until the balancers have followed and returns the exit code.
func (w *waitRun) wait() int {
	defer w.progress.clear()
	// The time of the command before the wait counts, so that a daemon that hangs does not prolong the command.
	limit := time.NewTimer(w.opt.wait - (w.elapsed() - w.unlimited))
	defer limit.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	results := make(chan pollResult, 1) // so that the goroutine of the last poll never blocks
	isPolling := false
	startPoll := func() {
		if !isPolling {
			isPolling = true
			go func() { results <- w.poll(w.targets, w.start, requestTimeout) }()
		}
	}
	startPoll()
	for {
		select {
		case sig := <-w.signals:
			return w.interrupted(sig)
		case <-limit.C:
			return w.timeIsUp()
		case p := <-results:
			isPolling = false
			if code, isOver := w.handle(p); isOver {
				return code
			}
		case <-tick.C:
			w.progress.draw()
			startPoll()
		}
	}
}

// handle takes in the result of a poll. It returns the exit code if the wait is over.
func (w *waitRun) handle(p pollResult) (code int, isOver bool) {
	switch {
	case p.err == nil:
		w.hasAnswered, w.hasAnsweredSinceWrite, w.lastAnswer = true, true, p.received
		w.tracker.Observe(p.report, p.requested, p.received)
		w.progress.update()
	case !w.hasAnswered || errors.Is(p.err, errNoBalancers) || w.elapsed()-w.lastAnswer >= maxDaemonAway:
		return w.unavailable(p.err), true
	default:
		w.progress.daemonAway(p.err)
	}
	switch w.tracker.Decide() {
	case wait.Done:
		return w.finish(), true
	case wait.Lost:
		return w.failed("lost", ExitWaitIncomplete, "a balancer is silent for too long"+w.tracker.PendingText()), true
	case wait.Waiting, wait.Silent:
	}
	if w.polls++; w.polls%pollsPerRecheck == 0 {
		if why := w.superseded(); why != "" {
			return w.failed("overtaken", ExitFailed, why), true
		}
	}
	return 0, false
}

// timeIsUp ends the wait because its time limit has passed. A daemon that has not answered since the change has not said
// what is open.
func (w *waitRun) timeIsUp() int {
	if !w.hasAnsweredSinceWrite {
		return w.unavailable(&timeoutError{w.opt.wait})
	}
	return w.failed("time is up", ExitWaitIncomplete, fmt.Sprintf("time is up after %s%s", textfmt.Duration(w.opt.wait), w.tracker.PendingText()))
}

// unavailable ends the wait because the daemon cannot be asked.
func (w *waitRun) unavailable(err error) int {
	return w.failed("not known", ExitDaemonUnavailable, "cannot read the balancers' server states: "+w.unreachableText(err))
}

// finish writes the final entry and returns the exit code.
func (w *waitRun) finish() int {
	if unknown := w.tracker.Unknown(); len(unknown) > 0 && !w.opt.allowUnknown {
		return w.failed("unknown", ExitUnknown, w.unknownText(unknown))
	}
	if w.finalEntry != nil {
		w.progress.clear()
		if code := w.writeFinalEntry(); code != ExitOK {
			return w.progress.fail("failed", code, "every balancer has taken it out, but maint could not be written")
		}
	}
	return w.progress.succeed(w.targets)
}

// writeFinalEntry writes the final entry. With --until-boot an override that an operator has set during the wait stays.
func (w *waitRun) writeFinalEntry() int {
	targets := w.finalTargets
	if w.opt.untilBoot {
		var err error
		if targets, err = w.withoutOverride(targets, w.finalEntry.State); err != nil {
			w.errorf("%s", w.explainSpoolError(err))
			return ExitFailed
		}
	}
	return w.write(targets, *w.finalEntry)
}

// unknownText says that no balancer asks about targets, with the most similar names that balancers ask about.
func (w *waitRun) unknownText(targets []wait.Target) string {
	// The reports of the wait may be about one service. A name is only a hint, so an error does not matter.
	all, err := w.opt.daemon.balancers(spool.All, min(nearestNameTimeout, max(w.opt.wait-w.elapsed(), pollInterval)))
	texts := make([]string, len(targets))
	for i, t := range targets {
		texts[i] = fmt.Sprintf("%s: no balancer has asked about it for %s", t.Label, textfmt.Duration(balancer.LearnTime))
		if err != nil {
			continue
		}
		if name := wait.NearestName(t, all); name != "" {
			texts[i] += fmt.Sprintf(", did you mean %s?", textfmt.OneLine(name))
		}
	}
	return strings.Join(texts, "; ") + "; for a host that no balancer asks yet, add --allow-unknown"
}

// interrupted ends the wait because of a signal. The override stays.
func (w *waitRun) interrupted(sig os.Signal) int {
	code, name := ExitFailed, sig.String()
	if n, ok := sig.(syscall.Signal); ok {
		code = exitSignal + int(n)
	}
	return w.failed("interrupted", code, name+w.tracker.PendingText())
}

// failed ends the wait. It prints why and the state of each target.
func (w *waitRun) failed(result string, code int, why string) int {
	why += "; " + w.states()
	if w.finalEntry != nil && result != "overtaken" {
		why += "; maint was not written"
	}
	return w.progress.fail(result, code, why)
}

// supersededInSpool is superseded for overrides of the spool: another command has changed the override, or a wider one.
// An override that cannot be read counts as unchanged.
func (w *waitRun) supersededInSpool() (why string) {
	w.overrides.readAll(func(o overrides) { why = w.supersededIn(o) })
	return why
}

func (w *waitRun) supersededIn(o overrides) string {
	for _, t := range w.targets {
		e, err := o.read(t)
		if err != nil {
			continue
		}
		isUp := w.opt.action == actUp
		switch {
		case !isUp && !e.State.TakesOut():
			return t.label + " was lifted meanwhile, or its time is over"
		case isUp && e.State.TakesOut():
			return t.label + " was taken down again meanwhile"
		case isUp:
			for _, k := range t.key.Above() {
				if e, err := o.read(target{key: k}); err == nil && e.State.TakesOut() {
					return fmt.Sprintf("%s is %s, and with it %s; lift it with haup %s", k.Service, e.State.Word(), t.label, k.Service)
				}
			}
		}
	}
	return ""
}
