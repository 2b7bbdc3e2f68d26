// Package balancer remembers which load balancers ask, how often, what they are told, and how they see the
// servers of this host. It tells an operator when it is safe to touch the machine.
//
// The HTTP door tells a [Service] of every check request, the agent door tells the [Table] of every answer
// it gives, and [Table.Report] says what is known. Nothing here decides: hadown does, from the report.
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

// The bounds. What is remembered is chosen by whoever sends requests, so that what nobody has asked about for long
// makes room, and then the client that fills the table; see the package share.
const (
	maxRows       = 10_000 // all together
	maxRowsBeside = 100    // of one client about one service
	maxCandidates = 16     // of one service, see candidate
	maxServices   = 2 * maxRows
	maxHeader     = 1 << 10
	maxName       = 256    // of a node, a server or a URL
	maxAgents     = 10_000 // agent connections, told apart by address and by what they ask about
)

const (
	// forgetAfter is how long a balancer that is silent is remembered, at least.
	forgetAfter = 10 * time.Minute
	// forgetStateless is the same for one that sends no state: it may have been a person in a loop.
	forgetStateless = time.Minute
	// silentAtLeast and silentIntervals say when a balancer is silent.
	silentAtLeast   = 5 * time.Second
	silentIntervals = 3
	// silentUnknown is the same for one whose interval is not known yet, since it has asked only once.
	silentUnknown = 30 * time.Second
	// silentAgent is the same for one that has asked the agent fewer than agentKnown times: it may be a person.
	silentAgent = 10 * time.Second
	agentKnown  = 3
	// steadyAtLeast is the shortest interval by which one that sends no state is known for a balancer.
	steadyAtLeast = 100 * time.Millisecond
	// steadyRatio is how much longer than another a steady interval may be: HAProxy's spread-checks makes
	// 1.5 of it.
	steadyRatio = 2
)

// Table is all that is known of balancers. It is safe for concurrent use and owns no goroutine.
type Table struct {
	now     func() time.Time
	started time.Time
	seed    maphash.Seed
	notKept missed // requests about services that are not remembered, and agents

	log  *slog.Logger
	full map[string]*atomic.Int64 // when a full table was logged last, by its name; the age of this Table

	// mu guards the rest, and which rows there are. It is locked before the lock of a Service.
	mu       sync.Mutex
	rows     *share.Shares[*row]
	services map[string]*Service
	swept    time.Time

	agents      map[agentKey]*agentRow
	agentRows   *share.Shares[*agentRow]
	agentsSwept time.Time

	missedServices, missedAgents unrecorded
}

// New returns an empty table.
func New() *Table { return newTable(time.Now) }

func newTable(now func() time.Time) *Table {
	return &Table{
		now: now, started: now(), seed: maphash.MakeSeed(), log: slog.New(slog.DiscardHandler),
		full: map[string]*atomic.Int64{"services": {}, "balancers": {}, "agents": {}},
		rows: share.New((*row).questions), services: map[string]*Service{},
		agents: map[agentKey]*agentRow{}, agentRows: share.New(func(a *agentRow) uint64 { return uint64(a.asked) }),
	}
}

// SetLogger has the table log when it is full. It must be called before all else.
func (t *Table) SetLogger(log *slog.Logger) { t.log = log }

// Full logs, once a minute at most, that a table has no more room for the client that fills it. table is "services",
// "balancers" or "agents".
func (t *Table) Full(table string, largest netip.Prefix, rows int) {
	now, last := int64(t.age(t.now())), t.full[table].Load()
	if last != 0 && now-last < int64(time.Minute) || !t.full[table].CompareAndSwap(last, max(now, 1)) {
		return
	}
	t.log.Warn("a table of who asks is full: the client that fills it gets no more rows, and loses some to others; if it is no balancer, keep it away by a firewall",
		"table", table, "client", clientName(largest), "rows", rows)
}

// Service returns what is known of the service with that name, for its requests to be entered.
func (t *Table) Service(name string) *Service {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.services[name]; s != nil {
		return s
	}
	return &Service{t: t, name: name}
}

// age is how long the table has been there, which no clock that is set changes.
func (t *Table) age(now time.Time) time.Duration { return now.Sub(t.started) }

// missed counts what is not remembered, until there has been none for forgetAfter.
type missed struct {
	n    atomic.Uint64
	last atomic.Int64 // age of the table, a time.Duration
}

func (m *missed) add(age time.Duration) {
	m.last.Store(int64(age))
	m.n.Add(1)
}

func (m *missed) count(age time.Duration) uint64 {
	if age-time.Duration(m.last.Load()) > forgetAfter {
		m.n.Store(0)
	}
	return m.n.Load()
}

// add makes a row of s and enters r in it, or returns false when there is no room. gap is what steady returned.
func (t *Table) add(s *Service, key *rowKey, gap time.Duration, r *Request) bool {
	client := clients.NetworkOf(key.peer)
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.services[s.name]; other != nil && other != s {
		return false // the HTTP server has dropped its row meanwhile, and made another one
	}
	if s.beside(client) >= maxRowsBeside {
		return false
	}
	for t.rows.Len() >= maxRows {
		if !t.makeRoom(client) {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.find(key)
	if w == nil {
		w = &row{service: s, client: client, key: rowKey{strings.Clone(key.peer), strings.Clone(key.node), strings.Clone(key.name), strings.Clone(key.url)}}
		if gap > 0 {
			w.asked, w.last.at = 1, r.Answered.Add(-gap)
		}
		w.place = t.rows.Add(client, w)
		s.insert(w)
		t.services[s.name] = s
	}
	w.enter(r)
	return true
}

// makeRoom forgets what has been silent for long, or else one row of the client that has the most. It returns false
// if there is nothing to forget for the sake of client. t.mu is held.
func (t *Table) makeRoom(client netip.Prefix) bool {
	now := t.now()
	if now.Sub(t.swept) >= time.Second {
		t.swept = now
		for _, s := range t.services {
			t.forget(s, now)
		}
		if t.rows.Len() < maxRows {
			return true
		}
		t.Full("balancers", t.rows.Largest(), t.rows.Len())
	}
	w, ok := t.rows.Displace(client)
	if !ok {
		return false
	}
	s := w.service
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = slices.DeleteFunc(s.rows, func(other *row) bool { return other == w })
	delete(s.index, w.key)
	if now.Sub(w.last.at) <= w.silence() {
		s.lose(w.client, w.last.at)
	}
	return true
}

// miss counts a request of a client about s that is not entered for want of room.
func (t *Table) miss(s *Service, client netip.Prefix, at time.Time) {
	s.missed.add(t.age(at))
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.services[s.name]; known != nil {
		known.lose(client, at)
		return
	}
	if len(t.services) >= maxServices {
		t.missedAgents.other, t.missedAgents.otherBy = at, client
		return
	}
	t.services[s.name] = s
	s.lose(client, at)
}

// forget drops the rows of s that are to be forgotten, and s when there is nothing left. t.mu is held.
func (t *Table) forget(s *Service, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = slices.DeleteFunc(s.rows, func(w *row) bool {
		if !w.forgotten(now) {
			return false
		}
		delete(s.index, w.key)
		t.rows.Remove(w.place)
		return true
	})
	if len(s.rows) == 0 && s.missed.count(t.age(now)) == 0 && now.Sub(s.lost) > unrecordedFor {
		delete(t.services, s.name)
	}
}
