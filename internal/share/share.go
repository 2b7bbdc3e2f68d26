// Package share divides the rows of a bounded table among the clients whose requests fill it: when the table is full, the
// client with the most rows loses one to a client with fewer, and a client never loses a row to one that has more. It
// does not store the rows; the table does.
package share

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// Shares counts the places of one table by client (see clients.Network). It is not safe for concurrent use: the
// table's lock guards it.
type Shares[R any] struct {
	count   func(row R) uint64
	n       int
	clients map[netip.Prefix]*client
	largest clientHeap
}

// Entry is the place of one row.
type Entry[R any] struct {
	Row     R
	owner   *client
	element *list.Element
	count   uint64 // of the row's requests when the place came to the back
}

// client is one client with its places. They are in the order in which they were added or last moved to the back.
type client struct {
	network netip.Prefix
	places  list.List
	index   int // in the heap
}

// secondChances is how many places Displace moves to the back because their rows had requests meanwhile.
const secondChances = 16

// New returns shares of an empty table. count returns the number of requests for a row so far; Displace calls it.
func New[R any](count func(row R) uint64) *Shares[R] {
	return &Shares[R]{count: count, clients: map[netip.Prefix]*client{}}
}

// Len returns how many places are taken.
func (s *Shares[R]) Len() int { return s.n }

// Of returns how many places a client holds.
func (s *Shares[R]) Of(network netip.Prefix) int {
	if c := s.clients[network]; c != nil {
		return c.places.Len()
	}
	return 0
}

// Largest returns the client that holds the most places. It returns the zero Prefix for an empty table.
func (s *Shares[R]) Largest() netip.Prefix {
	if len(s.largest) == 0 {
		return netip.Prefix{}
	}
	return s.largest[0].network
}

// Add takes a place for a row that a request of network causes. The caller makes room first.
func (s *Shares[R]) Add(network netip.Prefix, row R) *Entry[R] {
	c := s.clients[network]
	if c == nil {
		c = &client{network: network}
		s.clients[network] = c
		heap.Push(&s.largest, c)
	}
	p := &Entry[R]{Row: row, owner: c, count: 1} // the request that causes the row
	p.element = c.places.PushBack(p)
	heap.Fix(&s.largest, c.index)
	s.n++
	return p
}

// Remove gives a place back. The caller removes the row.
func (s *Shares[R]) Remove(p *Entry[R]) {
	c := p.owner
	c.places.Remove(p.element)
	s.n--
	if c.places.Len() > 0 {
		heap.Fix(&s.largest, c.index)
		return
	}
	heap.Remove(&s.largest, c.index)
	delete(s.clients, c.network)
}

// Evict gives back a place of the client that holds the most, so that network can have one more. The caller removes
// the returned row, which is the one without a request for the longest time, or nearly so. Displace returns false if
// network would then hold more than that client.
func (s *Shares[R]) Evict(network netip.Prefix) (row R, ok bool) {
	if len(s.largest) == 0 || s.Of(network)+1 >= s.largest[0].places.Len() {
		return row, false
	}
	places := &s.largest[0].places
	for range secondChances {
		p := places.Front().Value.(*Entry[R])
		count := s.count(p.Row)
		if count == p.count {
			break
		}
		p.count = count
		places.MoveToBack(p.element)
	}
	p := places.Front().Value.(*Entry[R])
	s.Remove(p)
	return p.Row, true
}

// clientHeap is a heap with the client that has the most places on top.
type clientHeap []*client

func (h clientHeap) Len() int           { return len(h) }
func (h clientHeap) Less(i, j int) bool { return h[i].places.Len() > h[j].places.Len() }
func (h clientHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *clientHeap) Push(c any) {
	c.(*client).index = len(*h)
	*h = append(*h, c.(*client))
}

func (h *clientHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}
