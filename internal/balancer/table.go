// Package balancer records which load balancers ask about the services of this host: how often, which answers they
// got, and which state they report for each server.
//
// The HTTP endpoint calls [ServiceRecord.Record] for every check request, and the agent endpoint calls [Table.RecordAgent]
// for every answer. [Table.Report] returns what is known. The package decides nothing: the commands decide from the
// report when a server is out of service.
package balancer

import (
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/share"
)

// The bounds. Clients choose what is recorded. A row that has been silent for long makes room first, then a row of the
// client that has the most; see package share.
const (
	maxRows         = 10_000 // in total
	maxRowsOfClient = 100    // about one service
	maxCandidates   = 16     // of one service, see candidate
	maxServices     = 2 * maxRows
	maxHeader       = 1 << 10
	maxName         = 256    // bytes of a node, a server or a URL
	maxAgents       = 10_000 // pairs of an address and a service
)

const (
	// rowTTL is how long a silent balancer is remembered, at least.
	rowTTL = 10 * time.Minute
	// statelessRowTTL is rowTTL for a client that sends no state: it may have been a person in a loop.
	statelessRowTTL = time.Minute
	// A balancer is silent after silentIntervals of its intervals without a request, but not before minSilence.
	minSilence      = 5 * time.Second
	silentIntervals = 3
	// silentAfterOneRequest replaces both as long as the interval is unknown.
	silentAfterOneRequest = 30 * time.Second
	// unconfirmedAgentSilence replaces both for an agent client with fewer than confirmedAgentRequests requests: it
	// may be a person.
	unconfirmedAgentSilence = 10 * time.Second
	confirmedAgentRequests  = 3
	// weightEndTime is how long answers to an agent client say that a weight has ended. Each of its connections asks in
	// that time: HAProxy's agent-inter is 2 s by default.
	weightEndTime = time.Minute
	// minSteadyInterval is the shortest interval at which a client without a state is taken for a balancer.
	minSteadyInterval = 100 * time.Millisecond
	// maxSteadyRatio is the largest ratio of two intervals that count as steady. HAProxy's spread-checks causes 1.5.
	maxSteadyRatio = 2
)

// Table holds all that is known of balancers. It is safe for concurrent use and owns no goroutine.
type Table struct {
	now        func() time.Time
	started    time.Time
	seed       maphash.Seed
	unrecorded recentCount // requests about services without a record, and agent requests

	log        *slog.Logger
	fullLogged map[string]*atomic.Int64 // by table name: uptime at which it was last logged as full, 0 for never

	// mu guards the fields below and which rows exist. It is locked before ServiceRecord.mu.
	mu        sync.Mutex
	rows      *share.Shares[*row]
	services  map[string]*ServiceRecord
	expiredAt time.Time // when removeExpired last ran for all services

	agents          map[agentKey]*agentRow
	agentRows       *share.Shares[*agentRow]
	agentsExpiredAt time.Time

	unrecordedChecks, unrecordedAgents unrecordedClients
}

// New returns an empty table.
func New() *Table { return newTable(time.Now) }

func newTable(now func() time.Time) *Table {
	return &Table{
		now: now, started: now(), seed: maphash.MakeSeed(), log: slog.New(slog.DiscardHandler),
		fullLogged: map[string]*atomic.Int64{"services": {}, "balancers": {}, "agents": {}},
		rows:       share.New((*row).requestCount), services: map[string]*ServiceRecord{},
		agents: map[agentKey]*agentRow{}, agentRows: share.New(func(a *agentRow) uint64 { return uint64(a.requests) }),
	}
}

// SetLogger makes the table log when it is full. The caller calls it before any other method.
func (t *Table) SetLogger(log *slog.Logger) { t.log = log }

// LogFull logs, at most once a minute, that a table has no more room for the client that fills it. table is
// "services", "balancers" or "agents".
func (t *Table) LogFull(table string, largest netip.Prefix, rows int) {
	now, last := int64(t.uptime(t.now())), t.fullLogged[table].Load()
	if last != 0 && now-last < int64(time.Minute) || !t.fullLogged[table].CompareAndSwap(last, max(now, 1)) {
		return
	}
	t.log.Warn("a table of clients is full: the client that fills it gets no more rows and loses some to others; if it is not a balancer, block it with a firewall",
		"table", table, "client", clientName(largest), "rows", rows)
}

// Service returns the record of the service with that name.
func (t *Table) Service(name string) *ServiceRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.services[name]; s != nil {
		return s
	}
	return &ServiceRecord{t: t, name: name}
}

// uptime returns how long the table has existed. It is monotonic.
func (t *Table) uptime(now time.Time) time.Duration { return now.Sub(t.started) }

// recentCount counts events. It starts again from zero after rowTTL without an event.
type recentCount struct {
	n    atomic.Uint64
	last atomic.Int64 // uptime of the table, a time.Duration
}

func (c *recentCount) add(uptime time.Duration) {
	c.last.Store(int64(uptime))
	c.n.Add(1)
}

func (c *recentCount) count(uptime time.Duration) uint64 {
	if uptime-time.Duration(c.last.Load()) > rowTTL {
		c.n.Store(0)
	}
	return c.n.Load()
}

// addRow makes a row of s and records r in it. It returns false if there is no room. interval is what steadyInterval
// returned.
func (t *Table) addRow(s *ServiceRecord, key *rowKey, interval time.Duration, r *AnsweredRequest) bool {
	client := clients.NetworkOf(key.peer)
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.services[s.name]; other != nil && other != s {
		return false // the HTTP server has dropped its record of the service and made another one
	}
	if s.countRows(client) >= maxRowsOfClient {
		return false
	}
	for t.rows.Len() >= maxRows {
		if !t.makeRoom(client) {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.findRow(key)
	if w == nil {
		w = &row{service: s, client: client, key: rowKey{strings.Clone(key.peer), strings.Clone(key.node), strings.Clone(key.name), strings.Clone(key.url)}}
		if interval > 0 {
			w.requests, w.last.at = 1, r.Answered.Add(-interval)
		}
		w.place = t.rows.Add(client, w)
		s.insertRow(w)
		t.services[s.name] = s
	}
	w.record(r)
	return true
}

// makeRoom removes expired rows, or else one row of the client that has the most. It returns false if client itself
// would have to lose a row. t.mu is held.
func (t *Table) makeRoom(client netip.Prefix) bool {
	now := t.now()
	if now.Sub(t.expiredAt) >= time.Second {
		t.expiredAt = now
		for _, s := range t.services {
			t.removeExpired(s, now)
		}
		if t.rows.Len() < maxRows {
			return true
		}
		t.LogFull("balancers", t.rows.Largest(), t.rows.Len())
	}
	w, ok := t.rows.Evict(client)
	if !ok {
		return false
	}
	s := w.service
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = slices.DeleteFunc(s.rows, func(other *row) bool { return other == w })
	delete(s.index, w.key)
	if now.Sub(w.last.at) <= w.silentAfter() {
		s.setUnrecorded(w.client, w.last.at)
	}
	return true
}

// countUnrecorded counts a request about s for which there is no row.
func (t *Table) countUnrecorded(s *ServiceRecord, client netip.Prefix, at time.Time) {
	s.unrecorded.add(t.uptime(at))
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.services[s.name]; known != nil {
		known.setUnrecorded(client, at)
		return
	}
	if len(t.services) >= maxServices {
		// This is not an overflow of unrecordedChecks: UnrecordedOverflow ignores requests that came after the HTTP server
		// made its row for the reported service. Here it has a row of s, so the report about s would ignore this request.
		t.unrecordedAgents.overflowAt, t.unrecordedAgents.overflowClient = at, client
		return
	}
	t.services[s.name] = s
	s.setUnrecorded(client, at)
}

// removeExpired removes the expired rows of s, and s itself when nothing is left. t.mu is held.
func (t *Table) removeExpired(s *ServiceRecord, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = slices.DeleteFunc(s.rows, func(w *row) bool {
		if !w.isExpired(now) {
			return false
		}
		delete(s.index, w.key)
		t.rows.Remove(w.place)
		return true
	})
	if len(s.rows) == 0 && s.unrecorded.count(t.uptime(now)) == 0 && now.Sub(s.unrecordedAt) > unrecordedTTL {
		delete(t.services, s.name)
	}
}
