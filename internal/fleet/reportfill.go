package fleet

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
)

// reportFor is how long a report is shared. A change by this host ends that: a command sees what the one before it did.
const reportFor = 2 * time.Second

// reportCache has the last report. Callers that come at the same time share one read.
type reportCache struct {
	p *permits

	reading chan struct{} // held while etcd is read; made on first use
	once    sync.Once

	mu   sync.Mutex
	last *report.Fleet
	at   time.Time
	err  error
}

// Report reads the fleet. See Service.
func (f *Fleet) Report(ctx context.Context) (*report.Fleet, error) {
	return f.permits.reports.get(ctx)
}

func (c *reportCache) get(ctx context.Context) (*report.Fleet, error) {
	c.once.Do(func() { c.reading = make(chan struct{}, 1) })
	select {
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	isOld := c.at.IsZero() || time.Since(c.at) >= reportFor
	if isOld || c.err == nil && c.last.Revision < c.p.conn().written.Load() {
		c.read(context.WithoutCancel(ctx)) // other callers share it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.document()
}

func (c *reportCache) read(ctx context.Context) {
	snap, err := c.p.readSnapshot(ctx, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.err = time.Now(), err
	if err != nil {
		return
	}
	c.last = c.p.document(snap)
}

// document returns a copy of the last report with what is known without etcd.
func (c *reportCache) document() (*report.Fleet, error) {
	p := c.p
	d := report.Fleet{
		Overrides: []report.Override{}, Services: []report.Service{}, Hosts: []report.Host{}, Queue: []report.Claim{}, Permits: []report.Permit{},
		Budgets: []report.Budget{},
	}
	if c.last != nil {
		d = *c.last
	}
	d.Self, d.Prefix, d.Connected = p.f.o.Host, p.f.o.Prefix, c.err == nil
	status := p.f.Status()
	d.Left, d.Overrides = status.Left, p.addLost(d.Overrides)
	d.Error = status.Error
	if c.err != nil {
		d.Error = cause(c.err).Error()
		_, since, _ := p.conn().status()
		if !since.IsZero() {
			d.Since = &since
		}
	}
	return &d, nil
}

// document describes what etcd has.
func (p *permits) document(snap *snapshot) *report.Fleet {
	now := p.now()
	d := &report.Fleet{
		Revision: snap.revision, ReadAt: now.UTC(),
		Overrides: snap.overrideReports(now), Services: snap.serviceReports(), Hosts: snap.hostReports(),
		Queue: []report.Claim{}, Permits: []report.Permit{}, Budgets: []report.Budget{},
	}
	for _, service := range slices.Sorted(maps.Keys(snap.budgets)) {
		d.Budgets = append(d.Budgets, report.Budget{Service: service, Rule: snap.budgets[service].rule()})
	}
	for _, q := range snap.queue {
		d.Queue = append(d.Queue, report.Claim{Host: q.Host, Services: q.Services, By: q.By, Reason: q.Reason, At: q.At, Waiting: q.Waiting})
	}
	for _, host := range slices.Sorted(maps.Keys(snap.permits)) {
		h := snap.permits[host]
		r := report.Permit{Host: host, Services: h.Services, Phase: h.Phase, By: h.By, Reason: h.Reason, At: h.At, Waiting: h.Waiting}
		if h.unreadable {
			r.Services, r.Waiting = []string{spool.All}, "it cannot be read"
		}
		d.Permits = append(d.Permits, r)
	}
	return d
}

func (snap *snapshot) overrideReports(now time.Time) []report.Override {
	list := []report.Override{}
	for _, o := range snap.overrides {
		if o.Lifted != nil || o.Expires != nil && !now.Before(*o.Expires) {
			continue
		}
		list = append(list, report.Override{
			Scope: o.scope, Service: o.service, State: o.State, Reason: o.Reason, By: o.By, Created: o.Created, Expires: o.Expires,
		})
	}
	slices.SortFunc(list, func(a, b report.Override) int {
		return cmp.Or(scopeRank(a.Scope)-scopeRank(b.Scope), strings.Compare(a.Scope, b.Scope), strings.Compare(a.Service, b.Service))
	})
	return list
}

// addLost adds the overrides that this host obeys and etcd does not have. The list is not changed.
func (p *permits) addLost(list []report.Override) []report.Override {
	list = slices.Clone(list)
	for _, e := range p.f.o.Overrides.List() {
		if e.Scope == "" || slices.ContainsFunc(list, func(o report.Override) bool { return o.Scope == e.Scope && o.Service == e.Key.Name() }) {
			continue
		}
		o := report.Override{Scope: e.Scope, Service: e.Key.Name(), State: e.State.String(), Reason: e.Reason, By: e.By, Created: e.Created, Lost: true}
		if !e.Expires.IsZero() {
			o.Expires = &e.Expires
		}
		list = append(list, o)
	}
	return list
}

func (snap *snapshot) serviceReports() []report.Service {
	list := []report.Service{}
	for _, service := range slices.Sorted(maps.Keys(snap.states)) {
		s := report.Service{Name: service, Budget: snap.limit(service), Rule: snap.budget(service).rule(), Members: []report.Member{}}
		isOut := map[string]bool{}
		for _, m := range snap.outOf(service, "") {
			isOut[m.host] = true
		}
		for _, host := range slices.Sorted(maps.Keys(snap.states[service])) {
			s.Members = append(s.Members, snap.memberReport(service, host, isOut[host]))
		}
		s.Out = len(isOut)
		list = append(list, s)
	}
	return list
}

func (snap *snapshot) memberReport(service, host string, isOut bool) report.Member {
	s := snap.states[service][host]
	h, hasPermit := snap.permits[host]
	m := report.Member{
		Host: host, State: s.State, Out: isOut, Until: s.Until, Reason: s.Reason, By: s.By, Scope: s.Scope,
		Permit: hasPermit && h.covers(service), BalancersOut: s.Out,
	}
	if !s.Since.IsZero() {
		m.Since = &s.Since
	}
	if !snap.isPresent(host) {
		m.State = "absent"
		if since, ok := snap.absentSince[host]; ok {
			m.Since = &since
		}
	}
	return m
}

func (snap *snapshot) hostReports() []report.Host {
	names := map[string]bool{}
	lastChange := map[string]time.Time{}
	for host := range snap.present {
		names[host] = true
	}
	for host := range snap.applied {
		names[host] = true
	}
	for host := range snap.permits {
		names[host] = true
	}
	for _, members := range snap.states {
		for host, s := range members {
			names[host] = true
			if s.Since.After(lastChange[host]) {
				lastChange[host] = s.Since
			}
		}
	}
	list := []report.Host{}
	for _, host := range slices.Sorted(maps.Keys(names)) {
		h := report.Host{Name: host, Groups: snap.groupsOf(host), Revision: snap.applied[host].Revision, Left: snap.applied[host].Left, Error: snap.applied[host].Error}
		since, isKnown := snap.absentSince[host]
		if !isKnown {
			since = lastChange[host]
		}
		if p, ok := snap.present[host]; ok {
			h.Present, h.Version = true, p.Version
			since = p.Started
		}
		if !since.IsZero() {
			h.Since = &since
		}
		list = append(list, h)
	}
	return list
}

// cause returns why etcd could not be asked, without the words of UnavailableError: the documents say that themselves.
func cause(err error) error {
	if u, ok := errors.AsType[*UnavailableError](err); ok {
		return u.Err
	}
	return err
}
