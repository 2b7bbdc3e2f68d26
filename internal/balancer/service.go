package balancer

import (
	"net/netip"
	"sync"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

// Request is one check request and its answer. Its memory is the caller's again when Asked returns.
type Request struct {
	Peer string // the remote address
	// HasState says that there was an X-Haproxy-Server-State header. State is the last one as it came, Node and
	// Name are in it.
	HasState          bool
	State, Node, Name string
	URL               string // the request's path and query
	Host              string // that was to be checked
	Port              uint16
	Here              bool
	Received          time.Time   // when it came; zero: when it was answered
	Code              int         // of the answer
	Override          spool.State // that decided it; Ready when none did
	Answered          time.Time   // when it was answered
}

// Service is what is known of the balancers that ask about one service. It is safe for concurrent use.
type Service struct {
	t    *Table
	name string

	missed missed
	// lost is when a client asked last that then had no row, and lostBy is that client; Table.mu guards them.
	lost   time.Time
	lostBy netip.Prefix

	mu         sync.Mutex
	rows       []*row
	index      map[rowKey]*row // when there are more than a few
	candidate  candidate       // the first; most services have no other
	candidates []candidate     // the others
}

// fewRows is up to how many rows are looked through one by one.
const fewRows = 8

// Record enters one request. It costs a fraction of a microsecond: every check comes by.
func (s *Service) Record(r *Request) {
	key := rowKey{peer: r.Peer, node: cut(r.Node, maxName), name: cut(r.Name, maxName)}
	if !r.HasState || r.Name == "" {
		key.url = cut(r.URL, maxName)
	}
	if !s.enter(&key, r) {
		s.t.miss(s, clients.NetworkOf(r.Peer), r.Answered)
	}
}

// enter enters r in its row and returns true, or returns false when there is no room for one.
func (s *Service) enter(key *rowKey, r *Request) bool {
	s.mu.Lock()
	if w := s.find(key); w != nil {
		w.enter(r)
		s.mu.Unlock()
		return true
	}
	var gap time.Duration
	if !r.HasState {
		if gap = s.steady(r); gap == 0 {
			s.mu.Unlock()
			return true
		}
	}
	s.mu.Unlock()
	return s.t.add(s, key, gap, r)
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

func (s *Service) find(key *rowKey) *row {
	if s.index != nil {
		return s.index[*key]
	}
	for _, w := range s.rows {
		if w.key == *key {
			return w
		}
	}
	return nil
}

// beside returns how many rows of s a client has.
func (s *Service) beside(client netip.Prefix) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.rows {
		if w.client == client {
			n++
		}
	}
	return n
}

// insert enters a row. s.mu is held.
func (s *Service) insert(w *row) {
	s.rows = append(s.rows, w)
	if s.index != nil {
		s.index[w.key] = w
	} else if len(s.rows) > fewRows {
		s.index = make(map[rowKey]*row, len(s.rows))
		for _, w := range s.rows {
			s.index[w.key] = w
		}
	}
}

// lose remembers that a client asked at that time which is in no row. Table.mu is held.
func (s *Service) lose(client netip.Prefix, at time.Time) {
	if at.After(s.lost) {
		s.lost, s.lostBy = at, client
	}
}
