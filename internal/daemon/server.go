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

// server is an http.Server whose Shutdown answers every accepted connection. The Shutdown of net/http closes the
// newest connections without an answer. A balancer counts that as a failed check, and cannot know that another
// process goes on accepting from the same listening socket.
type server struct {
	*http.Server
	conns atomic.Int64 // open connections

	mu        sync.Mutex
	http2     map[net.Conn]struct{} // open connections of HTTP/2
	listeners []net.Listener
	stopped   bool
	serving   sync.WaitGroup
}

func newServer(h *http.Server) *server {
	s := &server{Server: h, http2: map[net.Conn]struct{}{}}
	h.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.conns.Add(-1)
			s.removeHTTP2(c)
		case http.StateActive, http.StateIdle:
			// A connection of a clients.ConnLimiter, which closes idle connections first.
			if limited, ok := c.(interface{ SetWaiting(waiting bool) }); ok {
				limited.SetWaiting(state == http.StateIdle)
			}
			if c, ok := c.(interface{ IsHTTP2() bool }); ok && c.IsHTTP2() {
				s.addHTTP2(c.(net.Conn))
			}
		}
	}
	return s
}

func (s *server) addHTTP2(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http2[c] = struct{}{}
}

func (s *server) removeHTTP2(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.http2, c)
}

// onlyHTTP2 reports whether every open connection has begun to speak HTTP/2.
func (s *server) onlyHTTP2() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns.Load() == int64(len(s.http2))
}

// Serve answers the connections of ln until Shutdown or Close, and then returns http.ErrServerClosed.
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

// closeListeners stops accepting connections. Connections that are accepted already are answered.
func (s *server) closeListeners() {
	s.mu.Lock()
	s.stopped = true
	listeners := slices.Clone(s.listeners)
	s.mu.Unlock()
	for _, ln := range listeners {
		_ = ln.Close()
	}
}

// goAwayAfter is how long a shutdown waits before it sends GOAWAY on connections of HTTP/2: a request that has arrived by
// then is answered. net/http drops one that it reads after GOAWAY.
const goAwayAfter = 100 * time.Millisecond

// Shutdown stops accepting connections and blocks until all connections are closed. Each connection that has sent
// something since its last answer gets one more answer. When ctx ends, Shutdown closes what is open and returns the
// error of ctx.
func (s *server) Shutdown(ctx context.Context) error {
	s.closeListeners()
	s.serving.Wait() // from now on conns counts every connection
	wait := time.Millisecond
	for began := time.Now(); ; {
		s.SetKeepAlivesEnabled(false) // each call closes the idle connections of HTTP/1
		if s.conns.Load() == 0 {
			return s.Close()
		}
		if time.Since(began) >= goAwayAfter && s.onlyHTTP2() {
			// It sends GOAWAY, and closes a connection once its streams have ended. For HTTP/1 it is not graceful.
			err := s.Server.Shutdown(ctx)
			_ = s.Close()
			return err
		}
		select {
		case <-ctx.Done():
			_ = s.Close()
			return ctx.Err()
		case <-time.After(wait):
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
}

// writeDeadlineHandler gives each answer a later write deadline than the server's. http.Server.WriteTimeout is fixed
// at the start, and a reload may raise healthcheck_timeout beyond it.
type writeDeadlineHandler struct {
	http.Handler
	limit atomic.Int64 // of a whole answer, as a time.Duration; 0: the server's own limit is long enough
}

// answerMargin is how long an answer may take to be written once the check is done.
const answerMargin = 20 * time.Second

// setCheckTimeout sets the limit for checks that take up to checkTimeout.
func (h *writeDeadlineHandler) setCheckTimeout(checkTimeout time.Duration, server *http.Server) {
	limit := checkTimeout + answerMargin
	if limit <= server.WriteTimeout {
		limit = 0
	}
	h.limit.Store(int64(limit))
}

// ServeHTTP implements http.Handler.
func (h *writeDeadlineHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if limit := h.limit.Load(); limit > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Duration(limit)))
	}
	h.Handler.ServeHTTP(w, r)
}
