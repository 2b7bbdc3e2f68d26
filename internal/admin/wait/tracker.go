// Package wait decides, from one report of the daemon to the next, whether the balancers have followed an override or
// its end ([Tracker]), and from a single report whether an override is safe ([CheckSafe]).
//
// It only decides. The caller asks the daemon, writes overrides, keeps the time and prints.
package wait

import (
	"slices"
	"time"

	"hacheck/internal/balancer"
)

const (
	// lostAfter is how long a balancer may be silent while the command waits for it.
	lostAfter = 30 * time.Second
	// relearnIntervals is how many of its intervals a balancer needs until a restarted daemon knows it again: one that
	// sends no state is known from its third request.
	relearnIntervals = 4
	// agentTTL is how long an agent connection counts after its last request.
	agentTTL = 30 * time.Second
	// maxViews bounds the views of a Tracker. The daemon reports fewer, but another program may answer on its port.
	maxViews = 20_000
	// clockSlack is by how much two monotonic clocks may drift apart between two reports.
	clockSlack = 100 * time.Millisecond
)

// Goal is where the command wants the servers.
type Goal string

// The goals of hadown and haup.
const (
	Out Goal = "out" // out of service and without open sessions
	Up  Goal = "up"  // back in service
)

// Status is how far a balancer has followed.
type Status int

// The values of Status.
const (
	Waiting Status = iota
	Done           // has the server where the Goal wants it
	Silent         // was silent before the command; not waited for
	Lost           // has been silent for too long while the command waited for it
)

// String returns the status as the JSON events have it.
func (s Status) String() string { return [...]string{"waiting", "done", "silent", "lost"}[s] }

// Tracker decides whether the balancers have followed an override, or its end. It is not safe for concurrent use.
//
// Moments are durations since the command began, by the caller's monotonic clock. The daemon's times are ages in a
// report, so the two clocks need not agree.
type Tracker struct {
	targets []Target
	goal    Goal
	fall    int // answers after which a balancer that sends no state has a server out

	written time.Duration // when the override was in force or gone; negative until then
	views   []*view       // in the order they were found
	index   map[ViewID]*view
	checks  map[string][]*view               // views in the latest report that send checks, by address
	agents  map[string]map[string]*agentView // by address and key
	report  *balancer.Report                 // the latest; nil before the first

	// requested and received are the moments of the request for the latest report and of its arrival. The report was
	// made between the two.
	requested, received time.Duration

	daemonStarted time.Duration // the latest possible time
	restarts      int           // of the daemon, since the first report
	isLearned     bool          // the daemon has listened for LearnTime
	hasOverflow   bool          // there are more than maxViews views

	wantsNoConnections bool // see WaitForConnections
}

// NewTracker returns a Tracker without a report. A balancer that sends no state has a server out after fall answers
// with the override.
func NewTracker(targets []Target, goal Goal, fall int) *Tracker {
	return &Tracker{
		targets: targets, goal: goal, fall: fall, written: -1,
		index: map[ViewID]*view{}, agents: map[string]map[string]*agentView{},
	}
}

// SetWritten records when the caller had written. From then on every request gets the answer that the caller wants.
func (t *Tracker) SetWritten(at time.Duration) { t.written = at }

// isAfterWrite reports whether an event of that age in the latest report came after SetWritten. It returns false if
// the time that the report took leaves it open.
func (t *Tracker) isAfterWrite(age float64) bool {
	return t.written >= 0 && t.requested-balancer.Duration(age) >= t.written
}

// Observe takes in a report and the moments when the caller requested and received it.
func (t *Tracker) Observe(r *balancer.Report, requested, received time.Duration) {
	uptime := balancer.Duration(r.Uptime)
	if t.report != nil && requested-uptime > t.daemonStarted+clockSlack {
		t.restarts++
	}
	t.report, t.requested, t.received, t.daemonStarted = r, requested, received, received-uptime
	t.isLearned = t.isLearned || uptime >= balancer.LearnTime
	t.observeAgents()

	for _, v := range t.views {
		v.inReport = false
	}
	for _, row := range r.Balancers {
		if slices.ContainsFunc(t.targets, func(target Target) bool { return coversRow(target.Key, row) }) {
			t.observeRow(row)
		}
	}
	t.checks = map[string][]*view{}
	for _, v := range t.views {
		if v.inReport && !v.row.Silent && !v.id.agent {
			t.checks[v.id.address] = append(t.checks[v.id.address], v)
		}
	}
	t.observeAgentsWithoutChecks()
	t.views = slices.DeleteFunc(t.views, func(v *view) bool {
		// The command does not wait for it, or its checks have views now.
		obsolete := !v.inReport && (v.status == Silent || v.id.agent && t.sendsChecks(v.id.address, v.key))
		if obsolete {
			delete(t.index, v.id)
		}
		return obsolete
	})
	for _, v := range t.views {
		t.updateStatus(v)
	}
}

// observeRow takes in one row of a report.
func (t *Tracker) observeRow(row balancer.ServerView) {
	id, status := rowID(row), Waiting
	isNew := t.index[id] == nil
	mayLeaveMaintenance := false
	if row.Silent {
		// A server in maintenance gets no checks. Its balancer is silent until the agent has read that maintenance is over.
		mayLeaveMaintenance = t.goal == Up && t.mayLeaveMaintenance(row)
		if t.goal == Out || !mayLeaveMaintenance && !t.isInMaintenance(row) {
			status = Silent
		}
	}
	if v := t.setRow(id, row, status); v != nil && (isNew || !row.Silent) {
		v.mayLeaveMaintenance = mayLeaveMaintenance
	}
}

// setRow makes row the latest of a view and returns the view. A new view begins with status. It returns nil if there
// is no room for a new one.
func (t *Tracker) setRow(id ViewID, row balancer.ServerView, status Status) *view {
	v := t.index[id]
	if v == nil {
		if len(t.views) >= maxViews {
			t.hasOverflow = true
			return nil
		}
		v = &view{id: id, status: status, since: t.received}
		t.index[id], t.views = v, append(t.views, v)
	}
	v.row, v.inReport = row, true
	return v
}

// Decide returns Waiting while the caller has to wait, Done when every balancer has followed, and Lost when only lost
// balancers have not.
func (t *Tracker) Decide() Status {
	if t.report == nil || t.written < 0 || t.requested < t.written {
		return Waiting
	}
	end := Done
	for _, v := range t.views {
		switch v.status {
		case Waiting:
			return Waiting
		case Lost:
			end = Lost
		case Done, Silent:
		}
	}
	for _, target := range t.targets {
		if age, _ := requestAge(target, t.report); !t.hasBalancer(target) && age < balancer.LearnTime {
			return Waiting
		}
	}
	if end == Done && t.hasConnections() {
		return Waiting
	}
	if !t.isLearned || end == Done && (t.hasOverflow || len(unrecorded(t.targets, t.report)) > 0) {
		return Waiting
	}
	return end
}

// Targets returns what the command changes.
func (t *Tracker) Targets() []Target { return t.targets }

// HasReport reports whether Observe was called.
func (t *Tracker) HasReport() bool { return t.report != nil }

// Restarts returns how often the daemon has restarted since the first report.
func (t *Tracker) Restarts() int { return t.restarts }

// CountDone returns how many balancers have followed for a target.
func (t *Tracker) CountDone(target Target) (n int) {
	for _, v := range t.views {
		if v.status == Done && v.isAbout(target) {
			n++
		}
	}
	return n
}

// hasBalancer reports whether the command waits, or has waited, for a balancer of a target.
func (t *Tracker) hasBalancer(target Target) bool {
	return slices.ContainsFunc(t.views, func(v *view) bool { return v.status != Silent && v.isAbout(target) })
}
