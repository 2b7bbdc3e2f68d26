package admin

import (
	"strconv"
	"strings"
	"time"

	"hacheck/internal/balancer"
)

// status is how far a balancer has followed.
type status int

const (
	waiting  status = iota
	followed        // has the server out, or back
	idle            // was silent before the command, and is not waited for
	lost            // fell silent while it was waited for, and for too long
)

// String returns the word of the JSON events.
func (s status) String() string { return [...]string{"waiting", "done", "silent", "lost"}[s] }

// viewKey tells views apart as the daemon does.
type viewKey struct {
	service, address, node, server string
	url                            string // when there is no server
	agent                          bool   // an agent connection without checks
}

// view is one balancer's view of one server, and what became of it while the command waits.
type view struct {
	key    viewKey
	row    balancer.Balancer // the latest
	status status
	since  time.Duration // when status became what it is
	quiet  bool          // silent, or gone from the report
	gone   bool          // gone from the report
	chance bool          // an agent connection that has asked too few times to be known for a balancer's
	from   time.Duration // when it was first found quiet
	seen   bool          // in the report at hand
}

// judge says how far a view has come.
func (w *watcher) judge(v *view) {
	v.gone = !v.seen
	quiet := v.gone || v.row.Silent
	if quiet && !v.quiet {
		v.from = w.now
	}
	v.quiet = quiet
	next := waiting
	switch {
	case !quiet && w.follows(v):
		next = followed
	case !quiet:
	case v.status == idle:
		next = idle
	case v.status == followed || w.lastWords(v):
		next = followed
	case v.chance:
		next = idle
	case w.now-v.from >= v.grace():
		next = lost
	}
	if next != v.status {
		v.status, v.since = next, w.now
	}
}

// grace is how long v may be quiet before it is lost.
func (v *view) grace() time.Duration {
	if v.gone { // and has to be learned anew
		return max(silentFor, reappear*seconds(v.row.Interval))
	}
	return silentFor
}

// follows says whether a balancer that asks has the server where the command wants it.
func (w *watcher) follows(v *view) bool {
	if w.written < 0 {
		return false
	}
	if w.up {
		return w.isBack(v)
	}
	return w.isOut(v)
}

// isOut holds what a balancer says against what it was told. The header of a request tells the state before
// the answer to it, so that it counts in a request that comes after an answer with the override.
func (w *watcher) isOut(v *view) bool {
	row := &v.row
	switch {
	case v.key.agent:
		a := w.agents[v.key.address][v.key.service]
		return a != nil && a.out != nil
	case takesOut(row.Last.Override) && row.State == "":
		return row.OutAnswers >= w.fall && w.after(row.Last.Age)
	case takesOut(row.Last.Override):
		return w.told(row) && w.outFor(row) && empty(row)
	case w.report.AgentOnly:
		// A drained server keeps saying UP, so that what its agent has read has to do.
		read := w.agentOut(row)
		return read != nil && (row.State == "" || w.asked-seconds(row.Last.Age) > *read && empty(row))
	}
	return false
}

// told says whether a balancer had been answered with an override before it sent its latest request.
func (w *watcher) told(row *balancer.Balancer) bool {
	return row.Previous != nil && takesOut(row.Previous.Override) && w.after(row.Previous.Age)
}

// isBack holds what a balancer says against what it was told. UP is UP with any fraction: at "UP 1/3" the
// server has its share of the sessions still.
func (w *watcher) isBack(v *view) bool {
	row := &v.row
	if v.key.agent {
		a := w.agents[v.key.address][v.key.service]
		return a != nil && a.back != nil
	}
	if !w.after(row.Last.Age) || !healthy(row.Last) {
		return false
	}
	for _, a := range w.agentsOf(*row) {
		if a.back == nil {
			return false
		}
	}
	if row.State == "" { // two in a row, which is HAProxy's own rise
		return row.Previous != nil && w.after(row.Previous.Age) && healthy(*row.Previous)
	}
	return in(row.State)
}

// lastWords says whether a balancer that has fallen silent had the server out, and no session open on it.
func (w *watcher) lastWords(v *view) bool {
	return !w.up && out(v.row.State) && v.row.Sessions != nil && empty(&v.row)
}

// outFor is out for what the latest answer asks of the balancer. At NOLB clients with a cookie still come, which
// is what a drain is for; a server that was drained and is told down is on its way to DOWN, and there after fall
// answers, its own number if it tells it ("NOLB 2/5"). A balancer that stays at NOLB for longer knows nothing else.
func (w *watcher) outFor(row *balancer.Balancer) bool {
	word, fraction, _ := strings.Cut(row.State, " ")
	if word != "NOLB" || row.Last.Override == "drain" {
		return out(row.State)
	}
	fall := w.fall
	if _, own, ok := strings.Cut(fraction, "/"); ok {
		if n, err := strconv.Atoi(own); err == nil {
			fall = max(fall, n)
		}
	}
	return row.SameAnswers > fall
}

// out says whether a state of HAProxy's means that the server gets nothing new.
func out(state string) bool {
	word, _, _ := strings.Cut(state, " ")
	return word == "DOWN" || word == "NOLB"
}

// in says whether a state of HAProxy's means that the server has its share: one without checks is never out.
func in(state string) bool {
	word, _, _ := strings.Cut(state, " ")
	return word == "UP" || state == "no check"
}

// empty says whether a balancer has nothing open on a server and nothing waiting for it. What it does not
// tell is not there.
func empty(row *balancer.Balancer) bool {
	none := func(n *int) bool { return n == nil || *n == 0 }
	return none(row.Sessions) && none(row.Queued)
}

// takesOut says whether an override takes a server out of service, by its word in the report.
func takesOut(word string) bool { return word == "drain" || word == "down" || word == "maint" }

// healthy says whether an answer was one that balancers count as up.
func healthy(a balancer.Answer) bool { return a.Code >= 200 && a.Code < 400 && !takesOut(a.Override) }
