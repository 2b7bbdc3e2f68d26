package proxy

import (
	"bufio"
	"cmp"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// Overrides tells all that operators have said; *spool.Index does.
type Overrides interface {
	List() []spool.Entry // in force now, by name
	Stats() spool.Stats
	DirectoryStatus() spool.DirectoryStatus
}

// overview is the document at /overview, which the page at / shows. Ages are seconds before Now.
type overview struct {
	overviewHead
	// Overrides are first what covers the whole host, then the rest by name.
	Overrides []overviewRow `json:"overrides"`
	// Services have no override of their own, and were asked about lately: those that fail first, then the
	// rest, by name.
	Services []overviewRow `json:"services"`
}

type overviewHead struct {
	Host      string  `json:"host"` // this machine's name, "" when it is not known
	Now       float64 `json:"now"`  // unix seconds, by the clock that since and until are meant by
	Uptime    float64 `json:"uptime"`
	AgentOnly bool    `json:"agent_only"` // -S: overrides reach balancers through the agent alone
	// SpoolLost says that the spool directory is not where it was, and that the last known overrides stand.
	SpoolLost bool `json:"spool_lost"`
	Slot      int  `json:"slot"` // seconds that a letter of Answers stands for
}

// overviewRow is one override, or one service.
type overviewRow struct {
	Service string `json:"service"`
	Host    string `json:"host,omitempty"` // of an override of one instance
	Port    uint16 `json:"port,omitempty"`

	State string `json:"state"`
	By    string `json:"by,omitempty"` // what an override is about that decides State and is not in this row

	Reason string   `json:"reason,omitempty"` // by whom, too, as far as anyone knows: hadown puts the user there
	Since  *float64 `json:"since,omitempty"`  // unix seconds; absent when not known
	Until  *float64 `json:"until,omitempty"`  // unix seconds; absent when it does not end by itself

	Last    *overviewAnswer `json:"last"`              // nil when nobody has asked about the service lately
	Answers string          `json:"answers,omitempty"` // see text
	Took    string          `json:"took,omitempty"`

	Balancers []overviewView  `json:"balancers,omitempty"`
	Agents    []overviewAgent `json:"agents,omitempty"`
}

// The states in a row besides those of an override, for which there are the words of the commands.
const (
	stateUp      = "up"
	stateFailing = "failing"
	stateReady   = "ready"   // asked about by agent checks alone, which hear of overrides only
	stateUnasked = "unasked" // not asked about lately, or not since an override ended
)

// overviewAnswer is the last answer about a service.
type overviewAnswer struct {
	Code int      `json:"code"`
	Why  string   `json:"why,omitempty"` // of an answer by no service: "refused", "timeout"…
	Ago  float64  `json:"ago"`
	By   string   `json:"by,omitempty"` // the state of the override that answered
	Age  float64  `json:"age"`          // of the check's result at that time
	Took *float64 `json:"took"`         // by the check, in seconds; nil when none was needed
}

// overviewView is how a balancer sees one server.
type overviewView struct {
	Name     string  `json:"name"`             // its node, or else where it asks from
	Server   string  `json:"server,omitempty"` // what it calls the server, or else what it asks for
	State    string  `json:"state,omitempty"`  // in its words; "" when it sends none
	Sessions *int    `json:"sessions"`         // open ones; nil when it does not say
	Queued   int     `json:"queued,omitempty"`
	Silent   bool    `json:"silent"`
	Ago      float64 `json:"ago"`  // since it asked
	Code     int     `json:"code"` // it was told

	override string
}

// overviewAgent is what an agent check was told last.
type overviewAgent struct {
	Address string  `json:"address"`
	Answer  string  `json:"answer"`
	Ago     float64 `json:"ago"`
}

const (
	// oldAnswer is after how long an answer to no balancer says nothing about now.
	oldAnswer = time.Minute
	// maxShown is how much of a reason, or of whatever comes from elsewhere, the page shows, in bytes;
	// hastatus shows all.
	maxShown = 500
)

// latest is what recent knows about one service.
type latest struct {
	at       time.Time
	answered bool
	code     int
	history  history
	marks    [historySlots]mark
}

// latest returns the services asked about since then, by name.
func (t *recent) latest(then, now time.Time) map[string]*latest {
	all := map[string]*latest{}
	t.services.each(func(name string, s *seenService) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.at.Before(then) {
			all[name] = &latest{s.at, s.answered, s.code, s.history, s.history.marks(now)}
		}
		return true
	})
	return all
}

// overview puts together what everybody knows.
func (s *Server) overview() *overview {
	report := s.balancers("")
	said := s.overrides.List()
	now := time.Now()
	b := overviewBuilder{
		now: now, seen: s.recent.latest(now.Add(-recentFor), now),
		views: map[string][]balancer.Balancer{}, agents: map[string][]balancer.Agent{},
		own: map[string]*spool.Entry{}, instances: map[string]*spool.Entry{},
	}
	for from, to := 0, 0; from < len(report.Balancers); from = to { // they are sorted by service
		for to < len(report.Balancers) && report.Balancers[to].Service == report.Balancers[from].Service {
			to++
		}
		b.views[report.Balancers[from].Service] = report.Balancers[from:to]
	}
	for _, a := range report.Agents {
		b.agents[a.Service] = append(b.agents[a.Service], a)
	}
	for i := range said {
		e := &said[i]
		if e.Key.Port == 0 {
			b.own[e.Key.Service] = e
		} else if was := b.instances[e.Key.Service]; was == nil || was.State < e.State {
			b.instances[e.Key.Service] = e
		}
	}

	doc := &overview{overviewHead{
		Now: unixSeconds(now), Uptime: now.Sub(s.started).Seconds(), AgentOnly: report.AgentOnly,
		SpoolLost: s.overrides.Stats().Lost, Slot: historySlot,
	}, make([]overviewRow, len(said)), nil}
	doc.Host, _ = os.Hostname() // a page without a name is better than none
	for i := range said {
		doc.Overrides[i] = b.override(&said[i])
	}
	slices.SortStableFunc(doc.Overrides, func(x, y overviewRow) int { return wholeHost(x) - wholeHost(y) })

	names := map[string]bool{}
	for name := range b.seen {
		names[name] = b.own[name] == nil
	}
	for name := range b.agents {
		if spool.ValidService(name) { // and no instance
			names[name] = b.own[name] == nil && name != spool.All
		}
	}
	doc.Services = make([]overviewRow, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if names[name] {
			doc.Services = append(doc.Services, b.service(name))
		}
	}
	slices.SortStableFunc(doc.Services, func(x, y overviewRow) int { return failing(x) - failing(y) })
	return doc
}

// writeJSON writes the document row by row: there may be 10,000, and the whole text of them would be the largest
// thing in the daemon's memory.
func (o *overview) writeJSON(w io.Writer) error {
	b := bufio.NewWriterSize(w, 16<<10)
	list := func(name string, rows []overviewRow) error {
		_, _ = b.WriteString(name + "[")
		for i := range rows {
			if i > 0 {
				_ = b.WriteByte(',')
			}
			row, err := marshal(&rows[i])
			if err != nil {
				return err
			}
			_, _ = b.Write(row)
		}
		return b.WriteByte(']') // the writer keeps its first error
	}
	if err := list(`{"overrides":`, o.Overrides); err != nil {
		return err
	}
	if err := list(`,"services":`, o.Services); err != nil {
		return err
	}
	head, err := marshal(&o.overviewHead)
	if err != nil {
		return err
	}
	_ = b.WriteByte(',')
	_, _ = b.Write(head[1:])
	return b.Flush()
}

func wholeHost(r overviewRow) int {
	if r.Service == spool.All && r.Port == 0 {
		return 0
	}
	return 1
}

func failing(r overviewRow) int {
	if r.State == stateFailing {
		return 0
	}
	return 1
}

// overviewBuilder has what is known, by service.
type overviewBuilder struct {
	now       time.Time
	seen      map[string]*latest
	views     map[string][]balancer.Balancer
	agents    map[string][]balancer.Agent
	own       map[string]*spool.Entry // about a service as a whole, or all
	instances map[string]*spool.Entry // the strongest about an instance
}

// override is the row of one override.
func (b *overviewBuilder) override(e *spool.Entry) overviewRow {
	r := overviewRow{
		Service: e.Key.Service, Host: e.Key.Host, Port: e.Key.Port,
		State: stateWord(e.State), Reason: oneLine(e.Reason),
	}
	if !e.Created.IsZero() {
		at := unixSeconds(e.Created)
		r.Since = &at
	}
	if !e.Expires.IsZero() {
		at := unixSeconds(e.Expires)
		r.Until = &at
	}
	if e.Key.Port == 0 {
		b.asked(&r)
	}
	r.Balancers = b.viewsOf(e.Key)
	r.Agents = b.agentsOf(e.Key.Name())
	return r
}

// service is the row of a service without an override of its own.
func (b *overviewBuilder) service(name string) overviewRow {
	r := overviewRow{Service: name}
	b.asked(&r)
	r.Balancers = b.viewsOf(spool.Key{Service: name})
	r.Agents = b.agentsOf(name)
	if all := b.own[spool.All]; all != nil {
		r.State, r.By = stateWord(all.State), spool.All
		return r
	}

	// Of several instances, each is asked about by itself: the last answer about the service would be one
	// or another. What each balancer was told last about each server is steadier.
	var up, fails, overridden, asked bool
	count := func(code int, override string) {
		asked = true
		up = up || override == "" && code == 200
		fails = fails || override == "" && code != 200
		overridden = overridden || override != ""
	}
	for _, v := range r.Balancers {
		if !v.Silent {
			count(v.Code, v.override)
		}
	}
	if l := r.Last; !asked && l != nil && l.Ago <= oldAnswer.Seconds() {
		count(l.Code, l.By)
	}
	instance := b.instances[name]
	switch {
	case fails:
		r.State = stateFailing
	case up:
		r.State = stateUp
	case overridden && instance != nil:
		r.State, r.By = stateWord(instance.State), instance.Key.Name()
	case !asked && slices.ContainsFunc(r.Agents, func(a overviewAgent) bool { return a.Ago <= oldAnswer.Seconds() }):
		r.State = stateReady
	default:
		r.State = stateUnasked
	}
	return r
}

// asked fills in how the service of r was answered for.
func (b *overviewBuilder) asked(r *overviewRow) {
	l := b.seen[r.Service]
	if l == nil || !l.answered {
		return
	}
	r.Answers, r.Took = text(&l.marks)
	a := &overviewAnswer{Code: l.code, Ago: max(b.now.Sub(l.at), 0).Seconds(), Age: float64(l.history.age) / 1e3}
	if l.history.last.override != spool.Ready {
		a.By = stateWord(l.history.last.override)
	} else if why := l.history.last.why; why != check.ReasonOK {
		a.Why = why.String()
	}
	if l.history.took > 0 {
		took := float64(l.history.took) / 1e6
		a.Took = &took
	}
	r.Last = a
}

// viewsOf returns how balancers see the servers that k is about.
func (b *overviewBuilder) viewsOf(k spool.Key) []overviewView {
	var list []overviewView
	for _, v := range b.views[k.Service] {
		if k.Port != 0 && (v.Port != k.Port || v.Host != k.Host && (k.Host != "" || !v.Here)) {
			continue
		}
		w := overviewView{
			Name: cmp.Or(v.Node, v.Address), Server: cmp.Or(v.Server, v.URL), State: v.State, Sessions: v.Sessions,
			Silent: v.Silent, Ago: v.Last.Ago, Code: v.Last.Code, override: v.Last.Override,
		}
		if v.Queued != nil {
			w.Queued = *v.Queued
		}
		list = append(list, w)
	}
	return list
}

func (b *overviewBuilder) agentsOf(name string) []overviewAgent {
	var list []overviewAgent
	for _, a := range b.agents[name] {
		list = append(list, overviewAgent{a.Address, oneLine(a.Answer), a.Ago})
	}
	return list
}

// stateWord is a state as the commands say it: in the spool file "up" is what forces a service up.
func stateWord(s spool.State) string {
	if s == spool.ForceUp {
		return "force-up"
	}
	return s.String()
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// oneLine is what a page shows of a text from elsewhere.
func oneLine(s string) string {
	if len(s) <= maxShown {
		return textfmt.OneLine(s)
	}
	return textfmt.Truncate(s, maxShown) + "…"
}
