package admin

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"hacheck/internal/control"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// scopeDocument is the JSON document of haup and hadown with --group, --host or --fleet.
type scopeDocument struct {
	Action   action          `json:"action"`
	Scopes   []string        `json:"scopes"`
	Services []override      `json:"services"` // what was set; empty if nothing was changed
	Impact   []report.Impact `json:"impact,omitempty"`
	report.Outcome
	Error string `json:"error,omitempty"`
}

// scopeChange is one run of haup or hadown for many hosts.
type scopeChange struct {
	*command
	targets []target
	entry   spool.Entry // without its key
	scopes  []string
	doc     scopeDocument

	signals chan os.Signal
	note    func(text string)
}

// changeScope sets or lifts the overrides of the scopes on the command line. With --wait it then waits for the
// balancers of this host.
func (c *command) changeScope(targets []target) int {
	s := &scopeChange{command: c, targets: targets, scopes: c.opt.fleet.scopes(), note: c.note}
	s.doc = scopeDocument{Action: c.opt.action, Scopes: s.scopes, Services: []override{}}
	s.entry = spool.Entry{State: c.opt.state(), Reason: c.opt.reason, Expires: c.opt.expiresAt(c.Now())}
	if c.opt.action == actDown && s.entry.Reason == "" {
		var err error
		if s.entry.Reason, err = c.defaultReason(); err != nil {
			return c.refuseNonhuman(err)
		}
	}
	if c.opt.wait != 0 {
		return s.changeAndWait()
	}
	var stop func()
	s.signals, stop = notifySignals()
	defer stop()
	f := s.change()
	if f != nil {
		c.errorf("%s", f.text)
		s.doc.Error = f.text
	}
	if c.opt.json && (f == nil || f.code != ExitUsage) {
		c.printJSON(s.doc)
	}
	if f != nil {
		return f.code
	}
	return ExitOK
}

// change sets or lifts the overrides and prints what the hosts make of it. It returns nil if every present host has
// applied the change and, after a lift, nothing else keeps a host down.
func (s *scopeChange) change() *failure {
	if s.opt.action == actDown {
		if f := s.checkBudgets(); f != nil {
			f.text = "nothing was changed: " + f.text
			return f
		}
	}
	r := control.Request{
		Op: control.OpLift, Scopes: s.scopes, Services: names(s.targets), Timeout: s.opt.fleet.timeout.Seconds(),
	}
	if s.opt.action == actDown {
		r.Op, r.State, r.Reason, r.Expires, r.Replace = control.OpSet, s.entry.State.String(), s.entry.Reason, expiresOf(s.entry), s.opt.fleet.replace
	}
	e, err := s.askUntilSignal(s.signals, r, s.opt.fleet.timeout+answerTime, s.note)
	f := s.newFailure(e, err)
	if f != nil && f.unknown {
		f.text = "it is not known whether the change was made: " + f.text
		return f
	}
	if f != nil && (e.Outcome == nil || f.code == ExitUsage) {
		return f // its text says whether anything was changed
	}
	s.setServices()
	if e.Outcome != nil {
		s.doc.Outcome = *e.Outcome
	}
	return s.readOutcome(f)
}

// setServices records what was set.
func (s *scopeChange) setServices() {
	for _, t := range s.targets {
		e := spool.Entry{Key: t.key}
		if s.opt.action == actDown {
			e = s.entry
			e.Key = t.key
		}
		s.doc.Services = append(s.doc.Services, newOverride(e))
	}
}

// readOutcome prints how far the hosts have followed. f is the failure that the daemon has reported.
func (s *scopeChange) readOutcome(f *failure) *failure {
	o := s.doc.Outcome
	if len(o.Absent) > 0 {
		s.note("absent: " + hostsText(o.Absent) + "; they obey when they are back")
	}
	if len(o.Left) > 0 {
		s.note("not obeyed by " + hostsText(o.Left) + ": they have left the fleet until hacheck fleet join is run there")
	}
	for _, scope := range o.Unknown {
		s.note(s.unknownText(scope))
	}
	for _, h := range o.StillDown {
		s.note(stillDownText(h))
	}
	var why []string
	code, result := ExitOK, ""
	if len(o.Missing) > 0 {
		code, result = ExitWaitIncomplete, "time is up"
		why = append(why, fmt.Sprintf("the change is made, but not applied within %s by %s", textfmt.Duration(s.opt.fleet.timeout), hostsText(o.Missing)))
	}
	if n := countHosts(o.StillDown); n > 0 {
		code, result = ExitFailed, "held"
		why = append(why, "the overrides are lifted, but something else keeps "+textfmt.Count(n, "host")+" down")
	}
	switch {
	case len(why) > 0:
		return &failure{code: code, result: result, text: strings.Join(why, "; ")}
	case f != nil:
		f.text = "the change is made, but: " + f.text
	}
	return f
}

// checkBudgets prints how many members go out, and asks if that is more than a budget allows. It returns why the
// overrides must not be set, nil if they may.
func (s *scopeChange) checkBudgets() *failure {
	r := control.Request{Op: control.OpImpact, Scopes: s.scopes, Services: names(s.targets), State: s.entry.State.String(), Expires: expiresOf(s.entry)}
	e, err := s.askUntilSignal(s.signals, r, answerTime, nil)
	if f := s.newFailure(e, err); f != nil {
		return f
	}
	s.doc.Impact = e.Impact
	var worst *report.Impact
	for i, im := range e.Impact {
		text := impactText(im)
		if im.GoOut > 0 && im.Out+im.GoOut > im.Budget {
			text += "; that is more than the budget allows"
			if worst == nil || im.GoOut > worst.GoOut {
				worst = &e.Impact[i]
			}
		}
		s.note(text)
	}
	if worst == nil || s.opt.fleet.yes {
		return nil
	}
	service := textfmt.OneLine(worst.Service)
	isConfirmed, err := s.confirm(fmt.Sprintf("to take them out, type the number of hosts that go out of %s", service), strconv.Itoa(worst.GoOut))
	switch {
	case err != nil:
		return &failure{code: ExitUsage, result: "refused", text: fmt.Sprintf("%s would be past its budget; add --yes to do it all the same (%v)", service, err)}
	case !isConfirmed:
		return &failure{code: ExitFailed, result: "refused", text: "that is not the number of hosts"}
	}
	return nil
}

// impactText says what an override does to a service.
func impactText(im report.Impact) string {
	return fmt.Sprintf("%s: %d of %s go out; out already: %d, budget: %d",
		textfmt.OneLine(im.Service), im.GoOut, textfmt.Count(im.Members, "member"), im.Out, im.Budget)
}

// maxHostNames is how many hosts a sentence names.
const maxHostNames = 20

// hostsText names hosts: "web1, web2 and 7 more".
func hostsText(hosts []string) string {
	text := textfmt.OneLine(strings.Join(hosts[:min(len(hosts), maxHostNames)], ", "))
	if more := len(hosts) - maxHostNames; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// stillDownText says what keeps a service of a host down.
func stillDownText(h report.HeldDown) string {
	set, how := overrideText(h.Scope, keyOf(h)), "lift it with: "
	if h.Scope == "" {
		set, how = "an override of its own", "run there: "
	}
	return fmt.Sprintf("%s: %s is still %s by %s%s; %s%s", textfmt.OneLine(h.Host), textfmt.OneLine(h.Service), stateWord(h.State), set,
		causeText(h.By, h.Reason), how, liftCommand(h.Scope, keyOf(h)))
}

// unknownText says that the fleet has no host of a scope, and how to lift an override that was set for it by mistake.
func (s *scopeChange) unknownText(scope string) string {
	text := "the fleet knows no host " + textfmt.OneLine(strings.TrimPrefix(scope, hostPrefix))
	if name, isGroup := strings.CutPrefix(scope, groupPrefix); isGroup {
		text = "the fleet knows no host in group " + textfmt.OneLine(name)
	}
	if s.opt.action == actDown {
		text += "; if the name is wrong, lift it with: " + liftCommand(scope, s.targets[0].key.Name())
		for _, t := range s.targets[1:] {
			text += " " + t.key.Service
		}
	}
	return text
}

// countHosts returns the number of different hosts.
func countHosts(list []report.HeldDown) int {
	hosts := make([]string, len(list))
	for i, h := range list {
		hosts[i] = h.Host
	}
	slices.Sort(hosts)
	return len(slices.Compact(hosts))
}

// changeAndWait is change, and then the wait for the balancers of this host.
func (s *scopeChange) changeAndWait() int {
	w, stop := s.newWaitRun(overrides{}, s.targets)
	defer stop()
	s.signals, s.note = w.signals, w.note
	if f := s.checkSelf(); f != nil {
		return w.progress.fail(f.result, f.code, "nothing was changed: "+f.text)
	}
	w.observeBefore()
	var f *failure
	w.unlimitedChange(func() int { f = s.change(); return ExitOK })
	if s.opt.json && len(s.doc.Services) > 0 {
		w.progress.event(scopeWrittenEvent{"written", w.progress.after(), s.doc})
	}
	if f != nil {
		return w.progress.fail(f.result, f.code, f.text+"; the command does not wait")
	}
	w.superseded = func() string { return "" } // the spool does not have the overrides
	w.states = func() string {
		if s.opt.action == actUp {
			return "the overrides are lifted"
		}
		return "the overrides stay in force"
	}
	w.setWritten()
	return w.wait()
}

// scopeWrittenEvent is writtenEvent for many hosts.
type scopeWrittenEvent struct {
	Event string  `json:"event"` // written
	After float64 `json:"after"`
	scopeDocument
}

// checkSelf returns a failure unless this host is in the scopes: --wait waits for the balancers that ask this host.
func (s *scopeChange) checkSelf() *failure {
	fleet, f := s.fleetReport()
	if f != nil {
		return f
	}
	if s.opt.fleet.all || slices.Contains(s.opt.fleet.hosts, fleet.Self) {
		return nil
	}
	i := slices.IndexFunc(fleet.Hosts, func(h report.Host) bool { return h.Name == fleet.Self })
	if i >= 0 && slices.ContainsFunc(fleet.Hosts[i].Groups, func(g string) bool { return slices.Contains(s.opt.fleet.groups, g) }) {
		return nil
	}
	return &failure{code: ExitUsage, result: "refused", text: fmt.Sprintf(
		"--wait waits for the balancers of this host, %s, which is not in %s; leave --wait away: the command waits until every host has applied the change",
		textfmt.OneLine(cmp.Or(fleet.Self, "without a name")), scopesText(s.scopes))}
}
