// Package share divides the places of a bounded table among the clients whose requests fill it: when the table is
// full, the client with the most rows gives one up for a client with fewer, and a client never loses a row to one
// that has more. It stores no rows and does not know what they are; the table does.
package share

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// Shares counts the places of one table by client (see clients.Network). It is not safe for concurrent use: the
// table's lock guards it.
type Shares[R any] struct {
	asked   func(row R) uint64
	n       int
	clients map[netip.Prefix]*client
	largest clientHeap
}

// Place is the place of one row.
type Place[R any] struct {
	Row     R
	owner   *client
	element *list.Element
	asked   uint64 // what the function asked said when the place came to the back
}

// client is what one client holds. Its places are in the order in which they came or, since then, came to the back.
type client struct {
	network netip.Prefix
	places  list.List
	index   int // in the heap
}

// secondChances is how many places Displace passes over because their rows were asked about meanwhile.
const secondChances = 16

// New returns shares of an empty table. asked returns how often a row was asked about so far; Displace calls it.
func New[R any](asked func(row R) uint64) *Shares[R] {
	return &Shares[R]{asked: asked, clients: map[netip.Prefix]*client{}}
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

// Add takes a place for a row that network has caused. The caller has made sure that there is room.
func (s *Shares[R]) Add(network netip.Prefix, row R) *Place[R] {
	c := s.clients[network]
	if c == nil {
		c = &client{network: network}
		s.clients[network] = c
		heap.Push(&s.largest, c)
	}
	p := &Place[R]{Row: row, owner: c, asked: 1} // the request that causes the row
	p.element = c.places.PushBack(p)
	heap.Fix(&s.largest, c.index)
	s.n++
	return p
}

// Remove gives a place back. The caller removes the row.
func (s *Shares[R]) Remove(p *Place[R]) {
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

// Displace gives back a place of the client that holds the most, so that network can have one more, and returns its
// row for the caller to remove. It is the row that has not been asked about for longest, or nearly so. Displace
// returns false if network would then hold more than that client.
func (s *Shares[R]) Displace(network netip.Prefix) (row R, ok bool) {
	if len(s.largest) == 0 || s.Of(network)+1 >= s.largest[0].places.Len() {
		return row, false
	}
	places := &s.largest[0].places
	for range secondChances {
		p := places.Front().Value.(*Place[R])
		asked := s.asked(p.Row)
		if asked == p.asked {
			break
		}
		p.asked = asked
		places.MoveToBack(p.element)
	}
	p := places.Front().Value.(*Place[R])
	s.Remove(p)
	return p.Row, true
}

// clientHeap has the client with the most places first.
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
