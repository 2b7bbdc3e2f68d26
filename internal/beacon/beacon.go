// Package beacon is the door of udp_healther: a TCP port that is open only while something is healthy, for
// load balancers that can do no more than connect. Who connects is sent "OK" and a newline.
package beacon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"hacheck/internal/clients"
)

// Options are what a Beacon needs. Addr and Healthy must be set.
type Options struct {
	Addr     string        // host:port to listen on; host "" is every address
	Interval time.Duration // between two looks, counted from the end of the first; default 5 s
	// Listen opens Addr. It may be nil: then net.Listen does, for which 0.0.0.0 is IPv6 too.
	Listen func(addr string) (net.Listener, error)
	// Healthy looks. It may take its time: nobody waits for it when ctx has ended, and the next look comes when
	// it has returned.
	Healthy func(ctx context.Context) bool
	// Changed makes the beacon look at once when it receives. It may be nil.
	Changed <-chan struct{}
	// CachedHealth tells what is known without a look, because an operator has said so, and whether anything is. It
	// must not block. It may be nil. What it says counts at once, also while a look is under way, and more.
	CachedHealth func() (healthy, ok bool)
	// Conns bounds the connections; nil: one with its default bounds.
	Conns *clients.ConnLimiter
	// Observe is told what happens. It may be nil; it must not block.
	Observe func(Event, net.Addr, error)
}

// Event is something that a Beacon tells its Observe.
type Event uint8

// The events.
const (
	Unhealthy    Event = iota // looked for the first time since it was healthy, or since the start, and is closed
	Healthy                   // is healthy again, or for the first time; the port is opened
	Opened                    // the port is open
	Closed                    // the port is closed, since it is not healthy any more
	Connection                // somebody has connected; the address is theirs
	BindFailed                // the port could not be opened; it is tried again at the next look
	AcceptFailed              // a connection could not be accepted, for want of descriptors say
)

// DefaultInterval is the time between two looks where Options name none.
const DefaultInterval = 5 * time.Second

const (
	sendTimeout = time.Second           // for "OK\n", which fits any socket's buffer, and for what the client sends
	acceptAgain = 50 * time.Millisecond // after a failure; the kernel holds the connections meanwhile
)

// Run keeps the port open while healthy and closed otherwise, until ctx ends. Until the first look has
// passed it is closed. It leaves no listener behind, and no goroutine but that of a look under way.
func Run(ctx context.Context, o Options) error {
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Observe == nil {
		o.Observe = func(Event, net.Addr, error) {}
	}
	if o.CachedHealth == nil {
		o.CachedHealth = func() (bool, bool) { return false, false }
	}
	if o.Conns == nil {
		o.Conns = clients.NewConnLimiter(clients.ConnLimits{})
	}
	if o.Listen == nil {
		o.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	b := &beacon{o: o}
	defer func() {
		b.shut()
		b.wg.Wait()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var looking chan bool // nil while nobody looks
	// doubted: something has changed since the look began. Another one follows, and if what was found would
	// open the port it waits for that: it may be from before an override that has ended. It waits once, for
	// things may change all the time.
	first, doubted, waited := true, false, false
	for {
		var healthy, known, look bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			look = true
		case <-o.Changed:
			healthy, known = o.CachedHealth()
			look, doubted = !known, true
		case healthy = <-looking:
			looking, look = nil, doubted
			said, ok := o.CachedHealth() // since the look began
			if ok {
				healthy, look = said, false
			}
			known = ok || !healthy || !doubted || waited
			waited = !known
		}
		if ctx.Err() != nil {
			return ctx.Err() // what a look found that was cut short means nothing
		}
		if known {
			b.set(healthy, first)
			first = false
			timer.Reset(o.Interval)
		}
		if look && looking == nil {
			found := make(chan bool, 1)
			go func() { found <- o.Healthy(ctx) }()
			looking, doubted = found, false
		}
	}
}

type beacon struct {
	o       Options
	healthy bool
	ln      net.Listener // nil while closed
	wg      sync.WaitGroup
}

// set makes the port what it ought to be.
func (b *beacon) set(healthy, first bool) {
	changed := first || healthy != b.healthy
	b.healthy = healthy
	if !healthy {
		if b.ln != nil {
			b.shut()
			b.o.Observe(Closed, nil, nil)
		}
		if changed {
			b.o.Observe(Unhealthy, nil, nil)
		}
		return
	}
	if changed {
		b.o.Observe(Healthy, nil, nil)
	}
	if b.ln != nil {
		return
	}
	ln, err := b.o.Listen(b.o.Addr)
	if err != nil {
		b.o.Observe(BindFailed, nil, fmt.Errorf("open beacon: %w", err))
		return
	}
	b.ln = ln
	b.o.Observe(Opened, ln.Addr(), nil)
	b.wg.Go(func() { b.accept(ln) })
}

func (b *beacon) shut() {
	if b.ln != nil {
		_ = b.ln.Close() // nothing is lost with it
		b.ln = nil
	}
}

// accept answers connections until ln is closed.
func (b *beacon) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			b.o.Observe(AcceptFailed, nil, fmt.Errorf("accept: %w", err))
			<-time.After(acceptAgain)
			continue
		}
		b.o.Observe(Connection, c.RemoteAddr(), nil)
		b.answer(c)
	}
}

// answer sends OK, which never blocks, and leaves the rest to a goroutine. Every client has its OK then; the connection
// is of no further use, so that the limiter may close it at any time to make room for another.
func (b *beacon) answer(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(sendTimeout))
	if _, err := io.WriteString(c, "OK\n"); err != nil {
		_ = c.Close()
		return
	}
	slot := b.o.Conns.Acquire(clients.AddrOf(c), func() { _ = c.Close() })
	if slot == nil {
		_ = c.Close()
		return
	}
	b.wg.Go(func() {
		defer slot.Release()
		finish(c)
	})
}

// finish closes c once the client has, or after sendTimeout. What the client had sent, unread, would turn the close into a
// reset that may overtake the OK.
func finish(c net.Conn) {
	defer c.Close()
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 4<<10))
	}
}
