package proxy

import (
	"encoding/json"
	"net/http"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/health"
)

// The tables behind /recent and /status/count are filled by whoever sends requests, so they are bounded:
// past these numbers new services and new callers are not entered, until the ones that nobody has asked
// about for recentFor are dropped.
const (
	maxServices = 10_000
	maxPeers    = 50_000 // pairs of service and caller
	recentFor   = 600 * time.Second
)

// recent remembers for each service the last answer, who asked how often, and the balancers among them.
type recent struct {
	balancers *balancer.Table
	services  *services
	n, peers  atomic.Int64
	swept     atomic.Int64 // unix nanoseconds
}

func newRecent(b *balancer.Table) *recent { return &recent{balancers: b, services: newServices()} }

// seenService is one service's row.
type seenService struct {
	balancers *balancer.Service

	mu       sync.Mutex
	answered bool
	gone     bool // dropped from the table
	code     int
	at       time.Time
	peer     string  // of the last answer
	count    *uint64 // the answers it had

	history history

	first  string // caller; most services have no other
	firstN uint64
	others map[string]*uint64
}

// peers is how many callers are in the row.
func (s *seenService) peers() int64 {
	if s.first == "" {
		return 0
	}
	return int64(1 + len(s.others))
}

// counter returns where the answers for peer are counted.
func (s *seenService) counter(t *recent, peer string) *uint64 {
	if peer == s.first {
		return &s.firstN
	}
	if c := s.others[peer]; c != nil {
		return c
	}
	if s.gone || t.peers.Load() >= maxPeers {
		return new(uint64)
	}
	t.peers.Add(1)
	if s.first == "" {
		s.first = strings.Clone(peer)
		return &s.firstN
	}
	if s.others == nil {
		s.others = make(map[string]*uint64, 1)
	}
	c := new(uint64)
	s.others[strings.Clone(peer)] = c
	return c
}

// see returns the row of a service that is asked about now, or nil when the table is full.
func (t *recent) see(service string, now time.Time) *seenService {
	if row := t.services.get(service); row != nil {
		return row
	}
	if t.n.Load() >= maxServices && !t.sweep(now) {
		return nil
	}
	service = strings.Clone(service)
	row, added := t.services.add(service, &seenService{at: now, balancers: t.balancers.Service(service)})
	if added {
		t.n.Add(1)
	}
	return row
}

// sweep drops services that were not asked about lately, at most once a second, and reports whether
// there is room now.
func (t *recent) sweep(now time.Time) bool {
	last := t.swept.Load()
	if now.UnixNano()-last < int64(time.Second) || !t.swept.CompareAndSwap(last, now.UnixNano()) {
		return false
	}
	t.services.each(func(_ string, s *seenService) (keep bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if now.Sub(s.at) <= recentFor {
			return true
		}
		t.n.Add(-1)
		t.peers.Add(-s.peers())
		s.gone = true
		return false
	})
	return t.n.Load() < maxServices
}

// answer enters the answer v to the request r. s may be nil.
func (t *recent) answer(s *seenService, r *balancer.Request, v *health.Verdict) {
	if s == nil {
		t.balancers.Missed()
		return
	}
	s.mu.Lock()
	s.answered, s.code, s.at = true, r.Code, r.At
	s.history.add(r.At, v)
	if s.count == nil || s.peer != r.Peer {
		s.peer, s.count = r.Peer, s.counter(t, r.Peer)
	}
	*s.count++
	s.mu.Unlock()
	s.balancers.Asked(r)
}

// Note enters an answer that another door has given, so that /recent and /balancers know of it. url is what tells
// this question from others about the service.
func (s *Server) Note(service, url string, r *http.Request, v *health.Verdict, code int) {
	now := time.Now()
	w := wantedBy(r.Header)
	s.recent.answer(s.recent.see(service, now), &balancer.Request{
		Peer: hostOf(r.RemoteAddr), Sent: w.sent, State: w.header, Node: w.node, Name: w.name, URL: url,
		Host: "127.0.0.1", Here: true, Code: code, Override: v.State, At: now,
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
		rows = make([]seenRow, 0, max(t.n.Load(), 0))
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
		b, err := json.Marshal([2]any{row.service, row.last})
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
	counts := s.recent.counts()
	var list []Seen
	for _, row := range s.recent.since(time.Now().Add(-recentFor), "") {
		if row.last == nil {
			continue
		}
		n := Seen{Service: row.service, Code: row.last.Code}
		for _, c := range counts[row.service] {
			n.Answers += c
		}
		list = append(list, n)
	}
	return list
}

// Refused is how many remote spool changes were refused.
func (s *Server) Refused() uint64 { return s.refused.Load() }

// counts returns how often each caller has asked about each service.
func (t *recent) counts() map[string]map[string]uint64 {
	all := make(map[string]map[string]uint64)
	t.services.each(func(name string, s *seenService) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		m := make(map[string]uint64, s.peers())
		if s.first != "" {
			m[s.first] = s.firstN
		}
		for peer, n := range s.others {
			m[peer] = *n
		}
		all[name] = m
		return true
	})
	return all
}
