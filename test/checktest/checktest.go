// Package checktest is the one suite that every protocol of package check has to pass: what a check
// does with a service that is well, gone, silent, cut off, slow or mad is the same for all of them.
//
// A new protocol needs a Row: how a healthy server of it talks. All servers are real listeners.
package checktest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"hacheck/internal/check"
)

// Row is what the suite needs to know of a protocol.
type Row struct {
	// Check is the check under test.
	Check check.Func
	// Target is whom to ask; the suite fills in host and port.
	Target check.Target
	// Healthy plays a healthy server on one connection, from its first byte to its last. Errors of the
	// connection end it silently: in most of the suite's cases the client leaves early.
	Healthy func(conn net.Conn)
	// Wrap, if set, is what the protocol speaks over (TLS): it turns the accepted connection into the
	// one Healthy gets. The suite then misbehaves below it as well as above.
	Wrap func(conn net.Conn) net.Conn
	// ConnectOnly: an open connection is all the protocol asks for, so whatever the server does then
	// is healthy.
	ConnectOnly bool
	// Secrets are texts that no result may show, not even to a server that repeats what it is told.
	Secrets []string
}

// limit is the context's time where it must not be what ends the check.
const limit = 20 * time.Second

// Run runs the suite. It watches the goroutines of the whole process, so nothing may run beside it.
func Run(t *testing.T, row Row) {
	t.Run("healthy", func(t *testing.T) {
		s := row.serve(t, row.Healthy)
		row.wantHealthy(t, row.ask(t.Context(), t, s.Host, s.Port))
		if got := s.Settled(t); got != 1 {
			t.Errorf("%d connections for one check", got)
		}
	})
	t.Run("healthy over IPv6", func(t *testing.T) {
		s := ServeAt(t, "::1", row.wrapped(row.Healthy))
		row.wantHealthy(t, row.ask(t.Context(), t, s.Host, s.Port))
	})
	t.Run("healthy by name", func(t *testing.T) {
		s := row.serve(t, row.Healthy)
		row.wantHealthy(t, row.ask(t.Context(), t, "localhost", s.Port))
	})
	t.Run("50 at once", func(t *testing.T) { row.fifty(t) })
	t.Run("refused", func(t *testing.T) {
		r := row.atOnce(t, "127.0.0.1", ClosedPort(t))
		row.want(t, r, check.ReasonRefused)
	})
	t.Run("unresolvable", func(t *testing.T) {
		// A name that no resolver is asked about: two dots in a row cannot be in one.
		r := row.atOnce(t, "no..name", 80)
		row.want(t, r, check.ReasonResolve)
	})
	t.Run("connection never completes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		row.want(t, row.ask(ctx, t, "127.0.0.1", BlackHole(t)), check.ReasonTimeout)
	})
	t.Run("cancelled while connecting", func(t *testing.T) {
		port := BlackHole(t)
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(50*time.Millisecond, cancel)
		defer stop.Stop()
		row.want(t, row.ask(ctx, t, "127.0.0.1", port), check.ReasonCancelled)
	})
	t.Run("cancelled before", func(t *testing.T) {
		s := row.serve(t, row.Healthy)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		row.want(t, row.ask(ctx, t, s.Host, s.Port), check.ReasonCancelled)
		if got := s.Settled(t); got != 0 {
			t.Error("connected although nobody waits for the answer")
		}
	})
	row.layers(t, "silent", func(t *testing.T, on layer) {
		s := on(t, func(net.Conn) {})
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		row.wantOr(t, row.ask(ctx, t, s.Host, s.Port), check.ReasonTimeout)
	})
	row.layers(t, "closes early", func(t *testing.T, on layer) {
		s := on(t, func(conn net.Conn) { _ = conn.(interface{ CloseWrite() error }).CloseWrite() })
		row.wantOr(t, row.atOnce(t, s.Host, s.Port), check.ReasonProtocol)
	})
	t.Run("resets", func(t *testing.T) {
		s := Serve(t, func(conn net.Conn) {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		})
		r := row.atOnce(t, s.Host, s.Port)
		// The reset may be there before the connection counts as open: then it is a refusal.
		if row.ConnectOnly || r.Reason == check.ReasonRefused {
			return
		}
		row.want(t, r, check.ReasonProtocol)
	})
	if !row.ConnectOnly {
		row.outputs(t, "cut off", func(t *testing.T, through through) { row.cutOff(t, through) })
	}
	row.layers(t, "garbage", func(t *testing.T, on layer) {
		s := on(t, func(conn net.Conn) { _, _ = conn.Write([]byte("\x00\xffgarbage\x1b[31m \r\n\x00more\r\n\r\n")) })
		row.wantOr(t, row.atOnce(t, s.Host, s.Port), check.ReasonProtocol)
	})
	row.layers(t, "another protocol", func(t *testing.T, on layer) {
		s := on(t, func(conn net.Conn) { _, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")) })
		row.wantOr(t, row.atOnce(t, s.Host, s.Port), check.ReasonProtocol)
	})
	row.layers(t, "bytes without a line end", func(t *testing.T, on layer) {
		s := on(t, func(conn net.Conn) { _, _ = conn.Write([]byte{0, 1, 2, 3, 4, 5, 6, 7}) })
		row.wantOr(t, row.atOnce(t, s.Host, s.Port), check.ReasonProtocol)
	})
	row.layers(t, "1 MB without a newline", func(t *testing.T, on layer) {
		long := bytes.Repeat([]byte("a"), 1<<20)
		s := on(t, func(conn net.Conn) { _, _ = conn.Write(long) })
		var before, after runtime.MemStats
		here := goleak.IgnoreCurrent()
		runtime.ReadMemStats(&before)
		r := row.once(t.Context(), t, s.Host, s.Port)
		runtime.ReadMemStats(&after)
		left(t, here) // each of its looks takes memory as well
		if r.Took > patience {
			t.Errorf("took %v for what is known at once: %s", r.Took, show(r))
		}
		row.wantOr(t, r, check.ReasonProtocol)
		allowed := uint64(768 << 10)
		if row.Wrap != nil {
			// The server's side of TLS counts as well: it takes a buffer for each of the 64 records, when the
			// race detector has its pool forget them.
			allowed += 64 * 20 << 10
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > allowed {
			t.Errorf("took %d bytes of memory to read a line that is no answer", took)
		}
	})
	row.outputs(t, "a byte at a time", func(t *testing.T, through through) {
		s := through(t, func(conn net.Conn) net.Conn { return slowConn{conn} }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		row.wantOr(t, row.ask(ctx, t, s.Host, s.Port), check.ReasonTimeout)
	})
	if !row.ConnectOnly {
		row.outputs(t, "cancelled half way", func(t *testing.T, through through) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := through(t, func(conn net.Conn) net.Conn { return &cutConn{Conn: conn, left: 1} }, func(net.Conn) { cancel() })
			row.want(t, row.ask(ctx, t, s.Host, s.Port), check.ReasonCancelled)
		})
		row.layers(t, "repeats what it is told", func(t *testing.T, on layer) {
			s := on(t, func(conn net.Conn) {
				b := make([]byte, 4<<10)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					_, _ = conn.Write(b[:n])
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			// A protocol in which the server speaks first waits for ever, so both reasons are right.
			if r := row.ask(ctx, t, s.Host, s.Port); r.Code == 200 || r.Reason == check.ReasonOK {
				t.Errorf("an echo of its own words is healthy: %s", show(r))
			}
		})
	}
}

// layer starts a server that misbehaves at one layer of the protocol.
type layer func(t *testing.T, handle func(net.Conn)) *Server

// layers runs a case for what the protocol speaks over and for the protocol itself.
func (row Row) layers(t *testing.T, name string, run func(t *testing.T, on layer)) {
	t.Run(name, func(t *testing.T) {
		run(t, func(t *testing.T, handle func(net.Conn)) *Server { return row.serve(t, handle) })
	})
	if row.Wrap != nil {
		t.Run(name+", below TLS", func(t *testing.T) {
			run(t, func(t *testing.T, handle func(net.Conn)) *Server { return Serve(t, handle) })
		})
	}
}

// through starts a server that is healthy but for what its bytes go through. then, if set, gets the
// connection after the last byte.
type through func(t *testing.T, out func(net.Conn) net.Conn, then func(net.Conn)) *Server

// outputs runs a case for the bytes of the protocol itself and for those of what it speaks over.
func (row Row) outputs(t *testing.T, name string, run func(t *testing.T, through through)) {
	t.Run(name, func(t *testing.T) {
		run(t, func(t *testing.T, out func(net.Conn) net.Conn, then func(net.Conn)) *Server {
			return row.serve(t, func(conn net.Conn) {
				row.Healthy(out(conn))
				if then != nil {
					then(conn)
				}
			})
		})
	})
	if row.Wrap != nil {
		t.Run(name+", below TLS", func(t *testing.T) {
			run(t, func(t *testing.T, out func(net.Conn) net.Conn, then func(net.Conn)) *Server {
				return Serve(t, func(conn net.Conn) {
					row.wrapped(row.Healthy)(out(conn))
					if then != nil {
						then(conn)
					}
				})
			})
		})
	}
}

// serve starts a server with what the protocol speaks over in place.
func (row Row) serve(t *testing.T, handle func(net.Conn)) *Server {
	t.Helper()
	return Serve(t, row.wrapped(handle))
}

// wrapped puts what the protocol speaks over below handle, which is not called if that fails.
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

// ask runs the check, and sees to it that it returned when its context ended, that the result is one a
// door can work with, and that it left nothing behind.
func (row Row) ask(ctx context.Context, t *testing.T, host string, port uint16) check.Result {
	t.Helper()
	here := goleak.IgnoreCurrent()
	r := row.once(ctx, t, host, port)
	left(t, here)
	return r
}

// left fails the test when a check has left a goroutine. The servers' are among those looked at: they end when
// the client has closed.
func left(t *testing.T, here goleak.Option) {
	t.Helper()
	if err := goleak.Find(here); err != nil {
		t.Errorf("the check left a goroutine or a connection: %v", err)
	}
}

// once is ask without the look at goroutines, for checks beside each other.
func (row Row) once(ctx context.Context, t *testing.T, host string, port uint16) check.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	target := row.Target.Clone()
	target.Host, target.Port = host, port
	start := time.Now()
	r := row.Check(ctx, target)
	took := time.Since(start)
	if deadline, _ := ctx.Deadline(); time.Until(deadline) < -patience {
		t.Errorf("returned %v after its context had ended", -time.Until(deadline))
	}
	if r.Took <= 0 || r.Took > took {
		t.Errorf("Took is %v for a check of %v", r.Took, took)
	}
	if http.StatusText(r.Code) == "" || r.Code < 200 {
		t.Errorf("code %d is none an answer can have", r.Code)
	}
	if (r.Err == nil) != (r.Reason == check.ReasonOK) {
		t.Errorf("reason %s with error %v", r.Reason, r.Err)
	}
	if r.Reason != check.ReasonOK && r.Code == 200 {
		t.Errorf("reason %s is healthy", r.Reason)
	}
	if len(r.Body) > check.MaxBody {
		t.Errorf("a body of %d bytes", len(r.Body))
	}
	if r.Reason != check.ReasonOK {
		wantLine(t, r.Body)
	}
	for _, secret := range row.Secrets {
		if strings.Contains(show(r), secret) {
			t.Errorf("shows a password: %s", show(r))
		}
	}
	return r
}

// atOnce asks and wants the answer long before the context would end.
func (row Row) atOnce(t *testing.T, host string, port uint16) check.Result {
	t.Helper()
	start := time.Now()
	r := row.ask(t.Context(), t, host, port)
	if took := time.Since(start); took > patience {
		t.Errorf("took %v for what is known at once: %s", took, show(r))
	}
	return r
}

func (row Row) wantHealthy(t *testing.T, r check.Result) {
	t.Helper()
	if r.Code != 200 || r.Reason != check.ReasonOK {
		t.Errorf("not healthy: %s", show(r))
	}
}

func (row Row) want(t *testing.T, r check.Result, reason check.Reason) {
	t.Helper()
	if r.Reason != reason || r.Code != 503 {
		t.Errorf("want 503 with reason %s, got %s", reason, show(r))
	}
}

// wantOr wants reason, or health where an open connection is all that is asked for.
func (row Row) wantOr(t *testing.T, r check.Result, reason check.Reason) {
	t.Helper()
	if row.ConnectOnly {
		row.wantHealthy(t, r)
		return
	}
	row.want(t, r, reason)
}

// cutOff has the server close after each of some numbers of bytes of its healthy answer, for no part of
// an answer may count as the whole.
func (row Row) cutOff(t *testing.T, through through) {
	const unlimited = 1 << 30
	var whole *cutConn
	s := through(t, func(conn net.Conn) net.Conn { whole = &cutConn{Conn: conn, left: unlimited}; return whole }, nil)
	row.wantHealthy(t, row.ask(t.Context(), t, s.Host, s.Port))
	s.stop(t) // and so its handler is done
	all := unlimited - whole.left
	if all < 2 {
		t.Fatalf("the healthy server sent %d bytes", all)
	}
	last := 1
	if row.Wrap != nil {
		last = 16 // signatures in a handshake differ by some bytes in length
	}
	for _, n := range []int{1, 2, all / 4, all / 2, all * 3 / 4, max(1, all-last)} {
		s := through(t, func(conn net.Conn) net.Conn { return &cutConn{Conn: conn, left: n} }, func(conn net.Conn) {
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		})
		if r := row.atOnce(t, s.Host, s.Port); r.Code != 503 || r.Reason != check.ReasonProtocol {
			t.Errorf("%d of %d bytes: want 503 with reason %s, got %s", n, all, check.ReasonProtocol, show(r))
		}
	}
}

// fifty asks one server 50 times at once, under the race detector if the tests run with it.
func (row Row) fifty(t *testing.T) {
	const n = 50
	here := goleak.IgnoreCurrent()
	s := row.serve(t, row.Healthy)
	var all sync.WaitGroup
	for range n {
		all.Go(func() { row.wantHealthy(t, row.once(t.Context(), t, s.Host, s.Port)) })
	}
	all.Wait()
	if got := s.Settled(t); got != n {
		t.Errorf("%d connections for %d checks", got, n)
	}
	s.stop(t)
	if err := goleak.Find(here); err != nil {
		t.Errorf("the checks left goroutines: %v", err)
	}
}

// wantLine wants text of ours: one short line that is safe in a log and on a terminal.
func wantLine(t *testing.T, body []byte) {
	t.Helper()
	if len(body) == 0 || len(body) > 1<<10 {
		t.Errorf("a sentence of %d bytes", len(body))
	}
	if !utf8.Valid(body) || bytes.ContainsFunc(body, unicode.IsControl) {
		t.Errorf("not one line of text: %q", body)
	}
}

// show is a result in an error message of a test.
func show(r check.Result) string {
	text := string(r.Body)
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	err := ""
	if r.Err != nil {
		err = " (" + r.Err.Error() + ")"
	}
	return strings.TrimSpace(http.StatusText(r.Code)+" "+r.Reason.String()) + ": " + text + err
}

// cutConn lets so many bytes out. After that it fails both ways, so that the server's part ends.
type cutConn struct {
	net.Conn
	left int
	cut  bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	if len(b) <= c.left {
		c.left -= len(b)
		return c.Conn.Write(b)
	}
	n, err := c.Conn.Write(b[:c.left])
	c.left, c.cut = 0, true
	if err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.cut {
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// slowConn lets a byte out every 20 ms.
type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range b {
		<-tick.C
		if n, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i + n, err
		}
	}
	return len(b), nil
}
