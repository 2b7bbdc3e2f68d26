// Package checktest is the conformance suite that every protocol of package check must pass: what a check does with a
// service that is healthy, gone, silent, cut off, slow or wrong is the same for all of them. It does not start servers
// of other projects; package servertest does.
//
// A new protocol needs a Row with a healthy server of it. All servers are real listeners.
package checktest

import (
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/check"
)

// Row is a protocol in the suite.
type Row struct {
	// Check is the check under test.
	Check check.Func
	// Target is what Check gets; the suite fills in host and port.
	Target check.Target
	// Healthy plays a healthy server on one connection, from its first byte to its last. It returns at an error of the
	// connection: in most cases of the suite the client closes early.
	Healthy func(conn net.Conn)
	// Wrap, if set, turns an accepted connection into the one that Healthy gets (TLS). The suite then also runs its
	// cases below TLS.
	Wrap func(conn net.Conn) net.Conn
	// ConnectOnly: the check only opens a connection, so it is healthy whatever the server does then.
	ConnectOnly bool
	// Secrets are texts that no result may contain, even if the server repeats what it gets.
	Secrets []string
	// Claim is what a server sends from its first byte on, up to the header of a message that claims 16 MB, or the most
	// that the protocol can claim. nil: no message of the protocol begins with its length.
	Claim []byte
}

// longTimeout is the timeout of a check where the timeout must not be what ends it.
const longTimeout = 20 * time.Second

// shortTimeout is the timeout of a check that must time out.
const shortTimeout = 150 * time.Millisecond

// Run runs the suite. It watches the goroutines of the whole process, so no other test may run in parallel.
func Run(t *testing.T, row Row) {
	row.testHealthy(t)
	row.testConnecting(t)
	row.testClosing(t)
	row.testWrongAnswers(t)
	row.testSlowAnswers(t)
}

func (row Row) testHealthy(t *testing.T) {
	t.Run("healthy", func(t *testing.T) {
		s := row.serve(t, row.Healthy)
		row.wantHealthy(t, row.run(t.Context(), t, s.Host, s.Port))
		if got := s.Settled(t); got != 1 {
			t.Errorf("%d connections for one check", got)
		}
	})
	t.Run("healthy over IPv6", func(t *testing.T) {
		s := ServeAt(t, "::1", row.wrapped(row.Healthy))
		row.wantHealthy(t, row.run(t.Context(), t, s.Host, s.Port))
	})
	t.Run("healthy by name", func(t *testing.T) {
		s := row.serve(t, row.Healthy)
		row.wantHealthy(t, row.run(t.Context(), t, "localhost", s.Port))
	})
	t.Run("50 at once", func(t *testing.T) {
		const n = 50
		here := goleak.IgnoreCurrent()
		s := row.serve(t, row.Healthy)
		var all sync.WaitGroup
		for range n {
			all.Go(func() { row.wantHealthy(t, row.runBeside(t.Context(), t, s.Host, s.Port)) })
		}
		all.Wait()
		if got := s.Settled(t); got != n {
			t.Errorf("%d connections for %d checks", got, n)
		}
		s.stop(t)
		checkLeaks(t, here)
	})
}

func (row Row) testConnecting(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		row.want(t, row.runPromptly(t, "127.0.0.1", ClosedPort(t)), check.ReasonRefused)
	})
	t.Run("unresolvable", func(t *testing.T) {
		// No resolver is asked about this name: two dots in a row are invalid.
		row.want(t, row.runPromptly(t, "no..name", 80), check.ReasonResolve)
	})
	t.Run("connection never completes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), shortTimeout)
		defer cancel()
		row.want(t, row.run(ctx, t, "127.0.0.1", BlackHole(t)), check.ReasonTimeout)
	})
	t.Run("cancelled while connecting", func(t *testing.T) {
		port := BlackHole(t)
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(50*time.Millisecond, cancel)
		defer stop.Stop()
		row.want(t, row.run(ctx, t, "127.0.0.1", port), check.ReasonCancelled)
	})
	t.Run("cancelled before", func(t *testing.T) {
		s := row.serve(t, row.Healthy)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		row.want(t, row.run(ctx, t, s.Host, s.Port), check.ReasonCancelled)
		if got := s.Settled(t); got != 0 {
			t.Error("connected although no caller waits for the answer")
		}
	})
}

func (row Row) testClosing(t *testing.T) {
	row.eachLayer(t, "closes early", func(t *testing.T, serve server) {
		s := serve(t, func(conn net.Conn) { _ = conn.(interface{ CloseWrite() error }).CloseWrite() })
		row.wantOr(t, row.runPromptly(t, s.Host, s.Port), check.ReasonProtocol)
	})
	t.Run("resets", func(t *testing.T) {
		s := Serve(t, func(conn net.Conn) {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		})
		r := row.runPromptly(t, s.Host, s.Port)
		// The reset may arrive before the connection counts as open: then it is a refusal.
		if row.ConnectOnly || r.Reason == check.ReasonRefused {
			return
		}
		row.want(t, r, check.ReasonProtocol)
	})
	if !row.ConnectOnly {
		row.eachOutput(t, "cut off", func(t *testing.T, serve filteredServer) { row.cutOff(t, serve) })
	}
}

func (row Row) testWrongAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"garbage":                  "\x00\xffgarbage\x1b[31m \r\n\x00more\r\n\r\n",
		"another protocol":         "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
		"bytes without a line end": "\x00\x01\x02\x03\x04\x05\x06\x07",
	} {
		row.eachLayer(t, name, func(t *testing.T, serve server) {
			s := serve(t, func(conn net.Conn) { _, _ = io.WriteString(conn, answer) })
			row.wantOr(t, row.runPromptly(t, s.Host, s.Port), check.ReasonProtocol)
		})
	}
	row.eachLayer(t, "1 MB without a newline", func(t *testing.T, serve server) {
		long := bytes.Repeat([]byte("a"), 1<<20)
		row.wantBounded(t, serve(t, func(conn net.Conn) { _, _ = conn.Write(long) }))
	})
	if row.Claim != nil {
		// The server sends nothing after the header and does not close: the check must not wait for the message.
		t.Run("a length of 16 MB claimed", func(t *testing.T) {
			row.wantBounded(t, row.serve(t, func(conn net.Conn) { _, _ = conn.Write(row.Claim) }))
		})
	}
	if row.ConnectOnly {
		return
	}
	row.eachLayer(t, "repeats what it gets", func(t *testing.T, serve server) {
		s := serve(t, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
		ctx, cancel := context.WithTimeout(t.Context(), shortTimeout)
		defer cancel()
		// A protocol in which the server sends first times out. Both reasons are right.
		if r := row.run(ctx, t, s.Host, s.Port); r.Code == 200 || r.Reason == check.ReasonAnswered {
			t.Errorf("an echo is healthy: %s", show(r))
		}
	})
}

// wantBounded wants a check of s to fail at once and to allocate little memory.
func (row Row) wantBounded(t *testing.T, s *Server) {
	t.Helper()
	var before, after runtime.MemStats
	here := goleak.IgnoreCurrent()
	runtime.ReadMemStats(&before)
	r := row.runBeside(t.Context(), t, s.Host, s.Port)
	runtime.ReadMemStats(&after)
	checkLeaks(t, here) // only now, because goleak allocates memory
	row.wantPrompt(t, r)
	row.wantOr(t, r, check.ReasonProtocol)
	allowed := uint64(768 << 10)
	if row.Wrap != nil {
		// The server's side of TLS counts as well: it allocates a buffer for each of the 64 records, when the
		// race detector empties its pool.
		allowed += 64 * 20 << 10
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > allowed {
		t.Errorf("took %d bytes of memory to read what is no answer", took)
	}
}

func (row Row) testSlowAnswers(t *testing.T) {
	row.eachLayer(t, "silent", func(t *testing.T, serve server) {
		s := serve(t, func(net.Conn) {})
		ctx, cancel := context.WithTimeout(t.Context(), shortTimeout)
		defer cancel()
		row.wantOr(t, row.run(ctx, t, s.Host, s.Port), check.ReasonTimeout)
	})
	row.eachOutput(t, "a byte at a time", func(t *testing.T, serve filteredServer) {
		s := serve(t, func(conn net.Conn) net.Conn { return slowConn{conn} }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		row.wantOr(t, row.run(ctx, t, s.Host, s.Port), check.ReasonTimeout)
	})
	if row.ConnectOnly {
		return
	}
	row.eachOutput(t, "cancelled half way", func(t *testing.T, serve filteredServer) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := serve(t, func(conn net.Conn) net.Conn { return &cutConn{Conn: conn, left: 1} }, func(net.Conn) { cancel() })
		row.want(t, row.run(ctx, t, s.Host, s.Port), check.ReasonCancelled)
	})
}

// server starts a server with this handler at one layer of the protocol.
type server func(t *testing.T, handle func(net.Conn)) *Server

// eachLayer runs a case with a server of the protocol itself and, if there is TLS, with one below it.
func (row Row) eachLayer(t *testing.T, name string, run func(t *testing.T, serve server)) {
	t.Run(name, func(t *testing.T) { run(t, row.serve) })
	if row.Wrap != nil {
		t.Run(name+", below TLS", func(t *testing.T) { run(t, serveTCP) })
	}
}

// serveTCP is Serve as a server.
func serveTCP(t *testing.T, handle func(net.Conn)) *Server {
	t.Helper()
	return Serve(t, handle)
}

// filteredServer starts a healthy server that writes through a filter. then, if set, gets the connection after the last
// byte.
type filteredServer func(t *testing.T, filter func(net.Conn) net.Conn, then func(net.Conn)) *Server

// eachOutput runs a case with a filter on the bytes of the protocol and, if there is TLS, with one on those of TLS.
func (row Row) eachOutput(t *testing.T, name string, run func(t *testing.T, serve filteredServer)) {
	runOn := func(name string, serve server, healthy func(net.Conn)) {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, filter func(net.Conn) net.Conn, then func(net.Conn)) *Server {
				return serve(t, func(conn net.Conn) {
					healthy(filter(conn))
					if then != nil {
						then(conn)
					}
				})
			})
		})
	}
	runOn(name, row.serve, row.Healthy)
	if row.Wrap != nil {
		runOn(name+", below TLS", serveTCP, row.wrapped(row.Healthy))
	}
}

// serve starts a server of the protocol, over TLS if it speaks TLS.
func (row Row) serve(t *testing.T, handle func(net.Conn)) *Server {
	t.Helper()
	return Serve(t, row.wrapped(handle))
}

// wrapped returns a handler that calls handle over TLS if the protocol speaks TLS, unless the handshake fails.
func (row Row) wrapped(handle func(net.Conn)) func(net.Conn) {
	if row.Wrap == nil {
		return handle
	}
	return func(conn net.Conn) {
		conn = row.Wrap(conn)
		if h, ok := conn.(interface{ Handshake() error }); ok && h.Handshake() != nil {
			return
		}
		handle(conn)
	}
}

// cutOff tests that no part of a healthy answer counts as the whole: the server closes after some of its bytes.
func (row Row) cutOff(t *testing.T, serve filteredServer) {
	const unlimited = 1 << 30
	var whole *cutConn
	s := serve(t, func(conn net.Conn) net.Conn { whole = &cutConn{Conn: conn, left: unlimited}; return whole }, nil)
	row.wantHealthy(t, row.run(t.Context(), t, s.Host, s.Port))
	s.stop(t) // waits for the handler
	all := unlimited - whole.left
	if all < 2 {
		t.Fatalf("the healthy server sent %d bytes", all)
	}
	last := 1
	if row.Wrap != nil {
		last = 16 // the length of the signature in a handshake varies by some bytes
	}
	for _, n := range []int{1, 2, all / 4, all / 2, all * 3 / 4, max(1, all-last)} {
		s := serve(t, func(conn net.Conn) net.Conn { return &cutConn{Conn: conn, left: n} }, func(conn net.Conn) {
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		})
		if r := row.runPromptly(t, s.Host, s.Port); r.Code != 503 || r.Reason != check.ReasonProtocol {
			t.Errorf("%d of %d bytes: want 503 with reason %s, got %s", n, all, check.ReasonProtocol, show(r))
		}
	}
}
