package web

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

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
	r.Balancers = b.balancersOf(e.Key)
	r.Agents = b.agentsOf(e.Key.Name())
	return r
}

// service returns the row of a service without an override of its own.
func (b *overviewBuilder) service(name string) overviewRow {
	r := overviewRow{Service: name}
	b.addLast(&r)
	r.Balancers = b.balancersOf(spool.Key{Service: name})
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

// balancersOf returns how balancers see the servers that k covers.
func (b *overviewBuilder) balancersOf(k spool.Key) []overviewBalancer {
	var list []overviewBalancer
	for _, v := range b.views[k.Service] {
		if !k.Covers(spool.Key{Service: k.Service, Host: v.Host, Port: v.Port}, v.Local) {
			continue
		}
		w := overviewBalancer{
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
