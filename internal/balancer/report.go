package balancer

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is the document at /balancers[?service=NAME]. All times are lengths in seconds before the moment
// the report was made, never clock times: whoever reads it compares them with its own clock, which may
// jump.
type Report struct {
	Uptime float64 `json:"uptime"` // since the daemon began to listen
	// AgentOnly is -S: the answers to HTTP checks are the service's own, and what operators say reaches
	// balancers through the agent alone.
	AgentOnly bool          `json:"agent_only"`
	Services  []LastRequest `json:"services"`  // asked about by anyone lately, by name
	Balancers []Balancer    `json:"balancers"` // by service, balancer, server
	Agents    []Agent       `json:"agents"`    // by service, address
	// NotKept counts the requests whose balancer was not remembered because too many were, until there has
	// been none for ten minutes. Of one service when the report is about one, and of services that were not
	// remembered themselves.
	NotKept uint64 `json:"not_kept"`
	// Unrecorded are clients that have asked lately and are in no row, because a table was full; the newest first.
	// As long as there are any about a service, silence about it means nothing.
	Unrecorded []Unrecorded `json:"unrecorded"`
}

// Unrecorded is a client that is in no row.
type Unrecorded struct {
	Service string  `json:"service"` // it asked about; "" for any, when there were too many to remember
	Client  string  `json:"client"`  // its address, or its network of IPv6
	Ago     float64 `json:"ago"`     // since it asked
}

// LastRequest says when a service was last asked about, by a balancer or anybody else.
type LastRequest struct {
	Service string  `json:"service"`
	Ago     float64 `json:"ago"`
}

// Balancer is one balancer's view of one server of this host: it is told apart by remote address and by
// node and name in its X-Haproxy-Server-State header, else by remote address and URL.
type Balancer struct {
	Service string `json:"service"`
	Host    string `json:"host"` // that is checked
	Port    uint16 `json:"port"` // that is checked; 0 when there is none
	Here    bool   `json:"here"` // Host is this machine
	URL     string `json:"url"`  // of the last request

	Address string `json:"address"`          // it asks from
	Node    string `json:"node,omitempty"`   // its name, "node=" of the header
	Server  string `json:"server,omitempty"` // what it calls this server, "name=" of the header: backend/server

	// What the last header said, of the moment before the answer to that request. Without send-state there
	// is no header, State is "" and the pointers are nil.
	State       string `json:"state,omitempty"`    // such as "UP", "UP 1/3", "DOWN 1/2", "NOLB 2/2", "no check"
	Sessions    *int   `json:"sessions"`           // open on this server, first number of "scur="
	Queued      *int   `json:"queued"`             // waiting for this server, "qcur="
	Weight      *int   `json:"weight"`             // of this server, first number of "weight="
	TotalWeight *int   `json:"total_weight"`       // of all usable active servers of the backend, second number
	Throttle    string `json:"throttle,omitempty"` // "throttle=" of a server in slow start

	Interval float64 `json:"interval"` // usual seconds between two requests; 0 until there were two
	Silent   bool    `json:"silent"`   // no request for 3 intervals, and for 5 s

	// Asked is how many seconds ago the last request came; its answer may have taken as long as a check takes.
	Asked    float64 `json:"asked_ago"`
	Last     Answer  `json:"last"`     // to the request that brought State
	Previous *Answer `json:"previous"` // to the one before; nil when there was none
	// Out is how many answers in a row, Last included, said that an override takes the server out.
	Out int `json:"out"`
	// Alike is how many answers in a row, Last included, had the code and override that Last has.
	Alike int `json:"alike"`
	// Same is for how many seconds the answers have had the code and override that Last has.
	Same float64 `json:"same"`
}

// Answer is what a balancer was told.
type Answer struct {
	Ago      float64 `json:"ago"`
	Code     int     `json:"code"`
	Override string  `json:"override,omitempty"` // that decided: "up", "drain", "down", "maint"; "" when none did
}

// Agent is what the agent door last told one address about one service.
type Agent struct {
	Service string  `json:"service"` // or the name of an instance, as in the spool
	Address string  `json:"address"`
	Answer  string  `json:"answer"` // the line, without its newline
	Ago     float64 `json:"ago"`
	// Since is for how many seconds the first two words of the answers have been the same.
	Since float64 `json:"since"`
	// Alike is how many answers in a row, the last included, have had those two words. Connections that ask the
	// same from the same address cannot be told apart: when there are n of them, n answers are one for each.
	Alike int `json:"alike"`
	// Known says that it has asked three times; who has not may be a person.
	Known  bool `json:"known"`
	Silent bool `json:"silent"` // no question for 3 of its intervals, and for 5 s; for 10 s if it is not known
}

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
