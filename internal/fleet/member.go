package fleet

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"hacheck/internal/admin/wait"
	"hacheck/internal/balancer"
	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

const (
	// failingAfter and passingAfter are how long a check has to fail, or to pass again, until the state changes.
	failingAfter = 2 * time.Second
	passingAfter = 5 * time.Second
	// A membership ends after unaskedTime, and after unaskedIntervals of its balancers, without a request.
	unaskedTime      = 10 * time.Minute
	unaskedIntervals = 20
	// maxMembers bounds the services of which a host is a member: clients choose the names that they ask about.
	maxMembers = 500
)

// verdict is what the checks of a service say.
type verdict int

const (
	verdictUnknown verdict = iota // no check has run since an override decided, or since the start
	verdictPassing
	verdictFailing
)

// serviceRecord is what this host knows of one service.
type serviceRecord struct {
	isMember bool
	asked    time.Time     // of the last request of a balancer
	interval time.Duration // usual time between two requests, the longest of all balancers
	hasRows  bool          // a balancer asks now

	verdict  verdict
	since    time.Time // of verdict
	changing time.Time // since when the answers contradict verdict; zero: they do not

	balancersOut bool // every balancer that reports has the host out
}

// members records of which services this host is a member and what its checks say. It is not safe for concurrent use.
type members struct {
	options  map[string]bool // Options.Member
	local    func(host string) bool
	services map[string]*serviceRecord
}

func newMembers(options map[string]bool) *members {
	addrs := new(clients.LocalAddrs)
	return &members{options: options, services: map[string]*serviceRecord{}, local: func(host string) bool {
		addr, err := netip.ParseAddr(host)
		return host == "" || err == nil && addrs.Contains(addr)
	}}
}

// names returns the services of which this host is a member, sorted.
func (m *members) names() []string {
	list := []string{}
	for name, s := range m.services {
		if s.isMember {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// restore makes this host a member of a service of which it was one before the daemon started. s is the state that it
// published, nil if that is not known.
func (m *members) restore(service string, s *state, now time.Time) {
	rec := m.record(service)
	if rec.asked.IsZero() {
		rec.asked = now
	}
	rec.isMember = m.isAllowed(service)
	if s == nil || rec.verdict != verdictUnknown {
		return
	}
	switch s.State {
	case stateUp:
		rec.verdict, rec.since = verdictPassing, s.Since
	case stateFailing:
		rec.verdict, rec.since = verdictFailing, s.Since
	}
}

func (m *members) record(service string) *serviceRecord {
	rec := m.services[service]
	if rec == nil {
		rec = &serviceRecord{}
		m.services[service] = rec
	}
	return rec
}

// isAllowed reports whether the options let this host be a member of a service.
func (m *members) isAllowed(service string) bool {
	member, ok := m.options[service]
	return member || !ok
}

// observe takes in what the balancers have reported and which overrides are in force. permit has the services for which
// this host holds a permit.
func (m *members) observe(now time.Time, r *balancer.Report, overrides []spool.Entry, permit []string) {
	asks := m.collect(r)
	for service, member := range m.options {
		if member {
			m.record(service)
		}
	}
	for service, a := range asks {
		rec := m.services[service]
		if rec == nil {
			if !a.saysUp || len(m.services) >= maxMembers || !m.isAllowed(service) {
				continue
			}
			rec = m.record(service)
		}
		rec.observe(now, a)
	}
	for service, rec := range m.services {
		a := asks[service]
		if a == nil {
			rec.hasRows, rec.changing, rec.balancersOut = false, time.Time{}, false
		}
		_, isOut := m.override(service, overrides)
		if isOut {
			rec.verdict, rec.changing = verdictUnknown, time.Time{}
		}
		isKept := m.options[service] || isOut || slices.Contains(permit, service) || !rec.isUnasked(now)
		switch {
		case !m.isAllowed(service):
			rec.isMember = false
		case m.options[service] || a != nil && a.saysUp:
			rec.isMember = true
		case !isKept:
			rec.isMember = false
		}
		if !rec.isMember && rec.isUnasked(now) && !isOut {
			delete(m.services, service)
		}
	}
}

// isUnasked reports whether no balancer has asked for so long that the membership ends.
func (rec *serviceRecord) isUnasked(now time.Time) bool {
	return now.Sub(rec.asked) >= max(unaskedTime, unaskedIntervals*rec.interval)
}

// serviceReport is what the balancers of one service report.
type serviceReport struct {
	age      time.Duration // of the last request
	interval time.Duration
	rows     []balancer.ServerView // about this host, without the silent ones
	agents   int                   // agent connections, without the silent ones
	saysUp   bool                  // a balancer has reported UP, or one without a state was answered "up"
}

// collect returns by service what the report says about this host. Questions about other hosts do not count.
func (m *members) collect(r *balancer.Report) map[string]*serviceReport {
	list := map[string]*serviceReport{}
	get := func(service string, age time.Duration) *serviceReport {
		a := list[service]
		if a == nil {
			a = &serviceReport{age: age}
			list[service] = a
		}
		a.age = min(a.age, age)
		return a
	}
	for _, row := range r.Balancers {
		if !row.Local || !isService(row.Service) {
			continue
		}
		a := get(row.Service, balancer.Duration(row.RequestAge))
		a.interval = max(a.interval, balancer.Duration(row.Interval))
		if row.Silent {
			continue
		}
		a.rows = append(a.rows, row)
		if row.State != "" && wait.IsStateUp(row.State) || row.State == "" && wait.IsHealthy(row.Last) {
			a.saysUp = true
		}
	}
	for _, agent := range r.Agents {
		key, err := spool.ParseKey(agent.Service)
		if err != nil || !isService(key.Service) || !agent.Confirmed || !m.local(key.Host) {
			continue
		}
		a := get(key.Service, balancer.Duration(agent.Age))
		if agent.Silent {
			continue
		}
		a.agents++
		sendsChecks := slices.ContainsFunc(a.rows, func(row balancer.ServerView) bool { return row.Address == agent.Address })
		if !sendsChecks && isAgentUp(agent) {
			a.saysUp = true
		}
	}
	return list
}

// isService reports whether a name that a client sent is that of one service.
func isService(name string) bool { return spool.ValidService(name) && name != spool.All }

func isAgentUp(a balancer.Agent) bool {
	words, _, _ := strings.Cut(a.Answer, " #")
	return words == "up ready" || strings.HasPrefix(words, "up ready ") // with a weight
}

// observe takes in what the balancers report now.
func (rec *serviceRecord) observe(now time.Time, a *serviceReport) {
	if asked := now.Add(-a.age); asked.After(rec.asked) {
		rec.asked = asked
	}
	if a.interval > 0 {
		rec.interval = a.interval
	}
	rec.hasRows = len(a.rows) > 0
	rec.balancersOut = areOut(a.rows)
	rec.updateVerdict(now, checkVerdict(a.rows))
}

// updateVerdict changes the verdict when the answers have contradicted it for long enough.
func (rec *serviceRecord) updateVerdict(now time.Time, answers verdict) {
	switch {
	case answers == verdictUnknown || answers == rec.verdict:
		rec.changing = time.Time{}
		return
	case rec.verdict == verdictUnknown:
		rec.verdict, rec.since, rec.changing = answers, now, time.Time{}
		return
	case rec.changing.IsZero():
		rec.changing = now
	}
	needs := failingAfter
	if answers == verdictPassing {
		needs = passingAfter
	}
	if now.Sub(rec.changing) >= needs {
		rec.verdict, rec.since, rec.changing = answers, now, time.Time{}
	}
}

// checkVerdict returns what the last answers say: failing if one of them is a failed check, passing if all that no
// override decided have passed.
func checkVerdict(rows []balancer.ServerView) verdict {
	passed, overridden := false, false
	for _, row := range rows {
		switch {
		case wait.IsHealthy(row.Last):
			passed = true
		case row.Last.Override == "":
			return verdictFailing
		default:
			overridden = true
		}
	}
	if passed && !overridden {
		return verdictPassing
	}
	return verdictUnknown
}

// areOut reports whether every balancer that sends a state has the host out. There has to be one.
func areOut(rows []balancer.ServerView) bool {
	n := 0
	for _, row := range rows {
		switch {
		case row.State == "":
		case wait.IsStateOut(row.State):
			n++
		default:
			return false
		}
	}
	return n > 0
}

// override returns the override of a service that this host obeys, and whether it takes the host, or one of its
// instances, out. nil: there is none.
func (m *members) override(service string, list []spool.Entry) (strongest *spool.Entry, isOut bool) {
	for i := range list {
		e := &list[i]
		isAll := e.Key == spool.Key{Service: spool.All}
		switch {
		case !isAll && (e.Key.Service != service || !m.local(e.Key.Host)):
		case e.Key.Port != 0 && !e.State.TakesOut(): // one instance is forced up, which says nothing of the others
		case strongest == nil || compareOverrides(e, strongest) < 0:
			strongest = e
		}
	}
	return strongest, strongest != nil && strongest.State.TakesOut()
}

// compareOverrides orders overrides of a service: the strongest first, among equals the one of the widest scope and
// key.
func compareOverrides(a, b *spool.Entry) int {
	if a.State != b.State {
		return int(b.State) - int(a.State)
	}
	if x, y := scopeRank(a.Scope), scopeRank(b.Scope); x != y {
		return x - y
	}
	if (a.Key.Service == spool.All) != (b.Key.Service == spool.All) {
		if a.Key.Service == spool.All {
			return -1
		}
		return 1
	}
	return strings.Compare(a.Key.Name(), b.Key.Name())
}

// scopeRank orders scopes, the widest first. The spool is last.
func scopeRank(scope string) int {
	switch kind, _, _ := strings.Cut(scope, ":"); kind {
	case "all":
		return 0
	case "group":
		return 1
	case "host":
		return 2
	}
	return 3
}
