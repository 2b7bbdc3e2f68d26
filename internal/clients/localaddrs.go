package clients

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// LocalAddrs knows the addresses of this machine, also those that come and go while the process runs. The zero value
// is ready to use. It is safe for concurrent use.
type LocalAddrs struct {
	mu   sync.Mutex // held while the interfaces are read
	last atomic.Pointer[interfaceAddrs]
}

// interfaceAddrs are the addresses of all interfaces at one time.
type interfaceAddrs struct {
	at    time.Time
	addrs map[netip.Addr]struct{}
}

const (
	// localAddrsTTL is how long an address that an interface has lost may still count as local.
	localAddrsTTL = 5 * time.Second
	// localAddrsInterval is the shortest time between two reads of the interfaces that unknown addresses cause.
	localAddrsInterval = 200 * time.Millisecond
)

// Contains reports whether a is an address of this machine: any loopback address, or one of any interface.
func (l *LocalAddrs) Contains(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	now := time.Now()
	last := l.last.Load()
	if last == nil || now.Sub(last.at) > localAddrsTTL {
		last = l.read(now, localAddrsTTL)
	}
	_, ok := last.addrs[a]
	if !ok && now.Sub(last.at) > localAddrsInterval {
		_, ok = l.read(now, localAddrsInterval).addrs[a]
	}
	return ok
}

// read returns the addresses of the interfaces, at most maxAge old.
func (l *LocalAddrs) read(now time.Time, maxAge time.Duration) *interfaceAddrs {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.last.Load()
	if last != nil && now.Sub(last.at) <= maxAge {
		return last
	}
	next := &interfaceAddrs{at: now, addrs: make(map[netip.Addr]struct{})}
	list, err := net.InterfaceAddrs()
	if err != nil && last != nil {
		next.addrs = last.addrs // out of descriptors, for example: the last known addresses stand
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				next.addrs[ip.Unmap()] = struct{}{}
			}
		}
	}
	l.last.Store(next)
	return next
}
