package daemon

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// server is an http.Server whose Shutdown answers every connection that was accepted. That of net/http
// reads the requests of the newest ones and closes them without a word: fit for a client that tries again,
// but a balancer counts it as a failed check, and nobody but this process knows of the connection: the
// listening socket may be one that a successor goes on accepting from.
type server struct {
	*http.Server
	open atomic.Int64 // connections that are not closed

	mu        sync.Mutex
	listeners []net.Listener
	stopped   bool
	serving   sync.WaitGroup
}

func newServer(h *http.Server) *server {
	s := &server{Server: h}
	h.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.open.Add(-1)
		case http.StateActive, http.StateIdle:
			// A connection of a clients.ConnLimiter, which closes those that wait for a request first.
			if limited, ok := c.(interface{ SetWaiting(waiting bool) }); ok {
				limited.SetWaiting(state == http.StateIdle)
			}
		}
	}
	return s
}

// Serve answers what ln accepts until Shutdown or Close, and returns http.ErrServerClosed then.
func (s *server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		_ = ln.Close()
		return http.ErrServerClosed
	}
	s.listeners = append(s.listeners, ln)
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	err := s.Server.Serve(ln)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return http.ErrServerClosed
	}
	return err
}

// Refuse accepts no more. What was accepted is answered.
func (s *server) Refuse() {
	s.mu.Lock()
	s.stopped = true
	listeners := slices.Clone(s.listeners)
	s.mu.Unlock()
	for _, ln := range listeners {
		_ = ln.Close()
	}
}

// Shutdown accepts no more, answers one more request on every connection that has not been silent since its
// last answer, and returns when all of them are closed, or the error of ctx when that ends first.
func (s *server) Shutdown(ctx context.Context) error {
	s.Refuse()
	s.serving.Wait() // from now on, all connections are counted
	wait := time.Millisecond
	for {
		s.SetKeepAlivesEnabled(false) // closes the idle ones, each time
		if s.open.Load() == 0 {
			return s.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
}

// whenQuiet calls cut once nothing has been busy for stopQuiet, unless ctx ends before. Shutdown waits for
// a connection that has not sent a byte, and all that time the host would have no hacheck.
func whenQuiet(ctx context.Context, busy func() bool, cut func()) {
	tick := time.NewTicker(stopQuiet / 10)
	defer tick.Stop()
	quiet := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if busy() {
				quiet = now
			} else if now.Sub(quiet) >= stopQuiet {
				cut()
				return
			}
		}
	}
}
