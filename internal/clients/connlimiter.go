package clients

import (
	"cmp"
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a ConnLimiter whose ConnLimits do not say otherwise. A balancer holds one connection for each check
// that runs; every connection of net/http takes about 20 kB.
const (
	DefaultConnsPerClient = 4096
	DefaultConnsTotal     = 2 * DefaultConnsPerClient
)

// limitReportEvery is how often OnLimit is called at most, for each of the two bounds.
const limitReportEvery = time.Minute

// ConnLimits are the bounds of a ConnLimiter.
type ConnLimits struct {
	PerClient int // connections of one client; 0 is DefaultConnsPerClient
	Total     int // connections of all clients; 0 is DefaultConnsTotal
	// OnLimit is called when a bound is reached, at most once a minute for each bound. held is how many connections
	// the client has; total says that the bound of all clients is meant. It may be nil.
	OnLimit func(client netip.Prefix, held int, total bool)
}

// ConnLimiter bounds how many connections are open at once, for each client and in total. All listeners of a process
// share one ConnLimiter, because they share its descriptors. It is safe for concurrent use and owns no goroutine.
//
// At a bound it makes room: it closes the connection that has waited longest for a request, of the same client at the
// bound per client, of any client at the total. A silent connection, half a request head and an idle keep-alive
// connection all wait; a balancer's request arrives with its connection, so silent connections from the same address
// do not keep it out. If no connection waits, the new one is refused.
type ConnLimiter struct {
	limits ConnLimits

	mu           sync.Mutex
	open         int
	clients      map[netip.Prefix]*connsOfClient
	waiting      *list.List // of *ConnSlot, the longest waiting first
	reported     time.Time  // when OnLimit was last called for a client
	reportedFull time.Time  // when OnLimit was last called for the total
}

type connsOfClient struct {
	open    int
	waiting *list.List // as ConnLimiter.waiting
}

// NewConnLimiter returns a ConnLimiter with these bounds.
func NewConnLimiter(limits ConnLimits) *ConnLimiter {
	if limits.OnLimit == nil {
		limits.OnLimit = func(netip.Prefix, int, bool) {}
	}
	l := &ConnLimiter{limits: limits, clients: map[netip.Prefix]*connsOfClient{}, waiting: list.New()}
	l.SetBounds(limits.PerClient, limits.Total)
	return l
}

// SetBounds changes PerClient and Total of the ConnLimits; 0 is the default. Connections above a lower bound stay open,
// and a further one of such a client takes the place of another.
func (l *ConnLimiter) SetBounds(perClient, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits.PerClient = cmp.Or(perClient, DefaultConnsPerClient)
	l.limits.Total = cmp.Or(total, DefaultConnsTotal)
}

// ConnSlot is one open connection of a ConnLimiter. It waits for a request until SetWaiting(false). Its methods are safe
// for concurrent use, and do nothing on a nil ConnSlot.
type ConnSlot struct {
	l      *ConnLimiter
	client netip.Prefix
	close  func()
	used   atomic.Bool // since the limiter last read it

	released bool
	// all and ofClient are its elements in the two lists of waiting connections. They are nil while it does not wait.
	all, ofClient *list.Element
}

// Acquire counts one connection from addr until its ConnSlot is released. It returns nil if the connection is refused;
// the caller then closes it. The limiter calls closeConn, once at most and from another goroutine, to make room for
// another connection; the ConnSlot is released by then.
func (l *ConnLimiter) Acquire(addr netip.Addr, closeConn func()) *ConnSlot {
	network := NetworkOfAddr(addr)
	l.mu.Lock()
	waiting, total := l.reachedBound(network)
	report, held := waiting != nil && l.mayReport(total), l.held(network)
	var victim, s *ConnSlot
	if waiting != nil {
		if victim = l.longestWaiting(waiting); victim != nil {
			l.remove(victim)
		}
	}
	if waiting == nil || victim != nil {
		s = &ConnSlot{l: l, client: network, close: closeConn}
		l.add(s)
	}
	l.mu.Unlock()
	if report {
		l.limits.OnLimit(network, held, total)
	}
	if victim != nil {
		victim.close()
	}
	return s
}

// reachedBound returns the waiting connections of which one must be closed before client may have another. It returns nil
// if no bound is reached. total says that it is the bound of all clients and not that of client. l.mu is held.
func (l *ConnLimiter) reachedBound(client netip.Prefix) (waiting *list.List, total bool) {
	switch {
	case l.held(client) >= l.limits.PerClient:
		return l.clients[client].waiting, false
	case l.open >= l.limits.Total:
		return l.waiting, true
	}
	return nil, false
}

// held returns how many connections client has. l.mu is held.
func (l *ConnLimiter) held(client netip.Prefix) int {
	if c := l.clients[client]; c != nil {
		return c.open
	}
	return 0
}

// longestWaiting returns the slot of the list that has waited longest, nil if the list is empty. It moves a slot that was
// used since it entered the list to the end, once. l.mu is held.
func (l *ConnLimiter) longestWaiting(slots *list.List) *ConnSlot {
	for range slots.Len() {
		s := slots.Front().Value.(*ConnSlot)
		if !s.used.Swap(false) {
			return s
		}
		l.waiting.MoveToBack(s.all)
		l.clients[s.client].waiting.MoveToBack(s.ofClient)
	}
	if e := slots.Front(); e != nil {
		return e.Value.(*ConnSlot)
	}
	return nil
}

// mayReport reports whether OnLimit is to be called. l.mu is held.
func (l *ConnLimiter) mayReport(total bool) bool {
	last := &l.reported
	if total {
		last = &l.reportedFull
	}
	now := time.Now()
	if !last.IsZero() && now.Sub(*last) < limitReportEvery {
		return false
	}
	*last = now
	return true
}

func (l *ConnLimiter) add(s *ConnSlot) {
	c := l.clients[s.client]
	if c == nil {
		c = &connsOfClient{waiting: list.New()}
		l.clients[s.client] = c
	}
	c.open++
	l.open++
	s.all, s.ofClient = l.waiting.PushBack(s), c.waiting.PushBack(s)
}

func (l *ConnLimiter) remove(s *ConnSlot) {
	s.released = true
	l.stopWaiting(s)
	c := l.clients[s.client]
	l.open--
	if c.open--; c.open == 0 {
		delete(l.clients, s.client)
	}
}

func (l *ConnLimiter) stopWaiting(s *ConnSlot) {
	if s.all != nil {
		l.waiting.Remove(s.all)
		l.clients[s.client].waiting.Remove(s.ofClient)
		s.all, s.ofClient = nil, nil
	}
}

// SetWaiting says whether the connection waits for a request. One that does not is never closed to make room.
func (s *ConnSlot) SetWaiting(waiting bool) {
	if s == nil {
		return
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.released {
		return
	}
	s.l.stopWaiting(s)
	if waiting {
		s.all, s.ofClient = s.l.waiting.PushBack(s), s.l.clients[s.client].waiting.PushBack(s)
	}
}

// Use says that a request was answered on a connection that still counts as waiting. It takes no lock.
func (s *ConnSlot) Use() {
	if s != nil && !s.used.Load() {
		s.used.Store(true)
	}
}

// Release ends the count. Further calls do nothing.
func (s *ConnSlot) Release() {
	if s == nil {
		return
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if !s.released {
		s.l.remove(s)
	}
}

// RemoteAddr returns the remote address of a TCP connection, the zero Addr of any other.
func RemoteAddr(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}
