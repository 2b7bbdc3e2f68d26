package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// maxViewRows is how many members, permits, claims or hosts a table shows. --json shows all of them.
const maxViewRows = 100

// fleetFilter selects parts of a report. An empty list selects everything.
type fleetFilter struct{ services, groups, hosts []string }

// showFleet prints the fleet. It returns ExitDaemonUnavailable if etcd cannot be reached: then it prints what the
// daemon knew last.
func (c *command) showFleet(filter fleetFilter) int {
	fleet, f := c.fleetReport()
	if fleet == nil {
		c.errorf("%s", f.text)
		return f.code
	}
	p := fleetPrinter{c, c.Now(), map[string]int{}}
	for _, s := range fleet.Services {
		p.members[s.Name] = len(s.Members)
	}
	filter.apply(fleet)
	if c.opt.json {
		c.printJSON(fleet)
	} else {
		p.print(fleet)
	}
	if f != nil {
		_ = c.out.Flush() // the writer keeps an error, see printf
		c.errorf("%s", f.text)
		return f.code
	}
	return ExitOK
}

// apply removes from r what the filter does not select. An override stays if it covers a selected service or host.
func (f fleetFilter) apply(r *report.Fleet) {
	groups := map[string][]string{}
	for _, h := range r.Hosts {
		groups[h.Name] = h.Groups
	}
	hasHost := func(host string) bool {
		return len(f.hosts)+len(f.groups) == 0 || slices.Contains(f.hosts, host) ||
			slices.ContainsFunc(groups[host], func(g string) bool { return slices.Contains(f.groups, g) })
	}
	hasService := func(name string) bool { return len(f.services) == 0 || slices.Contains(f.services, name) }
	hasAnyService := func(list []string) bool {
		return len(f.services) == 0 || slices.ContainsFunc(f.services, func(name string) bool { return isAmong(list, name) })
	}

	r.Overrides = keep(r.Overrides, func(o report.Override) bool {
		service, _, _ := strings.Cut(o.Service, ":")
		return (service == spool.All || hasService(service)) && f.hasScope(o.Scope, groups)
	})
	r.Services = keep(r.Services, func(s report.Service) bool { return hasService(s.Name) })
	for i := range r.Services {
		r.Services[i].Members = keep(r.Services[i].Members, func(m report.Member) bool { return hasHost(m.Host) })
	}
	r.Hosts = keep(r.Hosts, func(h report.Host) bool { return hasHost(h.Name) })
	r.Queue = keep(r.Queue, func(q report.Claim) bool { return hasHost(q.Host) && hasAnyService(q.Services) })
	r.Permits = keep(r.Permits, func(p report.Permit) bool { return hasHost(p.Host) && hasAnyService(p.Services) })
	r.Budgets = keep(r.Budgets, func(b report.Budget) bool { return hasService(b.Service) })
}

// isAmong reports whether the services of a permit or a claim have this one. A permit that cannot be read is for all.
func isAmong(list []string, service string) bool {
	return slices.Contains(list, service) || slices.Contains(list, spool.All)
}

// hasScope reports whether a scope covers a selected host.
func (f fleetFilter) hasScope(scope string, groups map[string][]string) bool {
	group, isGroup := strings.CutPrefix(scope, groupPrefix)
	host, isHost := strings.CutPrefix(scope, hostPrefix)
	switch {
	case len(f.hosts)+len(f.groups) == 0, scope == scopeAll:
		return true
	case isGroup:
		return slices.Contains(f.groups, group) ||
			slices.ContainsFunc(f.hosts, func(h string) bool { return slices.Contains(groups[h], group) })
	case isHost:
		return slices.Contains(f.hosts, host) ||
			slices.ContainsFunc(groups[host], func(g string) bool { return slices.Contains(f.groups, g) })
	}
	return true // of a newer version
}

// keep returns the elements for which is returns true, never nil.
func keep[T any](list []T, is func(T) bool) []T {
	kept := make([]T, 0, len(list))
	for _, v := range list {
		if is(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// fleetPrinter prints one report.
type fleetPrinter struct {
	*command
	now     time.Time
	members map[string]int // of each service, also those that the filter has removed
}

// print prints a report: overrides, services, the members that are out, permits and queue, then the hosts that need
// attention.
func (p fleetPrinter) print(r *report.Fleet) {
	present := 0
	for _, h := range r.Hosts {
		if h.Present {
			present++
		}
	}
	p.printf("Fleet %s: %s, %d present; this host is %s.\n", textfmt.OneLine(r.Prefix), textfmt.Count(len(r.Hosts), "host"), present, textfmt.OneLine(r.Self))
	switch {
	case !r.Connected:
		since := ""
		if r.Since != nil {
			since = " since " + localTime(*r.Since, p.now) + " (" + p.ago(r.Since) + ")"
		}
		p.printf("etcd cannot be reached%s: %s\nWhat follows was read %s.\n", since, textfmt.OneLine(r.Error), p.ago(&r.ReadAt))
	case r.Error != "":
		p.printf("Trouble with the fleet: %s\n", textfmt.OneLine(r.Error))
	}
	if r.Left {
		p.printf("This host has left the fleet and ignores its overrides; hacheck fleet join ends that.\n")
	}
	p.overrides(r.Overrides)
	p.services(r)
	p.membersOut(r.Services)
	p.permits(r.Permits)
	p.queue(r.Queue)
	p.hosts(r.Hosts)
}

// ago returns how long ago t was, "-" if it is not known.
func (p fleetPrinter) ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return textfmt.Duration(max(p.now.Sub(*t), 0)) + " ago"
}

// until returns when an override ends.
func (p fleetPrinter) until(t *time.Time) string {
	if t == nil {
		return "lifted"
	}
	return fmt.Sprintf("%s (in %s)", localTime(*t, p.now), textfmt.Duration(max(t.Sub(p.now), 0)))
}

// table prints rows below a title, up to maxViewRows. The first row is the head. Without more rows it prints nothing.
func (p fleetPrinter) table(title string, rows [][]string) {
	if len(rows) == 1 {
		return
	}
	more := len(rows) - 1 - maxViewRows
	if more > 0 {
		rows = rows[:1+maxViewRows]
	}
	p.printf("\n%s:\n%s", title, textfmt.Table(rows))
	if more > 0 {
		p.printf("and %d more; name a service, --group or --host, or use --json\n", more)
	}
}

// cell returns text for a table, "-" if there is none.
func cell(text string) string { return cmp.Or(textfmt.OneLine(text), "-") }

// reasonCell is cell for a reason, which is the last column.
func reasonCell(text string) string { return cmp.Or(textfmt.Excerpt(text, maxReasonText), "-") }

func (p fleetPrinter) overrides(list []report.Override) {
	if len(list) == 0 {
		p.printf("\nNo overrides for many hosts.\n")
		return
	}
	rows := [][]string{{"STATE", "SERVICE", "SCOPE", "SINCE", "UNTIL", "BY", "REASON"}}
	for _, o := range list {
		reason := reasonCell(o.Reason)
		if o.Lost {
			reason = "LOST IN ETCD, still in force; haup or hadown for the same hosts resolves it: " + reason
		}
		rows = append(rows, []string{
			stateWord(o.State), textfmt.OneLine(o.Service), scopeText(o.Scope), p.ago(&o.Created), p.until(o.Expires), cell(o.By), reason,
		})
	}
	p.table("Overrides", rows)
}

func (p fleetPrinter) services(r *report.Fleet) {
	if len(r.Services) == 0 {
		p.printf("\nNo service has members.\n")
		return
	}
	rows := [][]string{{"SERVICE", "MEMBERS", "OUT", "BUDGET", "PERMITS", "QUEUE"}}
	for _, s := range r.Services {
		budget := strconv.Itoa(s.Budget)
		if s.Rule != budget && s.Rule != "" {
			budget += " (" + textfmt.OneLine(s.Rule) + ")"
		}
		permits, claims := 0, 0
		for _, q := range r.Permits {
			if isAmong(q.Services, s.Name) {
				permits++
			}
		}
		for _, q := range r.Queue {
			if isAmong(q.Services, s.Name) {
				claims++
			}
		}
		rows = append(rows, []string{
			textfmt.OneLine(s.Name), strconv.Itoa(p.members[s.Name]), strconv.Itoa(s.Out), budget, strconv.Itoa(permits), strconv.Itoa(claims),
		})
	}
	p.table("Services", rows)
}

func (p fleetPrinter) membersOut(services []report.Service) {
	rows := [][]string{{"SERVICE", "HOST", "STATE", "SINCE", "UNTIL", "SCOPE", "BY", "REASON"}}
	for _, s := range services {
		for _, m := range s.Members {
			if !m.Out && m.State == "up" {
				continue
			}
			row := []string{textfmt.OneLine(s.Name), textfmt.OneLine(m.Host), stateWord(m.State), p.ago(m.Since), "-", "-", cell(m.By), reasonCell(m.Reason)}
			if m.Until != nil {
				row[4] = p.until(m.Until)
			}
			switch m.State {
			case "down", "drain", "maint", "force-up":
				row[5] = scopeText(m.Scope)
			}
			rows = append(rows, row)
		}
	}
	p.table("Members that are out or forced up", rows)
}

func (p fleetPrinter) permits(list []report.Permit) {
	rows := [][]string{{"HOST", "SERVICES", "PHASE", "SINCE", "BY", "RETURNED WHEN", "REASON"}}
	for _, q := range list {
		rows = append(rows, []string{
			textfmt.OneLine(q.Host), cell(strings.Join(q.Services, " ")), cell(q.Phase), p.ago(&q.At), cell(q.By),
			reasonCell(q.Waiting), reasonCell(q.Reason),
		})
	}
	p.table("Permits", rows)
}

func (p fleetPrinter) queue(list []report.Claim) {
	rows := [][]string{{"HOST", "SERVICES", "SINCE", "BY", "WAITING FOR", "REASON"}}
	for _, q := range list {
		rows = append(rows, []string{
			textfmt.OneLine(q.Host), cell(strings.Join(q.Services, " ")), p.ago(&q.At), cell(q.By), reasonCell(q.Waiting), reasonCell(q.Reason),
		})
	}
	p.table("Queue", rows)
}

// hosts prints the hosts that are absent, that have left, and that cannot apply overrides.
func (p fleetPrinter) hosts(list []report.Host) {
	absent := [][]string{{"HOST", "SINCE", "GROUPS"}}
	left := [][]string{{"HOST", "GROUPS"}}
	failing := [][]string{{"HOST", "ERROR"}}
	for _, h := range list {
		name, groups := textfmt.OneLine(h.Name), cell(strings.Join(h.Groups, " "))
		if !h.Present {
			absent = append(absent, []string{name, p.ago(h.Since), groups})
		}
		if h.Left {
			left = append(left, []string{name, groups})
		}
		if h.Error != "" {
			failing = append(failing, []string{name, reasonCell(h.Error)})
		}
	}
	p.table("Absent hosts", absent)
	if len(absent) > 1 {
		p.printf("hacheck fleet forget HOST removes one that is gone for good.\n")
	}
	p.table("Hosts that have left the fleet and ignore its overrides", left)
	p.table("Hosts that do not apply overrides", failing)
}
