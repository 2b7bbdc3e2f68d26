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

// pendingConn is a connection that has not said yet what it means.
type pendingConn struct {
	*net.TCPConn
	server   *Server
	client   netip.Prefix
	text   [maxRequest]byte
	evicted atomic.Bool // it has to make room: what it has said until now counts, and nothing more

	elem, clientElem *list.Element // its places; nil when it has none any more
}

// waitQueue are the visitors of all doors, bounded so that one who opens thousands of connections and is
// silent holds up nobody else.
type waitQueue struct {
	capacity, clientCapacity, maxOpen int
	readTimeout                 time.Duration // with each

	mu    sync.Mutex
	open map[*pendingConn]struct{}
	waiting   *list.List // of *visitor with a place, who has waited longest first
	byClient    map[netip.Prefix]*list.List
}

func newWaitQueue(places, placesPeer, most int) waitQueue {
	return waitQueue{
		capacity: places, clientCapacity: placesPeer, maxOpen: most, readTimeout: readTimeout,
		open: map[*pendingConn]struct{}{}, waiting: list.New(), byClient: map[netip.Prefix]*list.List{},
	}
}

// add gives v a place and the time to speak, at the cost of another if need be, or returns false: then
// there are too many that have lost their places and not noticed, or the door is closed.
func (c *waitQueue) add(v *pendingConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.server.closed.Load() || len(c.open) >= c.maxOpen {
		return false
	}
	same := c.byClient[v.client]
	switch {
	case same != nil && same.Len() >= c.clientCapacity:
		c.evictLocked(same.Front().Value.(*pendingConn))
	case c.waiting.Len() >= c.capacity:
		c.evictLocked(c.waiting.Front().Value.(*pendingConn))
	}
	if same = c.byClient[v.client]; same == nil {
		same = list.New()
		c.byClient[v.client] = same
	}
	_ = v.SetReadDeadline(time.Now().Add(c.readTimeout))
	v.elem, v.clientElem = c.waiting.PushBack(v), same.PushBack(v)
	c.open[v] = struct{}{}
	return true
}

// evictLocked has v go. c.mu is held.
func (c *waitQueue) evictLocked(v *pendingConn) {
	c.dequeueLocked(v)
	v.evicted.Store(true)
	_ = v.SetReadDeadline(time.Unix(1, 0))
}

// evict has v go, unless it has gone.
func (c *waitQueue) evict(v *pendingConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, alive := c.open[v]; alive {
		c.evictLocked(v)
	}
}

func (c *waitQueue) dequeueLocked(v *pendingConn) {
	if v.elem == nil {
		return
	}
	c.waiting.Remove(v.elem)
	same := c.byClient[v.client]
	if same.Remove(v.clientElem); same.Len() == 0 {
		delete(c.byClient, v.client)
	}
	v.elem, v.clientElem = nil, nil
}

// remove is when v has gone.
func (c *waitQueue) remove(v *pendingConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dequeueLocked(v)
	delete(c.open, v)
}

// closeAll closes the connections of a door.
func (c *waitQueue) closeAll(d *Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for v := range c.open {
		if v.server == d {
			_ = v.Close() // its goroutine notices
		}
	}
}
