package balancer

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report says what is known of the balancers that ask about service, or about any when it is "". Services
// and AgentOnly are the HTTP door's to fill in.
func (t *Table) Report(service string) Report {
	now := t.now()
	r := Report{
		Uptime: now.Sub(t.started).Seconds(), NotKept: t.notKept.count(t.age(now)),
		Services: []LastRequest{}, Balancers: []Balancer{}, Agents: t.agentsOf(service, now), Unrecorded: []Unrecorded{},
	}
	for _, s := range t.take(service, now, &r) {
		r.NotKept += s.missed.count(t.age(now))
		s.mu.Lock()
		for _, w := range s.rows {
			r.Balancers = append(r.Balancers, w.report(s.name, now))
		}
		s.mu.Unlock()
	}
	slices.SortFunc(r.Unrecorded, func(a, b Unrecorded) int {
		return cmp.Or(cmp.Compare(a.Ago, b.Ago), strings.Compare(a.Service, b.Service), strings.Compare(a.Client, b.Client))
	})
	slices.SortFunc(r.Balancers, func(a, b Balancer) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Node, b.Node),
			strings.Compare(a.Address, b.Address), strings.Compare(a.Server, b.Server), strings.Compare(a.URL, b.URL))
	})
	return r
}

// take returns what is known of service, or of all, and appends to r what is not known.
func (t *Table) take(service string, now time.Time, r *Report) []*Service {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Unrecorded = t.missedServices.list(r.Unrecorded, service, now)
	r.Unrecorded = t.missedAgents.list(r.Unrecorded, service, now)
	r.Unrecorded = append(r.Unrecorded, t.missedAgents.others(time.Time{}, now)...)
	services := []*Service{t.services[service]}
	if service == "" {
		services = slices.AppendSeq(make([]*Service, 0, len(t.services)), maps.Values(t.services))
		r.Balancers = make([]Balancer, 0, t.rows.Len())
	} else if services[0] == nil {
		return nil
	}
	for _, s := range services {
		if t.forget(s, now); now.Sub(s.lost) <= unrecordedFor {
			r.Unrecorded = append(r.Unrecorded, Unrecorded{Service: s.name, Client: clientName(s.lostBy), Ago: ago(now, s.lost)})
		}
	}
	return services
}

// report is w as the document shows it.
func (w *row) report(service string, now time.Time) Balancer {
	b := Balancer{
		Service: service, Host: w.host, Port: w.port, Here: w.here, URL: printable(w.url, maxName),
		Address: w.key.peer, Node: printable(w.key.node, maxName), Server: printable(w.key.name, maxName),
		Interval: w.interval().Seconds(),
		Silent:   now.Sub(w.last.at) > w.silence(),
		Asked:    ago(now, w.came),
		Last:     w.last.report(now),
		Out:      w.out,
		Alike:    w.alike,
		Same:     ago(now, w.same),
	}
	if w.sent {
		b.setState(string(w.state))
	}
	if w.previous.code != 0 {
		p := w.previous.report(now)
		b.Previous = &p
	}
	return b
}

func (a answer) report(now time.Time) Answer {
	return Answer{Ago: ago(now, a.at), Code: a.code, Override: a.override.String()}
}

func ago(now, at time.Time) float64 { return max(now.Sub(at), 0).Seconds() }
