package wait

import (
	"strconv"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// ViewID identifies a view in all reports, as the daemon does.
type ViewID struct {
	service, address, node, server string
	url                            string // "" if there is a server
	agent                          bool   // an agent connection without checks
}

// rowID returns the identity of a row.
func rowID(row balancer.ServerView) ViewID {
	id := ViewID{service: row.Service, address: row.Address, node: row.Node, server: row.Server}
	if row.Server == "" {
		id.url = row.URL
	}
	return id
}

// view is one balancer's view of one server and how far it has followed.
type view struct {
	id          ViewID
	key         spool.Key           // what an agent connection without checks asks about
	row         balancer.ServerView // the latest
	status      Status
	since       time.Duration // when status began
	inReport    bool          // the latest report has it
	isSilent    bool          // silent, or not in the report
	silentSince time.Duration // when isSilent was first true
	// mayLeaveMaintenance reports that maintenance may have been why the balancer was silent before the command.
	mayLeaveMaintenance bool
	isTentative         bool // an agent connection with too few requests to be certainly a balancer's
}

// isAbout reports whether v is a view of a target.
func (v *view) isAbout(t Target) bool {
	if v.id.agent {
		return t.Key.Covers(v.key, false)
	}
	return coversRow(t.Key, v.row)
}

// updateStatus sets how far a view has followed.
func (t *Tracker) updateStatus(v *view) {
	isSilent := !v.inReport || v.row.Silent
	if isSilent && !v.isSilent {
		v.silentSince = t.received
	}
	v.isSilent = isSilent
	next := Waiting
	switch {
	case !isSilent && t.hasFollowed(v):
		next = Done
	case !isSilent:
	case v.status == Silent:
		next = Silent
	case v.status == Done || t.goal == Out && wasDrained(&v.row):
		next = Done
	case v.isTentative:
		next = Silent
	case v.mayLeaveMaintenance && t.received-v.silentSince >= silentAfter(v.row):
		next = Silent
	case t.received-v.silentSince >= v.silenceLimit():
		next = Lost
	}
	if next != v.status {
		v.status, v.since = next, t.received
	}
}

// silenceLimit returns how long v may be silent before it is lost.
func (v *view) silenceLimit() time.Duration {
	if !v.inReport { // a restarted daemon has to learn it again
		return max(lostAfter, relearnIntervals*balancer.Duration(v.row.Interval))
	}
	return lostAfter
}

// hasFollowed reports whether a balancer that is not silent has the server where the goal wants it.
func (t *Tracker) hasFollowed(v *view) bool {
	switch {
	case t.written < 0:
		return false
	case t.goal == Up:
		return t.isUp(v)
	}
	return t.isOut(v)
}

// isOut reports whether a balancer has the server out, without open sessions. The header of a request has the state
// before the answer to it. So it counts only in a request after an answer with the override.
func (t *Tracker) isOut(v *view) bool {
	row := &v.row
	switch {
	case v.id.agent:
		a := t.agents[v.id.address][v.id.service]
		return a != nil && a.outAt != nil
	case takesOut(row.Last) && row.State == "":
		return row.OutAnswers >= t.fall && t.isAfterWrite(row.Last.Age)
	case takesOut(row.Last):
		return t.hasOverride(row) && t.hasStateOfAnswer(row) && hasNoSessions(row)
	case t.report.AgentOnly:
		// A drained server stays UP, so the state cannot tell. What its agent connections have read counts.
		read := t.agentsOutAt(row)
		return read != nil && (row.State == "" || t.requested-balancer.Duration(row.Last.Age) > *read && hasNoSessions(row))
	}
	return false
}

// hasOverride reports whether a balancer got an answer with the override before its latest request.
func (t *Tracker) hasOverride(row *balancer.ServerView) bool {
	return row.Previous != nil && takesOut(*row.Previous) && t.isAfterWrite(row.Previous.Age)
}

// isUp reports whether a balancer has the server up. "UP 1/3" is up as well: the server gets its share of sessions.
func (t *Tracker) isUp(v *view) bool {
	row := &v.row
	if v.id.agent {
		a := t.agents[v.id.address][v.id.service]
		return a != nil && a.upAt != nil
	}
	if !t.isAfterWrite(row.Last.Age) || !IsHealthy(row.Last) {
		return false
	}
	for _, a := range t.agentsOf(*row) {
		if a.upAt == nil {
			return false
		}
	}
	if row.State == "" { // two answers in a row, as HAProxy's default "rise" wants
		return row.Previous != nil && t.isAfterWrite(row.Previous.Age) && IsHealthy(*row.Previous)
	}
	return IsStateUp(row.State)
}

// hasStateOfAnswer reports whether a balancer has the server in the state that its latest answer leads to. A drain leads
// to NOLB or DOWN, every other override to DOWN, because clients with a cookie still reach a server at NOLB.
//
// A server at NOLB becomes DOWN after fall such answers. The fall of HAProxy counts if it is larger and the state has it,
// as in "NOLB 2/5". A balancer that still reports NOLB after more answers will not report DOWN, so NOLB counts.
func (t *Tracker) hasStateOfAnswer(row *balancer.ServerView) bool {
	word, fraction, _ := strings.Cut(row.State, " ")
	if word != "NOLB" || row.Last.Override == "drain" {
		return IsStateOut(row.State)
	}
	fall := t.fall
	if _, text, ok := strings.Cut(fraction, "/"); ok {
		if n, err := strconv.Atoi(text); err == nil {
			fall = max(fall, n)
		}
	}
	return row.SameAnswers > fall
}

// wasDrained reports whether a balancer that is silent now had the server out and no session open on it.
func wasDrained(row *balancer.ServerView) bool {
	return IsStateOut(row.State) && row.Sessions != nil && hasNoSessions(row)
}

// IsStateOut reports whether a server in that HAProxy state gets no new sessions.
func IsStateOut(state string) bool {
	word, _, _ := strings.Cut(state, " ")
	return word == "DOWN" || word == "NOLB"
}

// IsStateUp reports whether a server in that HAProxy state gets its share of sessions. Without checks it always does.
func IsStateUp(state string) bool {
	word, _, _ := strings.Cut(state, " ")
	return word == "UP" || state == "no check"
}

// hasNoSessions reports whether a balancer has no session open on a server and none queued for it. A number that it
// does not send counts as zero.
func hasNoSessions(row *balancer.ServerView) bool {
	isZero := func(n *int) bool { return n == nil || *n == 0 }
	return isZero(row.Sessions) && isZero(row.Queued)
}

// takesOut reports whether the override that decided an answer takes the server out of service.
func takesOut(a balancer.Answer) bool {
	return a.Override == "drain" || a.Override == "down" || a.Override == "maint"
}

// IsHealthy reports whether balancers count an answer as up.
func IsHealthy(a balancer.Answer) bool { return a.Code >= 200 && a.Code < 400 && !takesOut(a) }

// IsStillUp reports whether a balancer has a server up although its last answer was decided by an override that takes
// the server out.
func IsStillUp(row balancer.ServerView) bool { return takesOut(row.Last) && IsStateUp(row.State) }
