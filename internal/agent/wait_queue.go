//go:build unix

package agent

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// pendingConn is a connection whose request has not arrived yet.
type pendingConn struct {
	*net.TCPConn
	server  *Server
	client  netip.Prefix // as clients.NetworkOfAddr
	text    [maxRequest]byte
	evicted atomic.Bool // only a request that has arrived by now is answered

	elem, clientElem *list.Element // in waitQueue.waiting and byClient; nil once the connection is evicted
}

// waitQueue holds the pending connections of all servers of an Agent. It is bounded, so that a client that opens
// thousands of silent connections does not delay others.
type waitQueue struct {
	capacity, clientCapacity, maxOpen int
	readTimeout                       time.Duration // of each connection

	mu       sync.Mutex
	open     map[*pendingConn]struct{} // also the evicted ones whose goroutine has not ended
	waiting  *list.List                // of *pendingConn, the oldest first
	byClient map[netip.Prefix]*list.List
}

func newWaitQueue(capacity, clientCapacity, maxOpen int) waitQueue {
	return waitQueue{
		capacity: capacity, clientCapacity: clientCapacity, maxOpen: maxOpen, readTimeout: readTimeout,
		open: map[*pendingConn]struct{}{}, waiting: list.New(), byClient: map[netip.Prefix]*list.List{},
	}
}

// add queues c and sets its read deadline. A full queue evicts its oldest connection, a client at its limit its own
// oldest one. add returns false when the server is closed or too many evicted connections have not ended yet.
func (q *waitQueue) add(c *pendingConn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.server.closed.Load() || len(q.open) >= q.maxOpen {
		return false
	}
	own := q.byClient[c.client]
	switch {
	case own != nil && own.Len() >= q.clientCapacity:
		q.evictLocked(own.Front().Value.(*pendingConn))
	case q.waiting.Len() >= q.capacity:
		q.evictLocked(q.waiting.Front().Value.(*pendingConn))
	}
	if own = q.byClient[c.client]; own == nil {
		own = list.New()
		q.byClient[c.client] = own
	}
	_ = c.SetReadDeadline(time.Now().Add(q.readTimeout))
	c.elem, c.clientElem = q.waiting.PushBack(c), own.PushBack(c)
	q.open[c] = struct{}{}
	return true
}

// evict ends the wait of c, unless c was removed already.
func (q *waitQueue) evict(c *pendingConn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, open := q.open[c]; open {
		q.evictLocked(c)
	}
}

// evictLocked takes c from the queue and lets its read time out at once. q.mu is held.
func (q *waitQueue) evictLocked(c *pendingConn) {
	q.dequeueLocked(c)
	c.evicted.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0))
}

func (q *waitQueue) dequeueLocked(c *pendingConn) {
	if c.elem == nil {
		return
	}
	q.waiting.Remove(c.elem)
	own := q.byClient[c.client]
	if own.Remove(c.clientElem); own.Len() == 0 {
		delete(q.byClient, c.client)
	}
	c.elem, c.clientElem = nil, nil
}

// remove forgets c. The goroutine that serves c calls it at its end.
func (q *waitQueue) remove(c *pendingConn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dequeueLocked(c)
	delete(q.open, c)
}

// closeAll closes the pending connections of s. Their goroutines then end.
func (q *waitQueue) closeAll(s *Server) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for c := range q.open {
		if c.server == s {
			_ = c.Close()
		}
	}
}
