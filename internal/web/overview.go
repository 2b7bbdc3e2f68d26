package web

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
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// overview is the document at /overview, which the page at / shows. Ages are seconds before Now.
type overview struct {
	overviewHead
	// Overrides are first those of the whole host, then the rest by name.
	Overrides []overviewRow `json:"overrides"`
	// Services have no override of their own and had a request lately: first those that fail, then the rest, by name.
	Services []overviewRow `json:"services"`
}

type overviewHead struct {
	Host      string  `json:"host"` // this machine's name, "" if it is not known
	Now       float64 `json:"now"`  // unix seconds, by the clock of since and until
	Uptime    float64 `json:"uptime"`
	AgentOnly bool    `json:"agent_only"` // -S: overrides reach balancers through the agent alone
	// SpoolLost says that the spool directory is not where it was, and that the last known overrides stand.
	SpoolLost bool `json:"spool_lost"`
	Slot      int  `json:"slot"` // seconds for which a letter of Answers stands

	Fleet         *report.Status `json:"fleet,omitempty"`          // nil without a fleet
	FleetWarnings []string       `json:"fleet_warnings,omitempty"` // what is wrong with it, one sentence each
	Certificate   string         `json:"certificate,omitempty"`    // of tls_listen: when it expires, and what is wrong

	Weights []overviewWeight `json:"weights,omitempty"` // in force, by name
}

// overviewWeight is a weight in force.
type overviewWeight struct {
	Service string   `json:"service"`
	Host    string   `json:"host,omitempty"`
	Port    uint16   `json:"port,omitempty"`
	Weight  int      `json:"weight"`           // percent
	SetBy   string   `json:"set_by,omitempty"` // who has set it
	Since   float64  `json:"since"`            // unix seconds
	Until   *float64 `json:"until,omitempty"`  // unix seconds; absent if it does not end by itself
}

// overviewWeights returns the rows of list.
func overviewWeights(list []spool.Weight) []overviewWeight {
	var rows []overviewWeight
	for _, w := range list {
		r := overviewWeight{
			Service: w.Key.Service, Host: w.Key.Host, Port: w.Key.Port,
			Weight: w.Percent, SetBy: oneLine(w.By), Since: unixSeconds(w.Created),
		}
		if !w.Expires.IsZero() {
			until := unixSeconds(w.Expires)
			r.Until = &until
		}
		rows = append(rows, r)
	}
	return rows
}

// overviewRow is one override, or one service.
type overviewRow struct {
	Service string `json:"service"`
	Host    string `json:"host,omitempty"` // of an override of one instance
	Port    uint16 `json:"port,omitempty"`

	State    string `json:"state"`
	Covering string `json:"by,omitempty"` // the name of an override in another row that decides State

	Reason    string   `json:"reason,omitempty"`
	SetBy     string   `json:"set_by,omitempty"`     // who has set the override
	Scope     string   `json:"scope,omitempty"`      // of an override of the fleet: all, group:NAME or host:NAME
	Lost      bool     `json:"lost,omitempty"`       // its key is gone from etcd, and this host keeps the override
	Since     *float64 `json:"since,omitempty"`      // unix seconds; absent if it is not known
	Until     *float64 `json:"until,omitempty"`      // unix seconds; absent if the override does not end by itself
	UntilBoot bool     `json:"until_boot,omitempty"` // the override ends with the next start of the machine

	Last    *overviewAnswer `json:"last"`              // nil without a request lately
	Answers string          `json:"answers,omitempty"` // see marksText
	Took    string          `json:"took,omitempty"`

	Balancers []overviewView  `json:"balancers,omitempty"`
	Agents    []overviewAgent `json:"agents,omitempty"`
}

// The states of a row without an override. The states of overrides have the words of the commands.
const (
	stateUp      = "up"
	stateFailing = "failing"
	stateReady   = "ready"   // only agent checks ask, and they get overrides only
	stateIdle    = "unasked" // no request lately, or none since an override ended
)

// overviewAnswer is the last answer about a service.
type overviewAnswer struct {
	Code     int      `json:"code"`
	Why      string   `json:"why,omitempty"` // of an answer that is not the service's: "refused", "timeout"…
	Ago      float64  `json:"ago"`
	Override string   `json:"by,omitempty"` // the state of the override that answered
	Age      float64  `json:"age"`          // of the check's result at that time
	Took     *float64 `json:"took"`         // by the check, in seconds; nil when none was needed
}

// overviewView is how a balancer sees one server.
type overviewView struct {
	Name     string  `json:"name"`             // its node, or else its address
	Server   string  `json:"server,omitempty"` // its name for the server, or else the URL
	State    string  `json:"state,omitempty"`  // in its words; "" if it sends none
	Sessions *int    `json:"sessions"`         // open ones; nil if it sends no number
	Queued   int     `json:"queued,omitempty"`
	Silent   bool    `json:"silent"`
	Ago      float64 `json:"ago"`  // since its last request
	Code     int     `json:"code"` // of the answer

	override string
}

// overviewAgent is the last answer to an agent check.
type overviewAgent struct {
	Address string  `json:"address"`
	Answer  string  `json:"answer"`
	Ago     float64 `json:"ago"`
}

const (
	// oldAnswer is the largest age of an answer that decides the state of a service without balancers.
	oldAnswer = time.Minute
	// maxShown bounds what the page shows of a reason, or of any text from elsewhere, in bytes; hastatus shows all of it.
	maxShown = 500
)

// certificateLine returns what the page says about the certificate of tls_listen.
func certificateLine(expires time.Time, broken bool, now time.Time) string {
	line := "The TLS certificate expires on " + expires.UTC().Format(time.DateTime) + " UTC"
	if left := expires.Sub(now); left < 0 {
		line = "The TLS certificate has expired on " + expires.UTC().Format(time.DateTime) + " UTC"
	} else {
		line += ", in " + textfmt.Seconds(left.Seconds())
	}
	if broken {
		line += ". Its files have changed and cannot be used: see the log of hacheck"
	}
	return line + "."
}

// buildOverview returns the document as of now.
func (s *Server) buildOverview() *overview {
	balancers := s.balancers("")
	overrides := s.overrides.List()
	now := time.Now()
	b := newOverviewBuilder(now, &balancers, overrides)
	b.recent = s.recent.latest(now.Add(-recentFor), now)
	doc := &overview{
		overviewHead: overviewHead{
			Now: unixSeconds(now), Uptime: now.Sub(s.started).Seconds(), AgentOnly: balancers.AgentOnly,
			SpoolLost: s.overrides.Stats().Lost, Slot: historySlot, Weights: overviewWeights(s.overrides.Weights()),
		},
		Overrides: make([]overviewRow, len(overrides)),
		Services:  b.services(),
	}
	doc.Host, _ = os.Hostname() // a page without a name is better than none
	if p := s.fleet(); p != nil {
		status := p.fleet.Status()
		doc.Fleet, doc.FleetWarnings = &status, fleetWarnings(status, now)
	}
	if s.cert != nil {
		if expires, broken := s.cert(); !expires.IsZero() {
			doc.Certificate = certificateLine(expires, broken, now)
		}
	}
	for i := range overrides {
		// Of several overrides of a key the first one decides; balancers and answers are shown there.
		decides := i == 0 || overrides[i-1].Key != overrides[i].Key
		doc.Overrides[i] = b.override(&overrides[i], decides)
	}
	textfmt.MoveToFront(doc.Overrides, func(r *overviewRow) bool { return r.Service == spool.All && r.Port == 0 })
	textfmt.MoveToFront(doc.Services, func(r *overviewRow) bool { return r.State == stateFailing })
	return doc
}

// writeJSON writes the document row by row. There may be 10,000 rows, and encoding/json would hold their text twice.
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

// overviewBuilder has what is known about services, by name.
type overviewBuilder struct {
	now       time.Time
	recent    map[string]*latest
	views     map[string][]balancer.ServerView
	agents    map[string][]balancer.Agent
	own       map[string]*spool.Entry // the override of a service as a whole, or of all
	instances map[string]*spool.Entry // the strongest override of an instance
}

// newOverviewBuilder returns a builder without recent.
func newOverviewBuilder(now time.Time, report *balancer.Report, overrides []spool.Entry) *overviewBuilder {
	b := &overviewBuilder{
		now: now, views: map[string][]balancer.ServerView{}, agents: map[string][]balancer.Agent{},
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
	for i := range overrides {
		e := &overrides[i]
		if e.Key.Port == 0 {
			if b.own[e.Key.Service] == nil { // of several the first one decides
				b.own[e.Key.Service] = e
			}
		} else if other := b.instances[e.Key.Service]; other == nil || other.State < e.State {
			b.instances[e.Key.Service] = e
		}
	}
	return b
}

// services returns the rows of the services without an override of their own, by name.
func (b *overviewBuilder) services() []overviewRow {
	names := map[string]bool{}
	for name := range b.recent {
		names[name] = b.own[name] == nil
	}
	for name := range b.agents {
		if spool.ValidService(name) { // and no instance
			names[name] = b.own[name] == nil && name != spool.All
		}
	}
	rows := make([]overviewRow, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if names[name] {
			rows = append(rows, b.service(name))
		}
	}
	return rows
}

// override returns the row of one override. decides says that no other override of its key is stronger.
func (b *overviewBuilder) override(e *spool.Entry, decides bool) overviewRow {
	r := overviewRow{
		Service: e.Key.Service, Host: e.Key.Host, Port: e.Key.Port,
		State: e.State.Word(), Reason: oneLine(e.Reason), SetBy: oneLine(e.By), Scope: oneLine(e.Scope), Lost: e.Lost, UntilBoot: e.Boot != "",
	}
	if !e.Created.IsZero() {
		at := unixSeconds(e.Created)
		r.Since = &at
	}
	if !e.Expires.IsZero() {
		at := unixSeconds(e.Expires)
		r.Until = &at
	}
	if !decides {
		return r
	}
	if e.Key.Port == 0 {
		b.addLast(&r)
	}
	r.Balancers = b.viewsOf(e.Key)
	r.Agents = b.agentsOf(e.Key.Name())
	return r
}

// service returns the row of a service without an override of its own.
func (b *overviewBuilder) service(name string) overviewRow {
	r := overviewRow{Service: name}
	b.addLast(&r)
	r.Balancers = b.viewsOf(spool.Key{Service: name})
	r.Agents = b.agentsOf(name)
	if all := b.own[spool.All]; all != nil {
		r.State, r.Covering = all.State.Word(), spool.All
	} else {
		r.State, r.Covering = b.serviceState(&r)
	}
	return r
}

// serviceState returns the state of a service that no override of the service or of all covers.
//
// Balancers ask about each of several instances, so the last answer about the service is that about any instance. The
// last answer to each balancer about each server is steadier.
func (b *overviewBuilder) serviceState(r *overviewRow) (state, by string) {
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
		count(l.Code, l.Override)
	}
	instance := b.instances[r.Service]
	switch {
	case fails:
		return stateFailing, ""
	case up:
		return stateUp, ""
	case overridden && instance != nil:
		return instance.State.Word(), instance.Key.Name()
	case !asked && slices.ContainsFunc(r.Agents, func(a overviewAgent) bool { return a.Ago <= oldAnswer.Seconds() }):
		return stateReady, ""
	}
	return stateIdle, ""
}

// addLast adds the last answer about the service of r, and those before it.
func (b *overviewBuilder) addLast(r *overviewRow) {
	l := b.recent[r.Service]
	if l == nil || !l.answered {
		return
	}
	r.Answers, r.Took = marksText(&l.marks)
	a := &overviewAnswer{Code: l.code, Ago: max(b.now.Sub(l.at), 0).Seconds(), Age: float64(l.history.age) / 1e3}
	if l.history.last.override != spool.Ready {
		a.Override = l.history.last.override.Word()
	} else if reason := l.history.last.reason; reason != check.ReasonAnswered {
		a.Why = reason.String()
	}
	if l.history.took > 0 {
		took := float64(l.history.took) / 1e6
		a.Took = &took
	}
	r.Last = a
}

// viewsOf returns how balancers see the servers that k covers.
func (b *overviewBuilder) viewsOf(k spool.Key) []overviewView {
	var list []overviewView
	for _, v := range b.views[k.Service] {
		if !k.Covers(spool.Key{Service: k.Service, Host: v.Host, Port: v.Port}, v.Local) {
			continue
		}
		w := overviewView{
			Name: cmp.Or(v.Node, v.Address), Server: cmp.Or(v.Server, v.URL), State: v.State, Sessions: v.Sessions,
			Silent: v.Silent, Ago: v.Last.Age, Code: v.Last.Code, override: v.Last.Override,
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
		list = append(list, overviewAgent{a.Address, oneLine(a.Answer), a.Age})
	}
	return list
}

// unixSeconds returns t in seconds since 1970, to the microsecond.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// oneLine returns what a page shows of a text from elsewhere.
func oneLine(s string) string {
	if len(s) <= maxShown {
		return textfmt.OneLine(s)
	}
	return textfmt.Truncate(s, maxShown) + "…"
}
