package beacon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a beacon on a free port and what it tells.
type running struct {
	addr    string
	healthy atomic.Bool
	looks   atomic.Int64
	changed chan struct{}
	stop    func()

	mu     sync.Mutex
	events []Event
}

func (r *running) seen() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Event(nil), r.events...)
}

func start(t *testing.T, interval time.Duration, change func(*Options)) *running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{addr: ln.Addr().String(), changed: make(chan struct{}, 1)}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Addr: r.addr, Interval: func() time.Duration { return interval }, Changed: r.changed,
		Healthy: func(context.Context) bool { r.looks.Add(1); return r.healthy.Load() },
		Observe: func(e Event, _ net.Addr, _ error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// connect returns what the beacon says, or the error of the connection.
func (r *running) connect() (string, error) {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func (r *running) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s; events %v", what, r.seen())
		}
		<-time.After(time.Millisecond)
	}
}

func (r *running) open() bool    { s, err := r.connect(); return err == nil && s == "OK\n" }
func (r *running) refused() bool { _, err := r.connect(); return errors.Is(err, syscall.ECONNREFUSED) }

func TestOpenOnlyWhileHealthy(t *testing.T) {
	r := start(t, 5*time.Millisecond, nil)
	r.until(t, "a look", func() bool { return r.looks.Load() > 0 })
	if !r.refused() {
		t.Fatal("open although not healthy")
	}
	for range 3 {
		r.healthy.Store(true)
		r.until(t, "open", r.open)
		r.healthy.Store(false)
		r.until(t, "closed", r.refused)
	}
}

func TestClosedUntilTheFirstLookIsOver(t *testing.T) {
	looking, release := make(chan struct{}), make(chan struct{})
	r := start(t, time.Hour, func(o *Options) {
		o.Healthy = func(ctx context.Context) bool {
			close(looking)
			select {
			case <-release:
			case <-ctx.Done():
			}
			return true
		}
	})
	<-looking
	if !r.refused() {
		t.Fatal("open before anything is known")
	}
	close(release)
	r.until(t, "open", r.open)
}

// TestALookThatIsCutShort means nothing, whatever it returns.
func TestALookThatIsCutShort(t *testing.T) {
	looking := make(chan struct{})
	r := start(t, time.Hour, func(o *Options) {
		o.Healthy = func(ctx context.Context) bool {
			close(looking)
			<-ctx.Done()
			return true
		}
	})
	<-looking
	r.stop()
	if seen := r.seen(); len(seen) > 0 {
		t.Errorf("events %v", seen)
	}
}

// TestALookThatNobodyWaitsFor: while a look takes its time the port obeys what is decided, and Run ends.
func TestALookThatNobodyWaitsFor(t *testing.T) {
	var decided, healthy atomic.Bool
	looking, release := make(chan struct{}), make(chan bool)
	r := start(t, time.Hour, func(o *Options) {
		o.Healthy = func(context.Context) bool {
			looking <- struct{}{}
			return <-release
		}
		o.CachedHealth = func() (bool, bool) { return healthy.Load(), decided.Load() }
	})
	say := func(h, d bool) {
		healthy.Store(h)
		decided.Store(d)
		r.changed <- struct{}{}
	}
	<-looking
	release <- true
	r.until(t, "open", r.open)
	say(false, false)
	<-looking
	say(false, true)
	r.until(t, "closed by an override while a look is under way", r.refused)
	release <- true
	if !r.refused() {
		t.Error("what a look has found is stronger than an override")
	}
	say(true, true)
	r.until(t, "forced open", r.open)
	say(false, true)
	r.until(t, "closed", r.refused)
	say(false, false)
	<-looking
	say(false, true)
	say(false, false) // down and up again since the look began
	release <- true   // means nothing any more
	<-looking
	if !r.refused() {
		t.Error("open by what was found before an override ended")
	}
	release <- true
	r.until(t, "open", r.open)
	say(false, false)
	<-looking
	r.stop() // does not wait for it
	release <- false
}

// TestEvents: each change is observed once, in this order. A check that changes nothing is not observed.
func TestEvents(t *testing.T) {
	r := start(t, time.Hour, nil)
	look := func(healthy bool, until string, ok func() bool) {
		t.Helper()
		for range 2 { // the second one finds what the first has found
			looks := r.looks.Load()
			r.healthy.Store(healthy)
			r.changed <- struct{}{}
			r.until(t, "a look", func() bool { return r.looks.Load() > looks })
		}
		r.until(t, until, ok)
	}
	r.until(t, "the first look", func() bool { return r.looks.Load() == 1 })
	look(false, "closed", r.refused)
	look(true, "open", r.open)
	look(false, "closed", r.refused)
	look(true, "open", r.open)
	r.stop()
	if d := cmp.Diff([]Event{Unhealthy, Healthy, Opened, Connection, Closed, Unhealthy, Healthy, Opened, Connection}, r.seen()); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// TestRunLeavesNothing: connections that were being answered are over when Run has returned.
func TestRunLeavesNothing(t *testing.T) {
	r := start(t, time.Hour, nil)
	r.healthy.Store(true)
	r.changed <- struct{}{}
	r.until(t, "open", r.open)
	for range 5 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); err != nil || string(b) != "OK\n" { // it waits for us to close now
			t.Fatalf("%q %v", b, err)
		}
	}
	r.stop()
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("beacon.answer(")) || bytes.Contains(stacks, []byte(".accept(")) {
		t.Errorf("goroutines that Run has left behind:\n%s", stacks)
	}
}

// TestAChangeIsLookedAtAtOnce: an override does not wait for the interval.
func TestAChangeIsLookedAtAtOnce(t *testing.T) {
	r := start(t, time.Hour, nil)
	r.until(t, "the first look", func() bool { return r.looks.Load() == 1 })
	r.healthy.Store(true)
	r.changed <- struct{}{}
	r.until(t, "open", r.open)
	r.healthy.Store(false)
	r.changed <- struct{}{}
	r.until(t, "closed", r.refused)
}

func TestAPortThatIsTakenIsTriedAgain(t *testing.T) {
	var taken net.Listener
	r := start(t, 5*time.Millisecond, func(o *Options) {
		var err error
		if taken, err = net.Listen("tcp", o.Addr); err != nil {
			t.Fatal(err)
		}
	})
	r.healthy.Store(true)
	r.until(t, "two failures", func() bool {
		n := 0
		for _, e := range r.seen() {
			if e == BindFailed {
				n++
			}
		}
		return n >= 2
	})
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	r.until(t, "open", r.open)
}

// TestAClientThatSendsFirstStillReadsOK: unread bytes must not turn the close into a reset.
func TestAClientThatSendsFirstStillReadsOK(t *testing.T) {
	r := start(t, time.Hour, nil)
	r.healthy.Store(true)
	r.changed <- struct{}{}
	r.until(t, "open", r.open)
	for range 50 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); err != nil || string(b) != "OK\n" {
			t.Fatalf("%q %v", b, err)
		}
		_ = c.Close()
	}
}

// TestSilentClientsDoNotHoldItUp: more connections than are answered at once, none of which reads or closes.
func TestSilentClientsDoNotHoldItUp(t *testing.T) {
	r := start(t, time.Hour, nil)
	r.healthy.Store(true)
	r.changed <- struct{}{}
	r.until(t, "open", r.open)
	for range 100 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if !r.open() {
		t.Fatal("no answer while others are silent")
	}
	r.healthy.Store(false)
	r.changed <- struct{}{}
	r.until(t, "closed", r.refused)
	r.stop()
}
