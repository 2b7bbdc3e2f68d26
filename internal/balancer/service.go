package balancer

import (
	"net/netip"
	"sync"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

// AnsweredRequest is one check request and its answer. Record keeps none of its memory.
type AnsweredRequest struct {
	Peer     string // the remote address
	HasState bool   // the request had an X-Haproxy-Server-State header
	// State is the last such header as the client sent it. Node and Name are fields of it.
	State, Node, Name string
	URL               string // the request's path and query
	Host              string // that was to be checked
	Port              uint16
	Local             bool        // Host is this machine
	Received          time.Time   // zero: the same as Answered
	Code              int         // of the answer
	Override          spool.State // that decided the answer; Ready for none
	Answered          time.Time
}

// ServiceRecord records the requests about one service. It is safe for concurrent use.
type ServiceRecord struct {
	t    *Table
	name string

	unrecorded recentCount
	// unrecordedAt is the time of the last request that has no row now, and unrecordedClient is its client. Table.mu guards both.
	unrecordedAt     time.Time
	unrecordedClient netip.Prefix

	mu         sync.Mutex
	rows       []*row
	index      map[rowKey]*row // of rows, if there are more than linearRows
	candidates []candidate
}

// linearRows is up to how many rows findRow compares one by one.
const linearRows = 8

// Record records one request. Every check calls it, so it takes a fraction of a microsecond.
func (s *ServiceRecord) Record(r *AnsweredRequest) {
	key := rowKey{peer: r.Peer, node: truncate(r.Node, maxName), name: truncate(r.Name, maxName)}
	if !r.HasState || r.Name == "" {
		key.url = truncate(r.URL, maxName)
	}
	if !s.record(&key, r) {
		s.t.countUnrecorded(s, clients.NetworkOf(r.Peer), r.Answered)
	}
}

// record records r in its row. It returns false if r needs a row and there is no room for one.
func (s *ServiceRecord) record(key *rowKey, r *AnsweredRequest) bool {
	s.mu.Lock()
	if w := s.findRow(key); w != nil {
		w.record(r)
		s.mu.Unlock()
		return true
	}
	var interval time.Duration
	if !r.HasState {
		if interval = s.steadyInterval(r); interval == 0 {
			s.mu.Unlock()
			return true
		}
	}
	s.mu.Unlock()
	return s.t.addRow(s, key, interval, r)
}

func truncate(s string, n int) string { return s[:min(len(s), n)] }

func (s *ServiceRecord) findRow(key *rowKey) *row {
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

// countRows returns how many rows of s a client has.
func (s *ServiceRecord) countRows(client netip.Prefix) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.rows {
		if w.client == client {
			n++
		}
	}
	return n
}

// insertRow adds a row. s.mu is held.
func (s *ServiceRecord) insertRow(w *row) {
	s.rows = append(s.rows, w)
	if s.index != nil {
		s.index[w.key] = w
	} else if len(s.rows) > linearRows {
		s.index = make(map[rowKey]*row, len(s.rows))
		for _, w := range s.rows {
			s.index[w.key] = w
		}
	}
}

// setUnrecorded remembers that client sent a request at that time and has no row for it. Table.mu is held.
func (s *ServiceRecord) setUnrecorded(client netip.Prefix, at time.Time) {
	if at.After(s.unrecordedAt) {
		s.unrecordedAt, s.unrecordedClient = at, client
	}
}
