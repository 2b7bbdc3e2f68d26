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

// slotOwner is what slots are divided among: a host and port, or a service whose configuration names what to ask.
type slotOwner struct {
	service string
	host    string
	port    uint16
}

// slotOwnerOf returns the owner of the slot that a check of t takes. All loopback addresses are one host, because a
// service that listens on every address can be reached at any of 16 million of them.
func slotOwnerOf(t *Target) slotOwner {
	if t.Host == "" {
		return slotOwner{service: t.Service}
	}
	host := t.Host
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		host = "localhost"
	}
	return slotOwner{host: host, port: t.Port}
}

// String returns the owner for people: "localhost:8080", "service web".
func (o slotOwner) String() string {
	if o.host == "" {
		return "service " + excerpt(o.service, 200)
	}
	return hostPort(o.host, o.port)
}

// slots is a semaphore that divides its slots among owners. An owner may hold as many slots as are still free: a
// single owner holds half of them at most, k owners hold 1/(k+1) each. So some slots are always left for owners that
// hold none, however many checks of one owner are asked for. (Choudhury and Hahne call this a dynamic threshold.)
//
// A slot that becomes free goes to the waiting owner that holds the fewest; among equals, to the one whose first
// waiter came first. The length of the queue is divided in the same way.
//
// slots is safe for concurrent use and starts no goroutine. It keeps an owner only while it has a slot or a waiter.
type slots struct {
	size, maxWaiting int

	mu      sync.Mutex
	running int
	waiting int
	// background counts the running checks that took their slot with tryAcquireBackground.
	background int
	arrived    uint64 // waiters so far
	owners     map[slotOwner]*slotUsage
	queue      usageHeap // the owners that have waiters
}

// slotUsage is what one owner has.
type slotUsage struct {
	running int
	waiters list.List // of *slotWaiter, in order of arrival
	index   int       // in slots.queue, while there are waiters
}

// slotWaiter is one check that waits for a slot.
type slotWaiter struct {
	arrived uint64
	ready   chan struct{} // closed when it has a slot
}

func newSlots(size, maxWaiting int) *slots {
	return &slots{size: size, maxWaiting: maxWaiting, owners: map[slotOwner]*slotUsage{}}
}

// errQueueFull is the error of acquire when the owner has as many waiters as it may have.
var errQueueFull = errors.New("too many are waiting already")

// tryAcquire takes a slot if the owner may have one now. It does not block. The caller must release the slot.
func (s *slots) tryAcquire(owner slotOwner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(owner)
}

// tryAcquireBackground takes a slot for a check that no client waits for. Such checks hold at most half of the slots
// together, but one in any case. The caller must call releaseBackground.
func (s *slots) tryAcquireBackground(owner slotOwner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.background >= max(1, s.size/2) || !s.take(owner) {
		return false
	}
	s.background++
	return true
}

// take takes a slot if the owner may have one now. s.mu is held.
func (s *slots) take(owner slotOwner) bool {
	u := s.owners[owner]
	switch {
	case u == nil && s.running < s.size:
		u = &slotUsage{}
		s.owners[owner] = u
	case u == nil || u.waiters.Len() > 0 || u.running >= s.size-s.running:
		return false
	}
	u.running++
	s.running++
	return true
}

// acquire takes a slot. It blocks until the owner gets one or ctx ends, and returns nil, errQueueFull or ctx's error.
// After nil the caller must release the slot.
func (s *slots) acquire(ctx context.Context, owner slotOwner) error {
	if s.tryAcquire(owner) {
		return nil
	}
	s.mu.Lock()
	u := s.owners[owner]
	if u == nil {
		u = &slotUsage{}
		s.owners[owner] = u
	}
	if u.waiters.Len() >= s.maxWaiting-s.waiting {
		s.removeIdle(owner, u)
		s.mu.Unlock()
		return errQueueFull
	}
	s.arrived++
	w := &slotWaiter{s.arrived, make(chan struct{})}
	element := u.waiters.PushBack(w)
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
		s.release(owner)
	default:
		s.leaveQueue(u, element)
		s.removeIdle(owner, u)
		s.mu.Unlock()
	}
	return ctx.Err()
}

// release returns a slot that the owner holds.
func (s *slots) release(owner slotOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(owner)
}

// releaseBackground returns a slot of tryAcquireBackground.
func (s *slots) releaseBackground(owner slotOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.background--
	s.giveBack(owner)
}

// giveBack returns a slot that the owner holds. s.mu is held.
func (s *slots) giveBack(owner slotOwner) {
	u := s.owners[owner]
	u.running--
	s.running--
	if u.waiters.Len() > 0 {
		heap.Fix(&s.queue, u.index)
	}
	s.grant()
	s.removeIdle(owner, u)
}

// grant gives the free slots to the waiters that may have them. s.mu is held.
func (s *slots) grant() {
	for len(s.queue) > 0 {
		u := s.queue[0]
		if u.running >= s.size-s.running {
			return // the other owners hold no fewer
		}
		first := u.waiters.Front()
		u.running++
		s.running++
		s.leaveQueue(u, first)
		close(first.Value.(*slotWaiter).ready)
	}
}

// leaveQueue removes a waiter from its owner's queue. s.mu is held.
func (s *slots) leaveQueue(u *slotUsage, element *list.Element) {
	u.waiters.Remove(element)
	s.waiting--
	if u.waiters.Len() == 0 {
		heap.Remove(&s.queue, u.index)
	} else {
		heap.Fix(&s.queue, u.index)
	}
}

// removeIdle deletes an owner that has neither a slot nor a waiter. s.mu is held.
func (s *slots) removeIdle(owner slotOwner, u *slotUsage) {
	if u.running == 0 && u.waiters.Len() == 0 {
		delete(s.owners, owner)
	}
}

// count returns how many slots are taken, how many of them by this owner, and how many checks wait.
func (s *slots) count(owner slotOwner) (running, own, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.owners[owner]; u != nil {
		own = u.running
	}
	return s.running, own, s.waiting
}

// usageHeap implements heap.Interface. The owner that gets the next slot comes first.
type usageHeap []*slotUsage

func (h usageHeap) Len() int { return len(h) }

func (h usageHeap) Less(i, j int) bool {
	first := func(u *slotUsage) uint64 { return u.waiters.Front().Value.(*slotWaiter).arrived }
	return cmp.Or(cmp.Compare(h[i].running, h[j].running), cmp.Compare(first(h[i]), first(h[j]))) < 0
}

func (h usageHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *usageHeap) Push(x any) {
	u := x.(*slotUsage)
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
