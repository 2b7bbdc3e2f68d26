package balancer

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is the document at /balancers[?service=NAME]. All times are ages in seconds at the moment of the report, never
// clock times, because the reader has another clock than the daemon and either may jump.
type Report struct {
	Uptime float64 `json:"uptime"` // since the daemon began to listen
	// AgentOnly is -S: HTTP checks get the service's own answer, and overrides reach balancers through the agent only.
	AgentOnly bool          `json:"agent_only"`
	Services  []LastRequest `json:"services"`  // that any client asked about lately, by name
	Balancers []ServerView  `json:"balancers"` // by service, balancer, server
	Agents    []Agent       `json:"agents"`    // by service, address
	// UnrecordedRequests counts the requests whose balancer got no row because a table was full. It includes requests about
	// services without a row. It starts again from zero after ten minutes without one.
	UnrecordedRequests uint64 `json:"not_kept"`
	// Unrecorded lists clients that asked lately and got no row because a table was full, the newest first. As long as
	// a service has any, the report of its balancers is incomplete.
	Unrecorded []UnrecordedClient `json:"unrecorded"`
	// Connections are the established connections to the local ports in Balancers, as the kernel counts them: also those
	// of the old process of a reloaded HAProxy. Only with the query connections=1.
	Connections []Connection `json:"connections,omitempty"`
	// ConnectionsError says why the kernel could not be asked; "" if it was, or was not to be asked.
	ConnectionsError string `json:"connections_error,omitempty"`
}

// Connection is how many established connections one peer has to a port of this machine.
type Connection struct {
	Local string `json:"local"` // the address of this machine
	Port  uint16 `json:"port"`
	Peer  string `json:"peer"` // "" for all peers beyond the first 1,000
	Count int    `json:"count"`
}

// LocalPorts returns the ports of the servers of this machine in r, sorted.
func (r *Report) LocalPorts() (ports []uint16) {
	for _, row := range r.Balancers {
		if row.Local && row.Port != 0 {
			ports = append(ports, row.Port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// UnrecordedClient is a client without a row.
type UnrecordedClient struct {
	Service string  `json:"service"` // it asked about; "" for an unknown one, if there were too many to remember
	Client  string  `json:"client"`  // its address, or its IPv6 network
	Age     float64 `json:"ago"`     // of its request
}

// LastRequest is the age of the last request about a service, by a balancer or any other client.
type LastRequest struct {
	Service string  `json:"service"`
	Age     float64 `json:"ago"`
}

// ServerView is one balancer's view of one server of this host. Its identity is the remote address with node and name of
// the X-Haproxy-Server-State header, or the remote address and the URL without that header.
type ServerView struct {
	Service string `json:"service"`
	Host    string `json:"host"` // that is checked
	Port    uint16 `json:"port"` // that is checked; 0 for none
	Local   bool   `json:"here"` // Host is this machine
	URL     string `json:"url"`  // of the last request

	Address string `json:"address"`          // of the balancer
	Node    string `json:"node,omitempty"`   // name of the balancer, "node=" of the header
	Server  string `json:"server,omitempty"` // "name=" of the header: backend/server

	// From the last header, which has the state before the answer to that request. Without send-state there is no
	// header: State is "" and the pointers are nil.
	State       string `json:"state,omitempty"`    // such as "UP", "UP 1/3", "DOWN 1/2", "NOLB 2/2", "no check"
	Sessions    *int   `json:"sessions"`           // open on this server, first number of "scur="
	Queued      *int   `json:"queued"`             // waiting for this server, "qcur="
	Weight      *int   `json:"weight"`             // of this server, first number of "weight="
	TotalWeight *int   `json:"total_weight"`       // of all usable active servers of the backend, second number
	Throttle    string `json:"throttle,omitempty"` // "throttle=" of a server in slow start

	Interval float64 `json:"interval"` // usual seconds between two requests; 0 after the first
	Silent   bool    `json:"silent"`   // no request for 3 intervals, and for 5 s

	// RequestAge is the age of the last request. Last.Age is up to the duration of a check less.
	RequestAge float64 `json:"asked_ago"`
	Last       Answer  `json:"last"`     // to the request that had State
	Previous   *Answer `json:"previous"` // to the request before; nil for none
	// OutAnswers is how many answers in a row, Last included, were decided by an override that takes the server out.
	OutAnswers int `json:"out"`
	// SameAnswers is how many answers in a row, Last included, had the code and override that Last has.
	SameAnswers int `json:"alike"`
	// SameFor is the age in seconds of the first of SameAnswers.
	SameFor float64 `json:"same"`
}

// Answer is the answer to a check request.
type Answer struct {
	Age      float64 `json:"ago"`
	Code     int     `json:"code"`
	Override string  `json:"override,omitempty"` // that decided it: "up", "drain", "down", "maint"; "" for none
}

// Agent is the last answer of the agent endpoint to one address about one service.
type Agent struct {
	Service string  `json:"service"` // or the name of an instance, as in the spool
	Address string  `json:"address"`
	Answer  string  `json:"answer"` // the line, without its newline
	Age     float64 `json:"ago"`
	// SameFor is for how many seconds the answers have had the same first two words.
	SameFor float64 `json:"since"`
	// SameAnswers is how many answers in a row, the last included, had those two words. Several agent connections with
	// the same address and service share this row: of n connections each has got one of n answers.
	SameAnswers int `json:"alike"`
	// Confirmed reports that the client has asked three times. Before that it may be a person.
	Confirmed bool `json:"known"`
	Silent    bool `json:"silent"` // no request for 3 intervals, and for 5 s; for 10 s if not Confirmed
}

// Report returns what is known of the balancers that ask about service, for the service "" of all balancers. The HTTP
// endpoint fills in Services and AgentOnly.
func (t *Table) Report(service string) Report {
	now := t.now()
	r := Report{
		Uptime: now.Sub(t.started).Seconds(), UnrecordedRequests: t.unrecorded.count(t.uptime(now)),
		Services: []LastRequest{}, Balancers: []ServerView{}, Agents: t.reportAgents(service, now), Unrecorded: []UnrecordedClient{},
	}
	for _, s := range t.collect(service, now, &r) {
		r.UnrecordedRequests += s.unrecorded.count(t.uptime(now))
		s.mu.Lock()
		for _, w := range s.rows {
			r.Balancers = append(r.Balancers, w.report(s.name, now))
		}
		s.mu.Unlock()
	}
	slices.SortFunc(r.Unrecorded, func(a, b UnrecordedClient) int {
		return cmp.Or(cmp.Compare(a.Age, b.Age), strings.Compare(a.Service, b.Service), strings.Compare(a.Client, b.Client))
	})
	slices.SortFunc(r.Balancers, func(a, b ServerView) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Node, b.Node),
			strings.Compare(a.Address, b.Address), strings.Compare(a.Server, b.Server), strings.Compare(a.URL, b.URL))
	})
	return r
}

// collect returns the record of service, for the service "" all records. It appends to r the clients without a row.
func (t *Table) collect(service string, now time.Time, r *Report) []*ServiceRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Unrecorded = t.unrecordedChecks.appendTo(r.Unrecorded, service, now)
	r.Unrecorded = t.unrecordedAgents.appendTo(r.Unrecorded, service, now)
	r.Unrecorded = append(r.Unrecorded, t.unrecordedAgents.overflow(time.Time{}, now)...)
	services := []*ServiceRecord{t.services[service]}
	if service == "" {
		services = slices.AppendSeq(make([]*ServiceRecord, 0, len(t.services)), maps.Values(t.services))
		r.Balancers = make([]ServerView, 0, t.rows.Len())
	} else if services[0] == nil {
		return nil
	}
	for _, s := range services {
		if t.removeExpired(s, now); now.Sub(s.unrecordedAt) <= unrecordedTTL {
			r.Unrecorded = append(r.Unrecorded, UnrecordedClient{Service: s.name, Client: clientName(s.unrecordedClient), Age: secondsSince(now, s.unrecordedAt)})
		}
	}
	return services
}

// report returns w as a report shows it. w.service.mu is held.
func (w *row) report(service string, now time.Time) ServerView {
	b := ServerView{
		Service: service, Host: w.host, Port: w.port, Local: w.local, URL: printable(w.url, maxName),
		Address: w.key.peer, Node: printable(w.key.node, maxName), Server: printable(w.key.name, maxName),
		Interval:    w.interval().Seconds(),
		Silent:      now.Sub(w.last.at) > w.silentAfter(),
		RequestAge:  secondsSince(now, w.received),
		Last:        w.last.report(now),
		OutAnswers:  w.outAnswers,
		SameAnswers: w.sameAnswers,
		SameFor:     secondsSince(now, w.sameSince),
	}
	if w.hasState {
		b.setState(string(w.header))
	}
	if w.previous.code != 0 {
		p := w.previous.report(now)
		b.Previous = &p
	}
	return b
}

func (a answer) report(now time.Time) Answer {
	return Answer{Age: secondsSince(now, a.at), Code: a.code, Override: a.override.String()}
}

func secondsSince(now, at time.Time) float64 { return max(now.Sub(at), 0).Seconds() }

// Duration converts an age or an interval of a Report. Another program may answer in place of the daemon, so a negative
// number becomes zero and a huge one a century.
func Duration(seconds float64) time.Duration {
	const century = 100 * 365 * 24 * 3600
	return time.Duration(min(max(seconds, 0), century) * float64(time.Second))
}
