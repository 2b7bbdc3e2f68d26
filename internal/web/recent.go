package proxy

import (
	"net/http"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/share"
)

// The tables behind /recent and /status/count are filled by whoever sends requests, so they are bounded. When one
// is full, rows that nobody has asked about for recentFor are dropped, then rows of the client that fills it, see
// the package share.
const (
	maxServices = 10_000
	maxPeers    = 50_000 // pairs of service and caller
	recentFor   = 600 * time.Second
)

// recent remembers for each service the last answer, who asked how often, and the balancers among them.
//
// Each caller of a service counts for the client that it belongs to, and a service stays in the table as long as it
// has a caller. So a client that asks for ever new services loses those that it alone asks about.
type recent struct {
	balancers *balancer.Table
	services  *services

	// mu guards the rest, and which rows and callers there are. It is locked before the locks of services and rows.
	mu      sync.Mutex
	n       int // services
	callers *share.Shares[*caller]
	swept   time.Time
}

func newRecent(b *balancer.Table) *recent {
	return &recent{balancers: b, services: newServices(), callers: share.New((*caller).asked)}
}

// caller is an address that has asked about a service.
type caller struct {
	row   *seenService
	peer  string
	n     uint64 // its answers; row.mu guards it
	place *share.Place[*caller]
}

func (c *caller) asked() uint64 {
	c.row.mu.Lock()
	defer c.row.mu.Unlock()
	return c.n
}

// seenService is one service's row.
type seenService struct {
	name      string
	since     time.Time // when it was entered
	balancers *balancer.Service

	mu       sync.Mutex
	answered bool
	gone     bool // dropped from the table
	code     int
	at       time.Time
	peer     string  // of the last answer
	caller   *caller // of the last answer; in no table if there was no room
	past     uint64  // answers to callers that were displaced

	history history

	first  *caller // most services have no other
	others map[string]*caller
}

// find returns the caller with that address, or nil. s.mu is held.
func (s *seenService) find(peer string) *caller {
	if s.first != nil && s.first.peer == peer {
		return s.first
	}
	return s.others[peer]
}

// has reports whether peer is among the callers of a service that is in the table.
func (s *seenService) has(peer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(peer) != nil
}

// add enters a caller. s.mu is held.
func (s *seenService) add(c *caller) {
	if s.first == nil {
		s.first = c
		return
	}
	if s.others == nil {
		s.others = make(map[string]*caller, 1)
	}
	s.others[c.peer] = c
}

// remove removes a caller, and reports whether it was the last one; the row is gone then. s.mu is held.
func (s *seenService) remove(c *caller) (last bool) {
	s.past += c.n
	if s.caller == c {
		s.caller = nil
	}
	if s.first == c {
		s.first = nil
	} else {
		delete(s.others, c.peer)
	}
	s.gone = s.first == nil && len(s.others) == 0
	return s.gone
}

// each calls f for each caller. s.mu is held.
func (s *seenService) each(f func(c *caller)) {
	if s.first != nil {
		f(s.first)
	}
	for _, c := range s.others {
		f(c)
	}
}

// see returns the row of a service that peer asks about now, or nil when the table has no room for it.
func (t *recent) see(service, peer string, now time.Time) *seenService {
	if row := t.services.get(service); row != nil {
		return row
	}
	return t.enter(service, peer, now)
}

// enter returns the row of a service after it has entered peer among its callers, if there is room for it. It
// returns nil when there is no row and no room for one.
func (t *recent) enter(service, peer string, now time.Time) *seenService {
	client := clients.NetworkOf(peer)
	t.mu.Lock()
	defer t.mu.Unlock()
	row := t.services.get(service)
	for t.callers.Len() >= maxPeers || row == nil && t.n >= maxServices {
		if row != nil && row.has(peer) {
			return row
		}
		if !t.makeRoom(client, now) {
			return row
		}
		row = t.services.get(service) // it may be what made room
	}
	if row == nil {
		name := strings.Clone(service)
		row = t.services.add(&seenService{name: name, since: now, at: now, balancers: t.balancers.Service(name)})
		t.n++
	}
	row.mu.Lock()
	defer row.mu.Unlock()
	if row.find(peer) == nil {
		c := &caller{row: row, peer: strings.Clone(peer)}
		c.place = t.callers.Add(client, c)
		row.add(c)
		t.balancers.Recorded(row.name, client)
	}
	return row
}

// makeRoom removes what is old, or else one caller of the client that has the most. It returns false if there is
// nothing to remove for the sake of client. t.mu is held.
func (t *recent) makeRoom(client netip.Prefix, now time.Time) bool {
	if now.Sub(t.swept) >= time.Second {
		t.swept = now
		t.sweep(now)
		if t.n < maxServices && t.callers.Len() < maxPeers {
			return true
		}
	}
	t.balancers.Full("services", t.callers.Largest(), t.n)
	c, ok := t.callers.Displace(client)
	if !ok {
		return false
	}
	s := c.row
	s.mu.Lock()
	last, at := s.remove(c), s.at
	s.mu.Unlock()
	if last {
		t.services.remove(s.name)
		t.n--
		t.balancers.RecordMissed(s.name, c.peer, at)
	}
	return true
}

// sweep drops services that were not asked about lately. t.mu is held.
func (t *recent) sweep(now time.Time) {
	t.services.each(func(_ string, s *seenService) (keep bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if now.Sub(s.at) <= recentFor {
			return true
		}
		t.n--
		s.gone = true
		s.each(func(c *caller) { t.callers.Remove(c.place) })
		return false
	})
}

// answer enters the answer v to the request r about service. s is its row, or nil when there is none.
func (t *recent) answer(s *seenService, service string, r *balancer.Request, v *health.Verdict) {
	if s != nil {
		s = t.count(s, r, v)
	}
	if s == nil {
		t.balancers.RecordDropped(service, r.Peer)
		return
	}
	s.balancers.Record(r)
}

// count enters an answer in the row s, or in the one that has taken its place, and returns the row, or nil when
// there is none.
func (t *recent) count(s *seenService, r *balancer.Request, v *health.Verdict) *seenService {
	s.mu.Lock()
	if s.gone || s.caller == nil || s.peer != r.Peer {
		if c := s.find(r.Peer); c != nil && !s.gone {
			s.caller = c
		} else {
			name := s.name
			s.mu.Unlock()
			if s = t.enter(name, r.Peer, r.Answered); s == nil {
				return nil
			}
			s.mu.Lock()
			if s.caller = s.find(r.Peer); s.caller == nil {
				s.caller = &caller{} // there is no room to count it
			}
		}
	}
	s.answered, s.code, s.at, s.peer = true, r.Code, r.Answered, r.Peer
	s.history.add(r.Answered, v)
	s.caller.n++
	s.mu.Unlock()
	return s
}

// RecordAnswer enters an answer that another door has given, so that /recent and /balancers know of it. url is what tells
// this question from others about the service.
func (s *Server) RecordAnswer(service, url string, r *http.Request, v *health.Verdict, code int) {
	now := time.Now()
	w := wantedBy(r.Header)
	peer := hostOf(r.RemoteAddr)
	s.recent.answer(s.recent.see(service, peer, now), service, &balancer.Request{
		Peer: peer, HasState: w.sent, State: w.header, Node: w.node, Name: w.name, URL: url,
		Host: "127.0.0.1", Here: true, Code: code, Override: v.State, Answered: now,
	}, v)
}

// hostOf is net.SplitHostPort for addresses that the listener itself wrote.
func hostOf(remote string) string {
	i := strings.LastIndexByte(remote, ':')
	if i < 0 {
		return remote
	}
	if h := remote[:i]; len(h) > 1 && h[0] == '[' {
		return h[1 : len(h)-1]
	}
	return remote[:i]
}

// seenRow is one service in /recent.
type seenRow struct {
	service string
	at      time.Time
	last    *lastAnswer // nil: no answer yet
}

type lastAnswer struct {
	Code     int     `json:"code"`
	RemoteIP string  `json:"remote_ip"`
	TS       float64 `json:"ts"` // unix seconds
}

// since lists the services asked about since then, by name: service alone, or all when it is "".
func (t *recent) since(then time.Time, service string) []seenRow {
	rows := []seenRow{}
	add := func(name string, s *seenService) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.at.Before(then) {
			return true
		}
		row := seenRow{service: name, at: s.at}
		if s.answered {
			row.last = &lastAnswer{Code: s.code, RemoteIP: s.peer, TS: float64(s.at.UnixMicro()) / 1e6}
		}
		rows = append(rows, row)
		return true
	}
	if service == "" {
		t.services.each(add)
	} else if s := t.services.get(service); s != nil {
		add(service, s)
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].service < rows[j].service })
	return rows
}

// recentRows are the rows of /recent as JSON, by name, one behind the other in text.
type recentRows struct {
	text []byte
	rows []recentRow
}

type recentRow struct {
	at  time.Time
	end int // of its text, which begins with a comma where the row before ends
}

// rows returns the rows of all services in the table.
func (t *recent) rows() (recentRows, error) {
	list := t.since(time.Time{}, "")
	r := recentRows{rows: make([]recentRow, len(list))}
	for i, row := range list {
		b, err := marshal([2]any{row.service, row.last})
		if err != nil {
			return recentRows{}, err
		}
		r.text = append(append(r.text, ','), b...)
		r.rows[i] = recentRow{row.at, len(r.text)}
	}
	return r, nil
}

// since appends the text of the rows that are not from before then, without the comma of the first.
func (r *recentRows) since(parts [][]byte, then time.Time) [][]byte {
	begin, first := 0, 1 // begin is that of the rows in a row that are taken
	take := func(end int) {
		if begin < end {
			parts = append(parts, r.text[begin+first:end])
			first = 0
		}
	}
	end := 0
	for _, row := range r.rows {
		if row.at.Before(then) {
			take(end)
			begin = row.end
		}
		end = row.end
	}
	take(end)
	return parts
}

// Seen is a service that was asked about lately.
type Seen struct {
	Service string
	Code    int    // of the last answer
	Answers uint64 // since it was first asked about
}

// Seen lists the services that were asked about in the last ten minutes, by name.
func (s *Server) Seen() []Seen {
	answers := s.recent.answers()
	var list []Seen
	for _, row := range s.recent.since(time.Now().Add(-recentFor), "") {
		if row.last == nil {
			continue
		}
		list = append(list, Seen{Service: row.service, Code: row.last.Code, Answers: answers[row.service]})
	}
	return list
}

// Refused is how many remote spool changes were refused.
func (s *Server) Refused() uint64 { return s.refused.Load() }

// answers returns how often each service was asked about, by callers that were displaced as well.
func (t *recent) answers() map[string]uint64 {
	all := make(map[string]uint64)
	t.services.each(func(name string, s *seenService) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := s.past
		s.each(func(c *caller) { n += c.n })
		all[name] = n
		return true
	})
	return all
}

// counts returns how often each caller has asked about each service.
func (t *recent) counts() map[string]map[string]uint64 {
	all := make(map[string]map[string]uint64)
	t.services.each(func(name string, s *seenService) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		m := make(map[string]uint64, 1+len(s.others))
		s.each(func(c *caller) {
			if c.n > 0 {
				m[c.peer] = c.n
			}
		})
		all[name] = m
		return true
	})
	return all
}
