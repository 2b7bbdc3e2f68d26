package health

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// LocalAddrs knows the addresses of this machine, also those that come and go while it runs. The zero value
// is ready.
type LocalAddrs struct {
	mu   sync.Mutex
	read atomic.Pointer[ownAddrs]
}

type ownAddrs struct {
	at    time.Time
	addrs map[netip.Addr]struct{}
}

const (
	ownAddrsFor   = 5 * time.Second        // how long an address that went away may still count as ours
	ownAddrsAgain = 200 * time.Millisecond // how often a stranger may make us look again
)

// Contains reports whether a is an address of this machine: any loopback address, or one of any interface.
func (h *LocalAddrs) Contains(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	now := time.Now()
	o := h.read.Load()
	if o == nil || now.Sub(o.at) > ownAddrsFor {
		o = h.look(now, ownAddrsFor)
	}
	if _, ok := o.addrs[a]; ok {
		return true
	}
	if now.Sub(o.at) > ownAddrsAgain {
		_, ok := h.look(now, ownAddrsAgain).addrs[a]
		return ok
	}
	return false
}

// look reads the interfaces unless somebody else has just done so.
func (h *LocalAddrs) look(now time.Time, younger time.Duration) *ownAddrs {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.read.Load()
	if o != nil && now.Sub(o.at) <= younger {
		return o
	}
	next := &ownAddrs{at: now, addrs: make(map[netip.Addr]struct{})}
	list, err := net.InterfaceAddrs()
	if err != nil && o != nil {
		next.addrs = o.addrs // what was ours a moment ago; out of descriptors, say
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				next.addrs[ip.Unmap()] = struct{}{}
			}
		}
	}
	h.read.Store(next)
	return next
}
