package admin

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
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

// agentView is what an agent connection has read.
type agentView struct {
	key  spool.Key
	last time.Duration  // when it last read anything
	out  *time.Duration // when it first read, after the command had written, that the server is out; nil if not
	back *time.Duration // the same for back
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

// seeAgents takes up what agent connections have read.
func (w *watcher) seeAgents() {
	for _, list := range w.agents { // what does not count any more makes room
		maps.DeleteFunc(list, func(_ string, a *agentView) bool { return w.now-a.last > agentFor })
	}
	maps.DeleteFunc(w.agents, func(_ string, list map[string]*agentView) bool { return len(list) == 0 })
	connections := w.connections()
	for _, a := range w.report.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || seconds(a.Ago) > agentFor {
			continue
		}
		list := w.agents[a.Address]
		if list == nil {
			list = map[string]*agentView{}
			w.agents[a.Address] = list
		}
		v := list[a.Service]
		if v == nil {
			v = &agentView{key: key}
			list[a.Service] = v
		}
		v.last = w.now - seconds(a.Ago)
		if !w.after(a.Ago) || a.Alike > 0 && a.Alike < connections[agentKey{a.Address, key}] {
			continue
		}
		at := v.last
		switch words, _, _ := strings.Cut(a.Answer, " #"); words {
		case "up drain", "ready down", "maint down", "ready drain", "maint drain":
			if v.back = nil; v.out == nil {
				v.out = &at
			}
		default:
			if v.out = nil; v.back == nil {
				v.back = &at
			}
		}
	}
}

// agentKey is what is asked about from an address.
type agentKey struct {
	address string
	key     spool.Key
}

// connections says how many agent connections may be behind each that can be told apart, 0 being one. Under -S
// nothing but what they read takes a server out, and what one has read another has not; there is one for each server
// that checks come for from the same address, if it asks about nothing else of the service.
func (w *watcher) connections() map[agentKey]int {
	if !w.report.AgentOnly {
		return nil
	}
	rows := map[string][]balancer.Balancer{}
	for _, row := range w.report.Balancers {
		if !row.Silent {
			rows[row.Address] = append(rows[row.Address], row)
		}
	}
	servers, names := map[agentKey]int{}, map[agentKey]int{}
	for _, a := range w.report.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || seconds(a.Ago) > agentFor {
			continue
		}
		n := 0
		for _, row := range rows[a.Address] {
			if concerns(key, row) {
				n++
			}
		}
		if n > 0 {
			servers[agentKey{a.Address, key}] = n
			names[agentKey{a.Address, spool.Key{Service: key.Service}}]++
		}
	}
	for k := range servers {
		servers[k] -= names[agentKey{k.address, spool.Key{Service: k.key.Service}}] - 1
	}
	return servers
}

// seeBareAgents makes a view of each agent connection from which no checks come: a balancer that only
// connects to the server, or only asks the agent.
func (w *watcher) seeBareAgents() {
	for _, a := range w.report.Agents {
		k := viewKey{service: a.Service, address: a.Address, agent: true}
		v := w.agents[a.Address][a.Service]
		if v == nil || !slices.ContainsFunc(w.targets, func(t target) bool { return covers(t.key, v.key) }) || w.checksFrom(k) {
			continue
		}
		at, known := waiting, w.index[k]
		if a.Silent {
			at = idle
		}
		w.take(k, balancer.Balancer{Service: v.key.Service, Port: v.key.Port, Address: a.Address, Last: balancer.Answer{Ago: a.Ago}, Silent: a.Silent}, at)
		if view := w.index[k]; view != nil {
			view.chance = (known == nil || known.chance) && !a.Known
		}
	}
}

// checksFrom says whether checks come from where an agent connection comes from, about what it asks.
func (w *watcher) checksFrom(agent viewKey) bool {
	key, err := spool.ParseKey(agent.service)
	return err == nil && slices.ContainsFunc(w.checks[agent.address], func(v *view) bool { return concerns(key, v.row) })
}

// agentsOf returns the agent connections that speak for a row's server: from the same address, about the
// service, the instance or all, and not long ago.
func (w *watcher) agentsOf(row balancer.Balancer) []*agentView {
	var list []*agentView
	for _, a := range w.agents[row.Address] {
		if concerns(a.key, row) {
			list = append(list, a)
		}
	}
	return list
}

// concerns says whether an override of k decides what the balancer of a row is told.
func concerns(k spool.Key, row balancer.Balancer) bool {
	switch {
	case k.Service != spool.All && k.Service != row.Service:
		return false
	case k.Port == 0:
		return true
	case k.Port != row.Port:
		return false
	case k.Host == "":
		return row.Here
	}
	return spool.CanonicalHost(k.Host) == spool.CanonicalHost(row.Host)
}

// covers says whether an override of wide is one of narrow as well.
func covers(wide, narrow spool.Key) bool {
	if wide.Service != spool.All && wide.Service != narrow.Service {
		return false
	}
	return wide.Port == 0 || wide.Port == narrow.Port && wide.Host == narrow.Host
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
		return row.Out >= w.fall && w.after(row.Last.Ago)
	case takesOut(row.Last.Override):
		return w.told(row) && w.outFor(row) && empty(row)
	case w.report.AgentOnly:
		// A drained server keeps saying UP, so that what its agent has read has to do.
		read := w.agentOut(row)
		return read != nil && (row.State == "" || w.asked-seconds(row.Last.Ago) > *read && empty(row))
	}
	return false
}

// told says whether a balancer had been answered with an override before it sent its latest request.
func (w *watcher) told(row *balancer.Balancer) bool {
	return row.Previous != nil && takesOut(row.Previous.Override) && w.after(row.Previous.Ago)
}

// agentOut returns when the agent connections that speak for a row had read that the server is out, nil when they
// have not: all that are to read it because of the command, which one about more than its targets is not. Where
// there are none of those, it is when the first of the others had.
func (w *watcher) agentOut(row *balancer.Balancer) *time.Duration {
	var first, last *time.Duration
	for _, a := range w.agentsOf(*row) {
		ours := slices.ContainsFunc(w.targets, func(t target) bool { return covers(t.key, a.key) })
		switch {
		case ours && a.out == nil:
			return nil
		case ours && (last == nil || *a.out > *last):
			last = a.out
		case a.out != nil && (first == nil || *a.out < *first):
			first = a.out
		}
	}
	if last == nil {
		return first
	}
	return last
}

// isBack holds what a balancer says against what it was told. UP is UP with any fraction: at "UP 1/3" the
// server has its share of the sessions still.
func (w *watcher) isBack(v *view) bool {
	row := &v.row
	if v.key.agent {
		a := w.agents[v.key.address][v.key.service]
		return a != nil && a.back != nil
	}
	if !w.after(row.Last.Ago) || !healthy(row.Last) {
		return false
	}
	for _, a := range w.agentsOf(*row) {
		if a.back == nil {
			return false
		}
	}
	if row.State == "" { // two in a row, which is HAProxy's own rise
		return row.Previous != nil && w.after(row.Previous.Ago) && healthy(*row.Previous)
	}
	return in(row.State)
}

// lastWords says whether a balancer that has fallen silent had the server out, and no session open on it.
func (w *watcher) lastWords(v *view) bool {
	return !w.up && out(v.row.State) && v.row.Sessions != nil && empty(&v.row)
}

// out says whether a state of HAProxy's means that the server gets nothing new.
func out(state string) bool {
	word, _, _ := strings.Cut(state, " ")
	return word == "DOWN" || word == "NOLB"
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
	return row.Alike > fall
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

// unrecorded returns the clients that the daemon has no row for although they have asked about a target, or may have.
func unrecorded(targets []target, r *balancer.Report) []balancer.Unrecorded {
	if r.Unrecorded == nil && r.NotKept > 0 { // a daemon that is older than this command does not say who
		return []balancer.Unrecorded{{}}
	}
	var list []balancer.Unrecorded
	for _, u := range r.Unrecorded {
		about := func(t target) bool {
			return t.key.Service == u.Service || t.key.Service == spool.All || u.Service == spool.All || u.Service == ""
		}
		if slices.ContainsFunc(targets, about) {
			list = append(list, u)
		}
	}
	return list
}

// unrecordedText says which client the daemon has no row for, and what to do.
func unrecordedText(u balancer.Unrecorded) string {
	client, about := "a client", "a service, perhaps this one,"
	if u.Client != "" {
		client = textfmt.OneLine(u.Client)
	}
	if u.Service != "" {
		about = textfmt.OneLine(u.Service)
	}
	return fmt.Sprintf("%s asked about %s %s ago and the daemon could not record it, because too many services or balancers were asked about: the daemon's log names the client that asked so much; keep it away by a firewall and run the command again",
		client, about, textfmt.Duration(seconds(u.Ago)))
}

// known says whether there is a balancer that is waited for, or was, for a target.
func (w *watcher) known(t target) bool {
	return slices.ContainsFunc(w.views, func(v *view) bool { return v.status != idle && w.about(t, v) })
}

// about says whether a view is about a target.
func (w *watcher) about(t target, v *view) bool {
	if v.key.agent {
		key, err := spool.ParseKey(v.key.service)
		return err == nil && covers(t.key, key)
	}
	return concerns(t.key, v.row)
}

// nobody says whether a target has not been asked about for quietFor, while the daemon was listening.
func (w *watcher) nobody(t target) bool {
	quiet, _ := w.quiet(t)
	return quiet >= quietFor
}

// quiet is for how long a target has not been asked about, at most since the daemon listens; asked says that it has
// been at all.
func (w *watcher) quiet(t target) (quiet time.Duration, asked bool) {
	quiet = seconds(w.report.Uptime)
	for _, s := range w.report.Services {
		if t.key.Service != spool.All && s.Service != t.key.Service || w.another(t, s) {
			continue
		}
		quiet, asked = min(quiet, seconds(s.Ago)), true
	}
	return quiet, asked
}

// another says whether the latest question about a service was about an instance that is not t: the report
// counts them together, and so a row of another one must have asked at that time.
func (w *watcher) another(t target, s balancer.LastRequest) bool {
	return t.key.Port != 0 && slices.ContainsFunc(w.report.Balancers, func(row balancer.Balancer) bool {
		return row.Service == s.Service && !concerns(t.key, row) && seconds(row.Last.Ago) <= seconds(s.Ago)+time.Second
	})
}

// names returns what to call the balancer and the server of each view: the name it gives itself, with its
// address where two give the same.
func (w *watcher) names() map[*view]string {
	at := map[string]string{}
	twice := map[string]bool{}
	for _, v := range w.views {
		if other, ok := at[v.key.node]; ok && other != v.key.address {
			twice[v.key.node] = true
		}
		at[v.key.node] = v.key.address
	}
	names := make(map[*view]string, len(w.views))
	for _, v := range w.views {
		who, which := v.key.node, v.key.server
		switch {
		case who == "":
			who = v.key.address
		case twice[who]:
			who += " at " + v.key.address
		}
		switch {
		case v.key.agent:
			which = "agent"
		case which == "":
			which = v.row.URL
		}
		names[v] = textfmt.OneLine(who + " (" + which + ")")
	}
	return names
}

// says is what a balancer says of its server, or what is known of it, without how long ago: the text changes
// when something does.
func (w *watcher) says(v *view) string {
	row := &v.row
	var said string
	switch {
	case v.key.agent && w.follows(v):
		said = "has read it, open sessions unknown"
	case v.key.agent:
		said = "has not read it yet"
	case row.State == "" && w.up:
		said = "sends no state, was told " + toldWord(row.Last)
	case row.State == "" && !takesOut(row.Last.Override) && w.report.AgentOnly:
		said = "sends no state, open sessions unknown"
	case row.State == "":
		said = fmt.Sprintf("told %d of %d times, open sessions unknown", min(row.Out, w.fall), w.fall)
	default:
		said = textfmt.OneLine(row.State) + ", " + sessions(row)
	}
	switch {
	case v.status == idle:
		return "silent since before, not waited for; last it said: " + said
	case v.status == lost:
		return "silent, counts as open; last it said: " + said
	case v.quiet && v.status == followed:
		return "silent, and it was " + w.goal() + "; last it said: " + said
	case v.quiet:
		return "silent; last it said: " + said
	case v.status == followed:
		return said + ": " + w.goal()
	case v.key.agent || row.State == "":
	case w.up && !healthy(row.Last):
		said += ", was told " + toldWord(row.Last)
	case !w.up && w.report.AgentOnly && !takesOut(row.Last.Override) && w.agentOut(row) == nil:
		said += ", its agent has not read it yet"
	case !w.up && !w.report.AgentOnly && !w.told(row):
		said += ", not told yet"
	case !w.up && takesOut(row.Last.Override) && out(row.State) && !w.outFor(row):
		said += ", not down yet"
	}
	return said
}

// goal is the word for where the server is wanted.
func (w *watcher) goal() string {
	if w.up {
		return "up"
	}
	return "out"
}

// toldWord is an answer in a word: the override that decided, or the code.
func toldWord(a balancer.Answer) string {
	if takesOut(a.Override) || a.Override == "up" {
		return a.Override
	}
	return fmt.Sprint(a.Code)
}

// sessions says how many sessions a balancer has open on a server.
func sessions(row *balancer.Balancer) string {
	text := "open sessions unknown"
	if row.Sessions != nil {
		text = textfmt.Count(*row.Sessions, "session") + " open"
	}
	if row.Queued != nil && *row.Queued > 0 {
		text += fmt.Sprintf(", %d waiting", *row.Queued)
	}
	return text
}
