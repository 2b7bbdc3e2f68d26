// Package share divides the rows of a bounded table among the clients whose requests fill it. When the table is full, the
// client with the most rows loses one to a client with fewer. A client never loses a row to one that has more. The table
// stores the rows; this package only counts them.
package share

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// Shares counts the rows of one table by client, which is a network (see clients.NetworkOf). It is not safe for concurrent
// use: the table's lock guards it.
type Shares[R any] struct {
	count   func(row R) uint64
	n       int
	clients map[netip.Prefix]*client
	largest clientHeap
}

// Entry is one row of the table, as the table's shares count it.
type Entry[R any] struct {
	Row     R
	owner   *client
	element *list.Element
	count   uint64 // of the row's requests when the entry came to the back
}

// client is one client with its entries. They are in the order in which they were added or last moved to the back.
type client struct {
	network netip.Prefix
	entries list.List // of *Entry
	index   int       // in the heap
}

// secondChances is how many entries Evict moves to the back because their rows had requests meanwhile.
const secondChances = 16

// New returns the shares of an empty table. count returns the number of requests for a row so far; Evict calls it.
func New[R any](count func(row R) uint64) *Shares[R] {
	return &Shares[R]{count: count, clients: map[netip.Prefix]*client{}}
}

// Len returns how many rows the table has.
func (s *Shares[R]) Len() int { return s.n }

// RowsOf returns how many rows a client has.
func (s *Shares[R]) RowsOf(network netip.Prefix) int {
	if c := s.clients[network]; c != nil {
		return c.entries.Len()
	}
	return 0
}

// Largest returns the client with the most rows. It returns the zero Prefix for an empty table.
func (s *Shares[R]) Largest() netip.Prefix {
	if len(s.largest) == 0 {
		return netip.Prefix{}
	}
	return s.largest[0].network
}

// Add counts a row that a request of network causes. The caller makes room first.
func (s *Shares[R]) Add(network netip.Prefix, row R) *Entry[R] {
	c := s.clients[network]
	if c == nil {
		c = &client{network: network}
		s.clients[network] = c
		heap.Push(&s.largest, c)
	}
	e := &Entry[R]{Row: row, owner: c, count: 1} // the request that causes the row
	e.element = c.entries.PushBack(e)
	heap.Fix(&s.largest, c.index)
	s.n++
	return e
}

// Remove ends the count of a row, which the caller removes from the table.
func (s *Shares[R]) Remove(e *Entry[R]) {
	c := e.owner
	c.entries.Remove(e.element)
	s.n--
	if c.entries.Len() > 0 {
		heap.Fix(&s.largest, c.index)
		return
	}
	heap.Remove(&s.largest, c.index)
	delete(s.clients, c.network)
}

// Evict ends the count of a row of the client with the most rows, so that network can have one more. It chooses a row that
// has had no request for long. The caller removes the returned row from the table. Evict returns false if network would
// then have more rows than that client.
func (s *Shares[R]) Evict(network netip.Prefix) (row R, ok bool) {
	if len(s.largest) == 0 || s.RowsOf(network)+1 >= s.largest[0].entries.Len() {
		return row, false
	}
	entries := &s.largest[0].entries
	for range secondChances {
		e := entries.Front().Value.(*Entry[R])
		count := s.count(e.Row)
		if count == e.count {
			break
		}
		e.count = count
		entries.MoveToBack(e.element)
	}
	e := entries.Front().Value.(*Entry[R])
	s.Remove(e)
	return e.Row, true
}

// clientHeap is a heap with the client that has the most rows on top.
type clientHeap []*client

func (h clientHeap) Len() int           { return len(h) }
func (h clientHeap) Less(i, j int) bool { return h[i].entries.Len() > h[j].entries.Len() }
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
