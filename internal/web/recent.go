package web

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/share"
)

// Clients fill the tables behind /recent and /status/count with any names that they ask about, so the tables are bounded. A
// full table drops rows without a request for recentFor, then rows of the client that fills it; see package share.
const (
	maxServices = 10_000
	maxCallers  = 50_000 // pairs of service and client address
	recentFor   = 600 * time.Second
)

// recentTable has for each service the last answer, the number of requests of each client, and the balancers among
// them.
//
// The table removes the row of a service with its last caller. A client that invents services evicts its own callers,
// and so the rows of services that no other client asks about.
type recentTable struct {
	balancers *balancer.Table

	// mu guards the rest, and is held while rows and callers are added or removed. It is locked before the other locks.
	mu      sync.Mutex
	callers *share.Shares[*caller]
	swept   time.Time

	rowsMu sync.RWMutex // guards rows, together with mu
	rows   map[string]*serviceRow
}

func newRecentTable(b *balancer.Table) *recentTable {
	return &recentTable{balancers: b, callers: share.New((*caller).count), rows: map[string]*serviceRow{}}
}

// caller is an address that has asked about a service.
type caller struct {
	row   *serviceRow
	addr  string
	n     uint64 // its answers; row.mu guards it
	place *share.Entry[*caller]
}

func (c *caller) count() uint64 {
	c.row.mu.Lock()
	defer c.row.mu.Unlock()
	return c.n
}

// serviceRow is the row of one service.
type serviceRow struct {
	name      string
	since     time.Time // when the row was made
	balancers *balancer.ServiceRecord

	mu       sync.Mutex
	answered bool
	removed  bool // from the table
	code     int
	at       time.Time
	addr     string  // of the client that got the last answer
	caller   *caller // the same; in no table if there was no room
	past     uint64  // answers to callers that were removed

	history history

	first  *caller // most services have no other
	others map[string]*caller
}

// find returns the caller with that address, or nil. s.mu is held.
func (s *serviceRow) find(addr string) *caller {
	if s.first != nil && s.first.addr == addr {
		return s.first
	}
	return s.others[addr]
}

// has reports whether the client at addr is a caller of the service.
func (s *serviceRow) has(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(addr) != nil
}

// add adds a caller. s.mu is held.
func (s *serviceRow) add(c *caller) {
	if s.first == nil {
		s.first = c
		return
	}
	if s.others == nil {
		s.others = make(map[string]*caller, 1)
	}
	s.others[c.addr] = c
}

// remove removes a caller. It reports whether it was the last one; the caller of remove then removes the row from the
// table. s.mu is held.
func (s *serviceRow) remove(c *caller) (last bool) {
	s.past += c.n
	if s.caller == c {
		s.caller = nil
	}
	if s.first == c {
		s.first = nil
	} else {
		delete(s.others, c.addr)
	}
	s.removed = s.first == nil && len(s.others) == 0
	return s.removed
}

// each calls f for each caller. s.mu is held.
func (s *serviceRow) each(f func(c *caller)) {
	if s.first != nil {
		f(s.first)
	}
	for _, c := range s.others {
		f(c)
	}
}

// get returns the row of a service, or nil.
func (t *recentTable) get(service string) *serviceRow {
	t.rowsMu.RLock()
	defer t.rowsMu.RUnlock()
	return t.rows[service]
}

// all returns all rows, in no order.
func (t *recentTable) all() []*serviceRow {
	t.rowsMu.RLock()
	defer t.rowsMu.RUnlock()
	return slices.Collect(maps.Values(t.rows))
}

// remove removes the row of a service. t.mu is held.
func (t *recentTable) remove(service string) {
	t.rowsMu.Lock()
	defer t.rowsMu.Unlock()
	delete(t.rows, service)
}

// getOrCreate returns the row of a service about which the client at addr asks now. It returns nil if the table has no room.
func (t *recentTable) getOrCreate(service, addr string, now time.Time) *serviceRow {
	if row := t.get(service); row != nil {
		return row
	}
	return t.addCaller(service, addr, now)
}

// addCaller adds addr to the callers of a service, if there is room for it, and returns the row of the service. It makes a
// missing row, or returns nil if there is no room for one.
func (t *recentTable) addCaller(service, addr string, now time.Time) *serviceRow {
	client := clients.NetworkOf(addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	row := t.get(service)
	for t.callers.Len() >= maxCallers || row == nil && len(t.rows) >= maxServices {
		if row != nil && row.has(addr) {
			return row
		}
		if !t.makeRoom(client, now) {
			return row
		}
		row = t.get(service) // makeRoom may have removed it
	}
	if row == nil {
		name := strings.Clone(service)
		row = &serviceRow{name: name, since: now, at: now, balancers: t.balancers.Service(name)}
		t.rowsMu.Lock()
		t.rows[name] = row
		t.rowsMu.Unlock()
	}
	row.mu.Lock()
	defer row.mu.Unlock()
	if row.find(addr) == nil {
		c := &caller{row: row, addr: strings.Clone(addr)}
		c.place = t.callers.Add(client, c)
		row.add(c)
		t.balancers.ExpireUnrecorded(row.name, client)
	}
	return row
}

// makeRoom removes old rows, or else one caller of the client that has the most callers. It returns false if
// client itself would have to lose a caller. t.mu is held.
func (t *recentTable) makeRoom(client netip.Prefix, now time.Time) bool {
	if now.Sub(t.swept) >= time.Second {
		t.swept = now
		t.sweep(now)
		if len(t.rows) < maxServices && t.callers.Len() < maxCallers {
			return true
		}
	}
	t.balancers.LogFull("services", t.callers.Largest(), len(t.rows))
	c, ok := t.callers.Evict(client)
	if !ok {
		return false
	}
	s := c.row
	s.mu.Lock()
	last, at := s.remove(c), s.at
	s.mu.Unlock()
	if last {
		t.remove(s.name)
		t.balancers.RecordEvicted(s.name, c.addr, at)
	}
	return true
}

// sweep removes the services without a request for recentFor. t.mu is held.
func (t *recentTable) sweep(now time.Time) {
	for _, s := range t.all() {
		s.mu.Lock()
		old := now.Sub(s.at) > recentFor
		if old {
			s.removed = true
			s.each(func(c *caller) { t.callers.Remove(c.place) })
		}
		s.mu.Unlock()
		if old {
			t.remove(s.name)
		}
	}
}

// record records the answer v to the request r about a service.
func (t *recentTable) record(service string, r *balancer.AnsweredRequest, v *health.Verdict) {
	row := t.getOrCreate(service, r.Peer, r.Answered)
	if row != nil {
		row = t.count(row, r, v)
	}
	if row == nil {
		t.balancers.RecordUnrecorded(service, r.Peer)
		return
	}
	row.balancers.Record(r)
}

// count counts an answer in the row s and returns s. If s was removed from the table, count adds a new row of the service
// and returns that one. It returns nil if there is no room for a new row.
func (t *recentTable) count(s *serviceRow, r *balancer.AnsweredRequest, v *health.Verdict) *serviceRow {
	s.mu.Lock()
	if s.removed || s.caller == nil || s.addr != r.Peer {
		if c := s.find(r.Peer); c != nil && !s.removed {
			s.caller, s.addr = c, c.addr
		} else {
			name := s.name
			s.mu.Unlock()
			if s = t.addCaller(name, r.Peer, r.Answered); s == nil {
				return nil
			}
			s.mu.Lock()
			if s.caller = s.find(r.Peer); s.caller == nil {
				s.caller = &caller{addr: strings.Clone(r.Peer)} // there is no room to count it
			}
			s.addr = s.caller.addr
		}
	}
	s.answered, s.code, s.at = true, r.Code, r.Answered
	s.history.add(r.Answered, v)
	s.caller.n++
	s.mu.Unlock()
	return s
}
