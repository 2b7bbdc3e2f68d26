package proxy

import (
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The tables behind /recent and /status/count are filled by whoever sends requests, so they are bounded:
// past these numbers new services and new callers are not entered, until the ones that nobody has asked
// about for recentFor are dropped.
const (
	maxServices = 10_000
	maxPeers    = 50_000 // pairs of service and caller
	recentFor   = 600 * time.Second
)

// recent remembers for each service the last answer, and who asked how often.
type recent struct {
	services sync.Map // string -> *seenService
	n, peers atomic.Int64
	swept    atomic.Int64 // unix nanoseconds
}

// seenService is one service's row.
type seenService struct {
	mu       sync.Mutex
	answered bool
	code     int
	peer     string // of the last answer
	at       time.Time
	count    *uint64            // of peer
	counts   map[string]*uint64 // by peer
	gone     bool               // dropped from the table
}

// see returns the row of a service that is asked about, or nil when the table is full.
func (t *recent) see(service string) *seenService {
	if v, ok := t.services.Load(service); ok {
		return v.(*seenService)
	}
	if t.n.Load() >= maxServices && !t.sweep(time.Now()) {
		return nil
	}
	v, loaded := t.services.LoadOrStore(strings.Clone(service), &seenService{at: time.Now(), counts: make(map[string]*uint64, 1)})
	if !loaded {
		t.n.Add(1)
	}
	return v.(*seenService)
}

// sweep drops services that were not asked about lately, at most once a second, and reports whether
// there is room now.
func (t *recent) sweep(now time.Time) bool {
	last := t.swept.Load()
	if now.UnixNano()-last < int64(time.Second) || !t.swept.CompareAndSwap(last, now.UnixNano()) {
		return false
	}
	t.services.Range(func(k, v any) bool {
		s := v.(*seenService)
		s.mu.Lock()
		if now.Sub(s.at) > recentFor {
			t.services.Delete(k)
			t.n.Add(-1)
			t.peers.Add(-int64(len(s.counts)))
			s.gone = true
		}
		s.mu.Unlock()
		return true
	})
	return t.n.Load() < maxServices
}

// answer enters an answer. s may be nil. peer is the caller's address.
func (t *recent) answer(s *seenService, peer string, code int, now time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered, s.code, s.at = true, code, now
	if s.count != nil && s.peer == peer {
		*s.count++
		return
	}
	c := s.counts[peer]
	if c == nil {
		peer = strings.Clone(peer)
		c = new(uint64)
		if !s.gone && t.peers.Load() < maxPeers {
			t.peers.Add(1)
			s.counts[peer] = c
		}
	}
	*c++
	s.peer, s.count = peer, c
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
	last    *lastAnswer // nil: no answer yet
}

type lastAnswer struct {
	Code     int     `json:"code"`
	RemoteIP string  `json:"remote_ip"`
	TS       float64 `json:"ts"` // unix seconds
}

// since lists the services asked about since then, by name.
func (t *recent) since(then time.Time) []seenRow {
	rows := []seenRow{}
	t.services.Range(func(k, v any) bool {
		s := v.(*seenService)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.at.Before(then) {
			return true
		}
		row := seenRow{service: k.(string)}
		if s.answered {
			row.last = &lastAnswer{Code: s.code, RemoteIP: s.peer, TS: float64(s.at.UnixMicro()) / 1e6}
		}
		rows = append(rows, row)
		return true
	})
	sort.Slice(rows, func(i, j int) bool { return rows[i].service < rows[j].service })
	return rows
}

// counts returns how often each caller has asked about each service.
func (t *recent) counts() map[string]map[string]uint64 {
	all := make(map[string]map[string]uint64)
	t.services.Range(func(k, v any) bool {
		s := v.(*seenService)
		s.mu.Lock()
		defer s.mu.Unlock()
		m := make(map[string]uint64, len(s.counts))
		for peer, n := range s.counts {
			m[peer] = *n
		}
		all[k.(string)] = m
		return true
	})
	return all
}
