package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hacheck/internal/admin/wait"
	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

const (
	// silentLimit is how long a silent balancer is waited for.
	silentLimit = 2 * time.Minute
	// passedApart is how far apart two passed checks have to be where no balancer reports.
	passedApart = 10 * time.Second
	// stateLimit is how long the return of a permit waits until the state of this host is published.
	stateLimit = 2 * passingAfter
	// waitingEvery is how often permit.Waiting is written at most.
	waitingEvery = 10 * time.Second
)

// returnTracker follows the balancers after the override of a used permit has ended.
type returnTracker struct {
	lifted     time.Time              // since when no override takes the host out; zero: one does
	silent     map[string]time.Time   // since when a balancer of the permit is silent
	passed     map[string]passedCheck // by service
	passedOver map[string]bool        // silent balancers that are not waited for any longer, once logged
	backSince  time.Time              // since when the permit may be returned, but for the published state; zero: it may not
	writtenAt  time.Time              // when permit.Waiting was written last
}

// passedCheck has the first and the last of the checks of a service that have passed without a failed one between.
type passedCheck struct{ first, last time.Time }

// returnStep is what a returnTracker has found in one report.
type returnStep struct {
	isBack     bool
	waiting    string   // what has to happen, for people; "" if an override takes the host out
	passedOver []string // balancers that are not waited for any longer, once each
}

// balancerName identifies the view that a balancer has of a service, in permit.Balancers.
func balancerName(row balancer.ServerView) string {
	name := textfmt.OneLine(row.Address)
	if row.Node != "" {
		name = textfmt.OneLine(row.Node) + " at " + name
	}
	return row.Service + ": " + name
}

// maxBalancers bounds permit.Balancers.
const maxBalancers = 200

// reportingBalancers returns the names of the balancers that report a state about services of this host.
func reportingBalancers(r *balancer.Report, services []string) []string {
	var list []string
	for _, row := range r.Balancers {
		if row.Local && !row.Silent && row.State != "" && slices.Contains(services, row.Service) {
			list = append(list, balancerName(row))
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxBalancers)]
}

// observe takes in a report. isOut says that an override takes the host out.
func (t *returnTracker) observe(now time.Time, h permit, r *balancer.Report, isOut bool, local func(string) bool) (step returnStep) {
	if isOut {
		*t = returnTracker{writtenAt: t.writtenAt}
		return step
	}
	if t.lifted.IsZero() {
		t.lifted, t.silent, t.passed, t.passedOver = now, map[string]time.Time{}, map[string]passedCheck{}, map[string]bool{}
	}
	rows := map[string][]balancer.ServerView{} // by balancer, with the state
	for _, row := range r.Balancers {
		if row.Local && !row.Silent && slices.Contains(h.Services, row.Service) && row.State != "" {
			rows[balancerName(row)] = append(rows[balancerName(row)], row)
		}
	}
	var waiting []string
	names := slices.Clone(h.Balancers)
	for name := range rows {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	reports := map[string]bool{} // services about which a balancer reports
	for _, name := range names {
		service, _, _ := strings.Cut(name, ":")
		if len(rows[name]) == 0 {
			if text := t.silence(now, name, &step); text != "" {
				waiting = append(waiting, text)
				reports[service] = true
			}
			continue
		}
		delete(t.silent, name)
		delete(t.passedOver, name)
		reports[service] = true
		for _, row := range rows[name] {
			if text := t.notUp(now, row); text != "" {
				waiting = append(waiting, name+text)
				break
			}
		}
	}
	for _, service := range h.Services {
		if text := t.check(now, h.Host, service, r, reports[service], local, &step); text != "" {
			waiting = append(waiting, service+": "+text)
		}
	}
	if step.isBack = len(waiting) == 0; !step.isBack {
		t.backSince = time.Time{}
	}
	step.waiting = nameList(waiting, func(s string) string { return s })
	return step
}

// silence returns the text of a balancer that is silent and waited for, "" if it is passed over.
func (t *returnTracker) silence(now time.Time, name string, step *returnStep) string {
	since, ok := t.silent[name]
	if !ok {
		since = now
		t.silent[name] = now
	}
	if now.Sub(since) < silentLimit {
		return name + " is silent"
	}
	t.passOver(name, step)
	return ""
}

func (t *returnTracker) passOver(name string, step *returnStep) {
	if !t.passedOver[name] {
		t.passedOver[name] = true
		step.passedOver = append(step.passedOver, name)
	}
}

// notUp returns what is missing until a balancer has reported UP after it was answered "up". The header of a request has
// the state before the answer to it.
func (t *returnTracker) notUp(now time.Time, row balancer.ServerView) string {
	answered := func(a *balancer.Answer) bool {
		return a != nil && wait.IsHealthy(*a) && now.Add(-balancer.Duration(a.Age)).After(t.lifted)
	}
	switch {
	case !wait.IsStateUp(row.State):
		return " reports " + textfmt.OneLine(row.State)
	case !wait.IsHealthy(row.Last):
		return fmt.Sprintf(" was answered %d", row.Last.Code)
	case !answered(&row.Last) || !answered(row.Previous):
		return " has not reported UP since"
	}
	return ""
}

// check returns why the check of a service does not count as passed, "" if it does. Where no balancer reports it has to
// pass twice.
func (t *returnTracker) check(now time.Time, host, service string, r *balancer.Report, reports bool, local func(string) bool, step *returnStep) string {
	asks, failed, at := t.answers(now, service, r, local)
	if failed {
		delete(t.passed, service)
		return "its check fails"
	}
	if reports {
		return "" // notUp has seen that it passes
	}
	if asks {
		if at.After(t.lifted) {
			c, ok := t.passed[service]
			if !ok {
				c.first = at
			}
			c.last = at
			t.passed[service] = c
		}
		if c := t.passed[service]; c.last.Sub(c.first) >= passedApart {
			return ""
		}
		return "its check has to pass twice, " + shortAge(passedApart) + " apart"
	}
	if now.Sub(t.lifted) < unaskedTime {
		return "no balancer asks, so its check has not passed; if none will, hacheck fleet release " + service + " --host " + host
	}
	t.passOver(service+": no balancer", step)
	return ""
}

// answers returns whether a balancer asks about a service of this host, whether its check fails, and when the last
// healthy answer was given.
func (t *returnTracker) answers(now time.Time, service string, r *balancer.Report, local func(string) bool) (asks, failed bool, at time.Time) {
	newest := func(age float64) {
		if moment := now.Add(-balancer.Duration(age)); moment.After(at) {
			at = moment
		}
	}
	for _, row := range r.Balancers {
		if !row.Local || row.Silent || row.Service != service {
			continue
		}
		asks = true
		switch {
		case wait.IsHealthy(row.Last):
			newest(row.Last.Age)
		case row.Last.Override == "":
			failed = true
		}
	}
	if asks {
		return asks, failed, at
	}
	for _, a := range r.Agents {
		key, err := spool.ParseKey(a.Service)
		if err == nil && key.Service == service && a.Confirmed && !a.Silent && local(key.Host) {
			asks = true
			if isAgentUp(a) {
				newest(a.Age)
			}
		}
	}
	return asks, failed, at
}
