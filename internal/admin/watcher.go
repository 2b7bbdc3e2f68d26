package admin

import (
	"slices"
	"time"

	"hacheck/internal/balancer"
)

const (
	// quietFor is how long nobody must have asked about a service before there is nothing to wait for, and
	// how long a daemon must have listened before it can be said to know everybody who asks.
	quietFor = 10 * time.Second
	// silentFor is how long a balancer that falls silent while it is waited for may stay so, before it counts
	// as one that will not come back in time.
	silentFor = 30 * time.Second
	// reappear is in how many of its intervals a balancer must be known again to a daemon that has started
	// anew: one that sends no state is known from its third request on.
	reappear = 4
	// agentFor is for how long an agent connection counts after its last question.
	agentFor = 30 * time.Second
	// maxViews is how many views are watched. The daemon has not as many, but who knows what answers there.
	maxViews = 20_000
	// drift is by how much two clocks may part between two reports.
	drift = 100 * time.Millisecond
)

// watcher decides from one report of the daemon after the other whether the balancers have followed an
// override, or its end. Moments are lengths of time since the command began, by its own clock that nobody
// sets; the daemon's are ages, so that no two clocks have to agree.
type watcher struct {
	targets []target
	up      bool // waits for servers to be back, rather than out
	fall    int  // answers after which a balancer that sends no state has a server out

	written time.Duration // when the command had written; negative until then
	views   []*view       // in the order they were found
	index   map[viewKey]*view
	checks  map[string][]*view               // those that checks come from in the report at hand, by address
	agents  map[string]map[string]*agentView // by address, and what they ask about
	report  *balancer.Report                 // the latest; nil before the first
	asked   time.Duration                    // when it was asked for: it cannot be older
	now     time.Duration                    // when it had come: it cannot be newer

	started  time.Duration // when the daemon had begun to listen, at the latest
	restarts int           // of the daemon, since the first report
	learned  bool          // the daemon has listened long enough to know who asks
	crowded  bool          // there are more balancers than maxViews
}

func newWatcher(targets []target, up bool, fall int) *watcher {
	return &watcher{
		targets: targets, up: up, fall: fall, written: -1,
		index: map[viewKey]*view{}, agents: map[string]map[string]*agentView{},
	}
}

// wrote tells the watcher that the override is in force, or gone, for every request from now on.
func (w *watcher) wrote(now time.Duration) { w.written = now }

// after says whether what was that long ago in the latest report was after the command had written. Where
// the report's own age leaves it open, it was not.
func (w *watcher) after(ago float64) bool { return w.written >= 0 && w.asked-seconds(ago) >= w.written }

// see takes up a report that was asked for at one moment and came at another.
func (w *watcher) see(r *balancer.Report, asked, now time.Duration) {
	if w.report != nil && asked-seconds(r.Uptime) > w.started+drift {
		w.restarts++
	}
	w.report, w.asked, w.now, w.started = r, asked, now, now-seconds(r.Uptime)
	w.learned = w.learned || seconds(r.Uptime) >= quietFor
	w.seeAgents()

	for _, v := range w.views {
		v.seen = false
	}
	for _, row := range r.Balancers {
		if slices.ContainsFunc(w.targets, func(t target) bool { return concerns(t.key, row) }) {
			w.seeRow(row)
		}
	}
	w.checks = map[string][]*view{}
	for _, v := range w.views {
		if v.seen && !v.row.Silent && !v.key.agent {
			w.checks[v.key.address] = append(w.checks[v.key.address], v)
		}
	}
	w.seeBareAgents()
	w.views = slices.DeleteFunc(w.views, func(v *view) bool {
		// Nobody waits for it, or its checks are seen instead.
		over := !v.seen && (v.status == idle || v.key.agent && w.checksFrom(v.key))
		if over {
			delete(w.index, v.key)
		}
		return over
	})
	for _, v := range w.views {
		w.judge(v)
	}
}

// seeRow takes up one row of a report.
func (w *watcher) seeRow(row balancer.Balancer) {
	k := viewKey{service: row.Service, address: row.Address, node: row.Node, server: row.Server}
	if row.Server == "" {
		k.url = row.URL
	}
	at := waiting
	// A server in maintenance is not checked, and is silent until its agent has read that this is over.
	if row.Silent && (!w.up || len(w.agentsOf(row)) == 0) {
		at = idle
	}
	w.take(k, row, at)
}

// take makes row the latest of a view; at is where one that is new begins.
func (w *watcher) take(k viewKey, row balancer.Balancer, at status) {
	v := w.index[k]
	if v == nil {
		if len(w.views) >= maxViews {
			w.crowded = true
			return
		}
		v = &view{key: k, status: at, since: w.now}
		w.index[k], w.views = v, append(w.views, v)
	}
	v.row, v.seen = row, true
}

// verdict says what there is to be done: wait on, or end with followed or lost.
func (w *watcher) verdict() status {
	if w.report == nil || w.written < 0 || w.asked < w.written {
		return waiting
	}
	end := followed
	for _, v := range w.views {
		switch v.status {
		case waiting:
			return waiting
		case lost:
			end = lost
		case followed, idle:
		}
	}
	for _, t := range w.targets {
		if !w.known(t) && !w.nobody(t) {
			return waiting
		}
	}
	if !w.learned || end == followed && (w.crowded || len(unrecorded(w.targets, w.report)) > 0) {
		return waiting
	}
	return end
}

// known says whether there is a balancer that is waited for, or was, for a target.
func (w *watcher) known(t target) bool {
	return slices.ContainsFunc(w.views, func(v *view) bool { return v.status != idle && w.about(t, v) })
}
