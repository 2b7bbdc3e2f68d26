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
	"hacheck/internal/spool"
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

// rowKey tells balancers' views of servers apart.
type rowKey struct {
	peer, node, name string
	url              string // "" when there is a state header that says more
}

// row is one balancer's view of one server.
type row struct {
	service *Service
	client  netip.Prefix
	place   *share.Place[*row]

	key   rowKey
	sent  bool
	state []byte // the header as it came, cut at maxHeader; read when somebody wants to know
	url   string
	host  string
	port  uint16
	here  bool

	came           time.Time // the last request
	last, previous answer
	out            int       // answers in a row, last included, by an override that takes the server out
	alike          int       // answers in a row, last included, like the last
	same           time.Time // of the first of the answers in a row that are like the last
	gaps           gaps
	asked          uint // requests
}

type answer struct {
	at       time.Time
	code     int
	override spool.State
}

// candidate is an asker that sends no state and may be a balancer: it is one from its third request at a
// steady interval on. Of two whose hashes are the same the second is mistaken for the first.
type candidate struct {
	hash   uint64
	client uint64 // hash of the client's network
	at     time.Time
	gap    time.Duration // between the two requests before; 0 when there was one
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

// steady returns the interval at which r, of an asker that sends no state, is the third, or 0 when it is not.
func (s *Service) steady(r *Request) time.Duration {
	var h maphash.Hash
	h.SetSeed(s.t.seed)
	_, _ = h.WriteString(r.Peer) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(r.URL)
	hash := h.Sum64()
	if s.candidate.at.IsZero() {
		s.candidate = candidate{hash: hash, client: maphash.Comparable(s.t.seed, clients.NetworkOf(r.Peer)), at: r.Answered}
		return 0
	}
	if s.candidate.hash == hash {
		return s.candidate.again(r.Answered)
	}
	for i := range s.candidates {
		if c := &s.candidates[i]; c.hash == hash {
			return c.again(r.Answered)
		}
	}
	c := candidate{hash: hash, client: maphash.Comparable(s.t.seed, clients.NetworkOf(r.Peer)), at: r.Answered}
	if len(s.candidates) < maxCandidates-1 {
		s.candidates = append(s.candidates, c)
	} else {
		*s.leastCandidate(c.client) = c
	}
	return 0
}

// leastCandidate returns the candidate that makes room for one of a client: the oldest of the client that has the
// most, or of its own when it has as many.
func (s *Service) leastCandidate(client uint64) *candidate {
	all := make([]*candidate, 0, maxCandidates)
	all = append(all, &s.candidate)
	for i := range s.candidates {
		all = append(all, &s.candidates[i])
	}
	count := func(client uint64) (n int) {
		for _, c := range all {
			if c.client == client {
				n++
			}
		}
		return n
	}
	var least *candidate
	most := max(count(client), 1)
	for _, c := range all {
		n := count(c.client)
		switch {
		case n < most || n == most && most == count(client) && c.client != client:
		case n > most || least == nil || c.at.Before(least.at):
			least, most = c, n
		}
	}
	return least
}

// again enters another request and returns the interval when it is the third at a steady one, else 0.
func (c *candidate) again(at time.Time) time.Duration {
	gap := at.Sub(c.at)
	if gap < steadyAtLeast {
		return 0 // the same question twice: two threads of a load, or a person
	}
	before := c.gap
	c.at, c.gap = at, gap
	if before > 0 && max(gap, before) <= steadyRatio*min(gap, before) {
		return gap
	}
	return 0
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

// questions is how often w's balancer has asked.
func (w *row) questions() uint64 {
	w.service.mu.Lock()
	defer w.service.mu.Unlock()
	return uint64(w.asked)
}

// lose remembers that a client asked at that time which is in no row. Table.mu is held.
func (s *Service) lose(client netip.Prefix, at time.Time) {
	if at.After(s.lost) {
		s.lost, s.lostBy = at, client
	}
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

// enter enters a request in its row.
func (w *row) enter(r *Request) {
	if w.asked > 0 {
		w.gaps.add(w.asked, r.Answered.Sub(w.last.at))
	}
	w.asked++
	w.sent = r.HasState
	w.state = append(w.state[:0], cut(r.State, maxHeader)...)
	if url := cut(r.URL, maxName); w.url != url {
		w.url = strings.Clone(url)
	}
	if w.host != r.Host {
		w.host = strings.Clone(r.Host)
	}
	w.port, w.here = r.Port, r.Here

	if w.came = r.Received; w.came.IsZero() {
		w.came = r.Answered
	}
	w.previous = w.last
	w.last = answer{r.Answered, r.Code, r.Override}
	if w.asked == 1 || w.last.code != w.previous.code || w.last.override != w.previous.override {
		w.same, w.alike = r.Answered, 0
	}
	w.alike++
	if takesOut(r.Override) {
		w.out++
	} else {
		w.out = 0
	}
}

// takesOut reports whether an override of that state takes its server out of service.
func takesOut(s spool.State) bool { return s == spool.Drain || s == spool.Down || s == spool.Maint }

// interval is the usual time between two requests: the median of the latest, since a balancer asks faster
// or slower while a server is on its way up or down. It is 0 when there was one request.
func (w *row) interval() time.Duration { return w.gaps.median(w.asked) }

// gaps are the latest intervals in ms, a ring.
type gaps [8]uint32

// add enters the interval after that many requests.
func (g *gaps) add(asked uint, gap time.Duration) {
	g[(asked-1)%uint(len(g))] = uint32(min(max(gap, 0)/time.Millisecond, 1<<31))
}

// median is that of the latest intervals after that many requests, 0 when there are none.
func (g gaps) median(asked uint) time.Duration {
	if asked < 2 {
		return 0
	}
	n := min(asked-1, uint(len(g)))
	slices.Sort(g[:n])
	return time.Duration(g[n/2]) * time.Millisecond
}

// silence is after how long without a request w is silent.
func (w *row) silence() time.Duration {
	if w.asked < 2 {
		return silentUnknown
	}
	return max(silentAtLeast, silentIntervals*w.interval())
}

func (w *row) forgotten(now time.Time) bool {
	least := forgetAfter
	if !w.sent {
		least = forgetStateless
	}
	return now.Sub(w.last.at) > max(least, 2*w.silence())
}
