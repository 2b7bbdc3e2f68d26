// Package beacon keeps a TCP port open only while a service is healthy, as udp_healther does, for load balancers that can
// only connect. A client that connects gets "OK" and a newline.
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

// Options are the options of Run. Addr and Healthy must be set.
type Options struct {
	Addr string // host:port to listen on; host "" is every address
	// Interval returns the time from the end of a check to the next one. Nil means DefaultInterval.
	Interval func() time.Duration
	// Listen opens Addr. Nil means net.Listen, for which 0.0.0.0 includes IPv6.
	Listen func(addr string) (net.Listener, error)
	// Healthy runs the check. It may block: Run does not wait for it after ctx has ended, and begins the next check
	// only after it has returned.
	Healthy func(ctx context.Context) bool
	// Changed begins a check at once when a value arrives. It may be nil.
	Changed <-chan struct{}
	// CachedHealth returns the state if it is known without a check, because an override decides it for example. It
	// applies at once, also while a check is running, and takes precedence over the check. It must not block. It may be
	// nil.
	CachedHealth func() (healthy, ok bool)
	// Conns bounds the connections; nil: one with its default bounds.
	Conns *clients.ConnLimiter
	// Observe is called for each event. It must not block. It may be nil.
	Observe func(Event, net.Addr, error)
}

// Event is an event that Observe is called for.
type Event uint8

// The events.
const (
	Unhealthy    Event = iota // the state is unhealthy now; at the start, or because it was healthy before
	Healthy                   // the same for healthy; Run opens the port
	Opened                    // the port is open
	Closed                    // the port is closed, because the state is no longer healthy
	Connection                // a client has connected; the address is the client's
	BindFailed                // the port could not be opened; Run tries again after the next check
	AcceptFailed              // a connection could not be accepted, for example without a free descriptor
)

// DefaultInterval is the default of Options.Interval.
const DefaultInterval = 5 * time.Second

const (
	sendTimeout = time.Second           // for "OK\n", which fits any socket's buffer, and for what the client sends
	acceptRetry = 50 * time.Millisecond // after a failure; the kernel holds the connections meanwhile
)

// Run keeps the port open while the state is healthy and closed otherwise, until ctx ends. The port is closed until the
// first check has passed. Run returns after it has closed the listener and ended its goroutines, except that of a check
// that is still running.
func Run(ctx context.Context, o Options) error {
	if o.Interval == nil {
		o.Interval = func() time.Duration { return DefaultInterval }
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
		b.closePort()
		b.wg.Wait()
	}()
	return b.watch(ctx)
}

// watch runs checks and opens or closes the port by their results, until ctx ends.
func (b *beacon) watch(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var running chan bool // the result of the running check; nil while none runs
	// stale says that something has changed since the running check began. Another check follows. If the result would
	// open the port, watch waits for that check, because the result may be from before an override that has ended. It
	// waits once, because changes may never stop.
	first, stale, waited := true, false, false
	for {
		var healthy, known, check bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			check = true
		case <-b.o.Changed:
			healthy, known = b.o.CachedHealth()
			check, stale = !known, true
		case healthy = <-running:
			running, check = nil, stale
			cached, ok := b.o.CachedHealth() // set since the check began
			if ok {
				healthy, check = cached, false
			}
			known = ok || !healthy || !stale || waited
			waited = !known
		}
		if ctx.Err() != nil {
			return ctx.Err() // the result of a cancelled check means nothing
		}
		if known {
			b.set(healthy, first)
			first = false
			timer.Reset(b.o.Interval())
		}
		if check && running == nil {
			result := make(chan bool, 1)
			go func() { result <- b.o.Healthy(ctx) }()
			running, stale = result, false
		}
	}
}

type beacon struct {
	o       Options
	healthy bool
	ln      net.Listener // nil while closed
	wg      sync.WaitGroup
}

// set opens or closes the port. first says that no state was set before.
func (b *beacon) set(healthy, first bool) {
	changed := first || healthy != b.healthy
	b.healthy = healthy
	if !healthy {
		if b.ln != nil {
			b.closePort()
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

func (b *beacon) closePort() {
	if b.ln != nil {
		_ = b.ln.Close() // an error means that it is closed already
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
			<-time.After(acceptRetry)
			continue
		}
		b.o.Observe(Connection, c.RemoteAddr(), nil)
		b.answer(c)
	}
}

// answer sends OK, which never blocks, and starts a goroutine for the rest. The client has its OK then, so the limiter may
// close the connection at any time to make room for another.
func (b *beacon) answer(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(sendTimeout))
	if _, err := io.WriteString(c, "OK\n"); err != nil {
		_ = c.Close()
		return
	}
	slot := b.o.Conns.Acquire(clients.RemoteAddr(c), func() { _ = c.Close() })
	if slot == nil {
		_ = c.Close()
		return
	}
	b.wg.Go(func() {
		defer slot.Release()
		finish(c)
	})
}

// finish closes c after the client has closed it, or after sendTimeout. A close with unread bytes of the client would be a
// reset, which may overtake the OK.
func finish(c net.Conn) {
	defer c.Close()
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 4<<10))
	}
}
