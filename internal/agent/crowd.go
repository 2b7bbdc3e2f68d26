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

// visitor is a connection that has not said yet what it means.
type visitor struct {
	*net.TCPConn
	door   *Server
	from   netip.Prefix
	text   [maxText]byte
	pushed atomic.Bool // it has to make room: what it has said until now counts, and nothing more

	among, same *list.Element // its places; nil when it has none any more
}

// crowd are the visitors of all doors, bounded so that one who opens thousands of connections and is
// silent holds up nobody else.
type crowd struct {
	places, placesPeer, most int
	patience                 time.Duration // with each

	mu    sync.Mutex
	alive map[*visitor]struct{}
	all   *list.List // of *visitor with a place, who has waited longest first
	by    map[netip.Prefix]*list.List
}

func newCrowd(places, placesPeer, most int) crowd {
	return crowd{
		places: places, placesPeer: placesPeer, most: most, patience: readTime,
		alive: map[*visitor]struct{}{}, all: list.New(), by: map[netip.Prefix]*list.List{},
	}
}

// enter gives v a place and the time to speak, at the cost of another if need be, or returns false: then
// there are too many that have lost their places and not noticed, or the door is closed.
func (c *crowd) enter(v *visitor) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.door.closed.Load() || len(c.alive) >= c.most {
		return false
	}
	same := c.by[v.from]
	switch {
	case same != nil && same.Len() >= c.placesPeer:
		c.push(same.Front().Value.(*visitor))
	case c.all.Len() >= c.places:
		c.push(c.all.Front().Value.(*visitor))
	}
	if same = c.by[v.from]; same == nil {
		same = list.New()
		c.by[v.from] = same
	}
	_ = v.SetReadDeadline(time.Now().Add(c.patience))
	v.among, v.same = c.all.PushBack(v), same.PushBack(v)
	c.alive[v] = struct{}{}
	return true
}

// push has v go. c.mu is held.
func (c *crowd) push(v *visitor) {
	c.displace(v)
	v.pushed.Store(true)
	_ = v.SetReadDeadline(time.Unix(1, 0))
}

// pushOut has v go, unless it has gone.
func (c *crowd) pushOut(v *visitor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, alive := c.alive[v]; alive {
		c.push(v)
	}
}

func (c *crowd) displace(v *visitor) {
	if v.among == nil {
		return
	}
	c.all.Remove(v.among)
	same := c.by[v.from]
	if same.Remove(v.same); same.Len() == 0 {
		delete(c.by, v.from)
	}
	v.among, v.same = nil, nil
}

// leave is when v has gone.
func (c *crowd) leave(v *visitor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.displace(v)
	delete(c.alive, v)
}

// disperse closes the connections of a door.
func (c *crowd) disperse(d *Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for v := range c.alive {
		if v.door == d {
			_ = v.Close() // its goroutine notices
		}
	}
}
