package check

import (
	"cmp"
	"container/heap"
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
)

// share is what slots are divided among: a host and port, or a service whose configuration says what to ask.
type share struct {
	service string
	host    string
	port    uint16
}

// shareOf returns the share that a check of t counts against. All loopback addresses are one host, because a service
// that listens on every address can be asked at any of 16 million of them.
func shareOf(t *Target) share {
	if t.Host == "" {
		return share{service: t.Service}
	}
	host := t.Host
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		host = "localhost"
	}
	return share{host: host, port: t.Port}
}

// String is the share for people: "localhost:8080", "service web".
func (s share) String() string {
	if s.host == "" {
		return "service " + oneLine(s.service, 200)
	}
	return hostPort(s.host, s.port)
}

// slots are permits to run. A share may hold as many of them as are still free: one share alone holds half of them at
// most, k shares hold 1/(k+1) of them each, and the last ones are left for shares that hold none. So no share keeps
// the others waiting, however many checks of it are asked for. (Choudhury and Hahne call this a dynamic threshold.)
//
// A slot that becomes free goes to the waiting share that holds the fewest; among equals, to the one whose first
// waiter came first. The places in which to wait are divided in the same way.
//
// slots start no goroutine and are safe for concurrent use. A share takes memory only while it runs or waits.
type slots struct {
	size, places int

	mu      sync.Mutex
	running int
	waiting int
	arrived uint64 // waiters so far
	shares  map[share]*usage
	queue   usageHeap // the shares that have waiters
}

// usage is what one share has.
type usage struct {
	running int
	waiters list.List // of *waiter, in order of arrival
	index   int       // in slots.queue, while there are waiters
}

// waiter is one check that waits for a slot.
type waiter struct {
	arrived uint64
	ready   chan struct{} // closed when it has a slot
}

func newSlots(size, places int) *slots {
	return &slots{size: size, places: places, shares: map[share]*usage{}}
}

// errNoPlace is the error of acquire when as many of a share wait as may.
var errNoPlace = errors.New("too many are waiting already")

// tryAcquire takes a slot for a share if it may have one now.
func (s *slots) tryAcquire(of share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.shares[of]
	switch {
	case u == nil && s.running < s.size:
		u = &usage{}
		s.shares[of] = u
	case u == nil || u.waiters.Len() > 0 || u.running >= s.size-s.running:
		return false
	}
	u.running++
	s.running++
	return true
}

// acquire takes a slot for a share and waits for it until ctx ends. It returns nil, errNoPlace or ctx's error.
// Whoever has a slot must release it.
func (s *slots) acquire(ctx context.Context, of share) error {
	if s.tryAcquire(of) {
		return nil
	}
	s.mu.Lock()
	u := s.shares[of]
	if u == nil {
		u = &usage{}
		s.shares[of] = u
	}
	if u.waiters.Len() >= s.places-s.waiting {
		s.forget(of, u)
		s.mu.Unlock()
		return errNoPlace
	}
	s.arrived++
	w := &waiter{s.arrived, make(chan struct{})}
	place := u.waiters.PushBack(w)
	s.waiting++
	if u.waiters.Len() == 1 {
		heap.Push(&s.queue, u)
	}
	s.grant() // a slot may have become free since tryAcquire
	s.mu.Unlock()

	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	select {
	case <-w.ready: // just now
		s.mu.Unlock()
		s.release(of)
	default:
		s.leaveQueue(u, place)
		s.forget(of, u)
		s.mu.Unlock()
	}
	return ctx.Err()
}

// release gives back a slot that the share holds.
func (s *slots) release(of share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.shares[of]
	u.running--
	s.running--
	if u.waiters.Len() > 0 {
		heap.Fix(&s.queue, u.index)
	}
	s.grant()
	s.forget(of, u)
}

// grant gives the free slots to those who wait and may have them. s.mu is held.
func (s *slots) grant() {
	for len(s.queue) > 0 {
		u := s.queue[0]
		if u.running >= s.size-s.running {
			return // the others hold no fewer
		}
		first := u.waiters.Front()
		u.running++
		s.running++
		s.leaveQueue(u, first)
		close(first.Value.(*waiter).ready)
	}
}

// leaveQueue takes a waiter out of its share's queue. s.mu is held.
func (s *slots) leaveQueue(u *usage, place *list.Element) {
	u.waiters.Remove(place)
	s.waiting--
	if u.waiters.Len() == 0 {
		heap.Remove(&s.queue, u.index)
	} else {
		heap.Fix(&s.queue, u.index)
	}
}

// forget drops a share that has nothing. s.mu is held.
func (s *slots) forget(of share, u *usage) {
	if u.running == 0 && u.waiters.Len() == 0 {
		delete(s.shares, of)
	}
}

// count returns how many slots are taken, how many of them by a share, and how many checks wait.
func (s *slots) count(of share) (running, mine, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.shares[of]; u != nil {
		mine = u.running
	}
	return s.running, mine, s.waiting
}

// usageHeap implements heap.Interface: the share that is next comes first.
type usageHeap []*usage

func (h usageHeap) Len() int { return len(h) }

func (h usageHeap) Less(i, j int) bool {
	first := func(u *usage) uint64 { return u.waiters.Front().Value.(*waiter).arrived }
	return cmp.Or(cmp.Compare(h[i].running, h[j].running), cmp.Compare(first(h[i]), first(h[j]))) < 0
}

func (h usageHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *usageHeap) Push(x any) {
	u := x.(*usage)
	u.index = len(*h)
	*h = append(*h, u)
}

// Pop implements heap.Interface.
func (h *usageHeap) Pop() any {
	last := len(*h) - 1
	u := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return u
}
