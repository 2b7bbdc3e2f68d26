//go:build unix

package agent

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

// TestRequestedKey: which key a request is looked up under, and is reported to OnAnswer.
func TestRequestedKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want lookup
	}{
		{"", lookup{"own", "", 0, true}},
		{"\n", lookup{"own", "", 0, true}},
		{"\r\n", lookup{"own", "", 0, true}},
		{"\nweb\n", lookup{"own", "", 0, true}},
		{"web\n", lookup{"web", "", 0, true}},
		{"web\r\n", lookup{"web", "", 0, true}},
		{"web", lookup{"web", "", 0, true}},
		{"web\nall\n", lookup{"web", "", 0, true}},
		{"web\n" + strings.Repeat("x", 64<<10), lookup{"web", "", 0, true}},
		{"all\n", lookup{"all", "", 0, true}},
		{"web:8080\n", lookup{"web", "", 8080, true}},
		{"web:127.0.0.9:8080\n", lookup{"web", "127.0.0.9", 8080, true}},
		{"web:localhost:8080\n", lookup{"web", "127.0.0.1", 8080, true}},
		{"web:203.0.113.9:80\n", lookup{"web", "203.0.113.9", 80, false}},
		{"web:name:80\n", lookup{"web", "name", 80, false}},
		{"web:::1:80\n", lookup{"web", "::1", 80, true}},
		{"web:[2001:DB8::1]:80\n", lookup{"web", "2001:db8::1", 80, false}},
		{strings.Repeat("w", spool.MaxName) + "\n", lookup{strings.Repeat("w", spool.MaxName), "", 0, true}},
	} {
		t.Run(fmt.Sprintf("%.20q", c.text), func(t *testing.T) {
			t.Parallel()
			for _, half := range []bool{false, true} {
				h := newTestAgentWithTimeout(t, "own", readTimeout)
				conn := h.dial("127.0.0.1")
				if _, err := io.WriteString(conn, c.text); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if half { // otherwise nothing, or no newline, waits for the time to pass
					if err := conn.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				// A reset behind the answer might reach HAProxy before it has read the answer.
				if got, err := io.ReadAll(conn); err != nil || string(got) != "up ready\n" {
					t.Errorf("half closed %v: answered %q, %v", half, got, err)
				}
				took := time.Since(began)
				h.server.Close() // OnAnswer is called after the answer
				if d := cmp.Diff([]lookup{c.want}, h.overrides.lookups, cmp.AllowUnexported(lookup{})); d != "" {
					t.Errorf("half closed %v: looked up (-want +got)\n%s", half, d)
				}
				if !half && !strings.Contains(c.text, "\n") && took < readTimeout-50*time.Millisecond {
					t.Errorf("answered after %v, before the client had its time", took)
				}
				k := spool.Key{Service: c.want.service, Host: c.want.host, Port: c.want.port}
				if d := cmp.Diff([]answerRecord{{"127.0.0.1", k.Name(), "up ready"}}, h.answers.list); d != "" {
					t.Errorf("half closed %v: OnAnswer got (-want +got)\n%s", half, d)
				}
			}
		})
	}
}

// TestInvalidRequest: a request that names no service gets no answer and one log line.
func TestInvalidRequest(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"a b\n", " web\n", "../web\n", ".\n", "web:\n", "web:0\n", "web:65536\n", "web:a/b:80\n", "web\x00\n", "\\n\n", `web\n`,
		strings.Repeat("w", spool.MaxName+1) + "\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xff\xfe\n", // TLS
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		strings.Repeat("\xff", 1<<10),
		strings.Repeat("w", 64<<10),
	} {
		t.Run(fmt.Sprintf("%.20q", text), func(t *testing.T) {
			t.Parallel()
			h := newTestAgentWithTimeout(t, spool.All, readTimeout)
			for range 3 {
				if got := h.ask(text); got != "" {
					t.Errorf("answered %q", got)
				}
			}
			h.server.Close()
			if h.overrides.lookups != nil || h.answers.list != nil {
				t.Errorf("looked up %v, OnAnswer got %v", h.overrides.lookups, h.answers.list)
			}
			if log := h.log.String(); count(log, "names no service") != 1 || len(log) > 500 || strings.Contains(log, "\xff") || strings.Contains(log, "\x00") {
				t.Errorf("the log has not one short line, but:\n%s", log)
			}
		})
	}
}

// TestInvalidRequestsAreLoggedOnceAndBounded: a client causes few lines, and the log counts those left out.
func TestInvalidRequestsAreLoggedOnceAndBounded(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	const texts = 300
	for range 2 {
		for i := range texts {
			if got := h.ask(fmt.Sprintf("no service %d\n", i)); got != "" {
				t.Fatalf("answered %q", got)
			}
		}
	}
	h.server.Close()
	h.limit.Flush()
	log := h.log.String()
	lines, report := count(log, "names no service")-1, 0 // the report has the message once more
	if _, after, ok := strings.Cut(log, "left_out="); ok {
		_, _ = fmt.Sscan(after, &report)
	}
	if lines < 1 || lines > 20 || report != 2*texts-lines {
		t.Errorf("%d lines and %d reported as left out, of %d; the log is\n%s", lines, report, 2*texts, log)
	}
}

// TestSlowRequest: a client sends one byte and the rest too late. Only the first byte counts.
func TestSlowRequest(t *testing.T) {
	t.Parallel()
	h := newTestAgentWithTimeout(t, spool.All, readTimeout)
	h.overrides.set("w", spool.Down, "that is w")
	c := h.dial("127.0.0.1")
	began := time.Now()
	if _, err := io.WriteString(c, "w"); err != nil {
		t.Fatal(err)
	}
	if got := h.readAll(c); got != "ready down #that is w\n" {
		t.Errorf("answered %q", got)
	}
	if took := time.Since(began); took < readTimeout-50*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	_, _ = io.WriteString(c, "eb\n")
	if got := h.ask("web\n"); got != "up ready\n" {
		t.Errorf("another one: %q", got)
	}
}

// TestRequestInParts: the network may split a line.
func TestRequestInParts(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	c := h.dial("127.0.0.1")
	for _, part := range []string{"we", "b:80"} {
		if _, err := io.WriteString(c, part); err != nil {
			t.Fatal(err)
		}
		until(t, "the connection is queued", func() bool { return h.waiting() == 1 })
	}
	if _, err := io.WriteString(c, "80\n"); err != nil {
		t.Fatal(err)
	}
	h.readAll(c)
	if d := cmp.Diff([]lookup{{"web", "", 8080, true}}, h.overrides.lookups, cmp.AllowUnexported(lookup{})); d != "" {
		t.Error(d)
	}
}

func (h *testAgent) waiting() int {
	h.agent.queue.mu.Lock()
	defer h.agent.queue.mu.Unlock()
	return h.agent.queue.waiting.Len()
}

// TestClose: pending connections get no answer, and the port is closed when Close returns.
func TestClose(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, "web")
	h.overrides.set("web", spool.Maint, "disk")
	var conns []*net.TCPConn
	for range 50 {
		conns = append(conns, h.dial("127.0.0.1"))
	}
	until(t, "all wait", func() bool { return h.waiting() == len(conns) })
	began := time.Now()
	h.server.Close()
	if took := time.Since(began); took > soon/2 {
		t.Errorf("closing took %v: it may not wait for silent clients", took)
	}
	for _, c := range conns {
		if got := h.readAll(c); got != "" {
			t.Fatalf("a connection was told %q", got)
		}
	}
	if c, err := net.Dial("tcp", h.addr); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	if h.answers.list != nil {
		t.Errorf("OnAnswer got %v", h.answers.list)
	}
	if h.agent.queue.add(&pendingConn{server: h.server}) {
		t.Error("a connection accepted before Close is still queued after it")
	}
	h.server.Close() // once more does no harm
}

// TestCloseWhileAnswering: during Close a client gets the whole answer or none.
func TestCloseWhileAnswering(t *testing.T) {
	t.Parallel()
	for range 20 {
		h := newTestAgentWithTimeout(t, "web", readTimeout)
		h.overrides.set("web", spool.Drain, "")
		var wg sync.WaitGroup
		var closed atomic.Bool
		var answers atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				for !closed.Load() {
					c, err := net.Dial("tcp", h.addr)
					if err != nil {
						return
					}
					_ = c.SetDeadline(time.Now().Add(soon))
					if i%2 == 0 {
						_, _ = io.WriteString(c, "web\n")
					}
					b, _ := io.ReadAll(c)
					c.Close()
					if string(b) == "up drain\n" {
						answers.Add(1)
					} else if len(b) > 0 {
						t.Errorf("answered %q", b)
					}
				}
			})
		}
		until(t, "there are answers", func() bool { return answers.Load() > 20 })
		h.server.Close()
		closed.Store(true)
		wg.Wait()
	}
}

// TestFullQueueEvictsOldest: the connection that has waited longest gets no answer unless it has sent a request.
func TestFullQueueEvictsOldest(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	h.agent.queue.mu.Lock()
	h.agent.queue.capacity, h.agent.queue.clientCapacity = 3, 2
	h.agent.queue.mu.Unlock()
	met := 0
	enter := func(from string, pushes bool) *net.TCPConn {
		c := h.dial(from)
		if !pushes {
			met++
			until(t, "it waits", func() bool { return h.waiting() == met })
		}
		return c
	}
	silent := func(c net.Conn) {
		t.Helper()
		if got := h.readAll(c); got != "" {
			t.Errorf("answered %q, want nothing", got)
		}
	}
	first, second := enter("127.0.0.1", false), enter("127.0.0.1", false)
	third := enter("127.0.0.1", true)
	silent(first)
	other := enter("127.0.0.2", false)
	if got := h.ask("web\n"); got != "up ready\n" {
		t.Errorf("a client that sends its request: %q", got)
	}
	fourth := enter("127.0.0.3", true) // the queue is full
	silent(second)
	for _, c := range []*net.TCPConn{third, other, fourth} {
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := h.readAll(c); got != "up ready\n" {
			t.Errorf("a queued client: %q", got)
		}
	}
	until(t, "nobody is left", func() bool { return h.waiting() == 0 })
}

// accepted returns both ends of a connection that no Server handles; text is in the server's receive buffer.
func accepted(t *testing.T, text string) (client net.Conn, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(soon))
	t.Cleanup(func() { client.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	server = c.(*net.TCPConn)
	if _, err := io.WriteString(client, text); err != nil {
		t.Fatal(err)
	}
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the text is there", func() bool {
		n := 0
		_ = raw.Control(func(fd uintptr) { n, _, _ = syscall.Recvfrom(int(fd), make([]byte, len(text)), syscall.MSG_PEEK) })
		return text == "" || n == len(text)
	})
	return client, server
}

// TestEvictedConnWithCompleteRequest: the request arrived in time, and our goroutine was late.
func TestEvictedConnWithCompleteRequest(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	for text, want := range map[string]string{"web:80\n": "up ready\n", "web:80": "", "": ""} {
		client, server := accepted(t, text)
		v := &pendingConn{server: h.server, TCPConn: server, client: clients.NetworkOfAddr(peerAddr(server))}
		if !h.agent.queue.add(v) {
			t.Fatal("no room")
		}
		h.agent.queue.mu.Lock()
		h.agent.queue.evictLocked(v)
		h.agent.queue.mu.Unlock()
		h.server.serveWaiting(v, 0)
		h.agent.queue.remove(v)
		server.Close()
		if got := h.readAll(client); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if len(h.agent.queue.open) != 0 || len(h.agent.queue.byClient) != 0 {
		t.Errorf("left in the queue: %v, %v", h.agent.queue.open, h.agent.queue.byClient)
	}
}

// TestCompleteRequestSkipsQueue: a request that is complete at the accept is answered even if the queue is full.
func TestCompleteRequestSkipsQueue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"web:80\n": "up ready\n", "\n": "up ready\n", "web:80": "", "": "", "web:80\nmore": ""} {
		for most, want := range map[int]string{0: want, 1: "up ready\n"} {
			h := newTestAgentWithTimeout(t, spool.All, readTimeout)
			h.agent.queue.mu.Lock()
			h.agent.queue.maxOpen = most
			h.agent.queue.mu.Unlock()
			client, server := accepted(t, text)
			var buf [maxRequest]byte
			h.server.handle(server, buf[:])
			got, err := io.ReadAll(client)
			if string(got) != want || err != nil && want != "" {
				t.Errorf("%q with %d places: %q, %v; want %q", text, most, got, err, want)
			}
		}
	}
}

// TestTooManyOpenConns: beyond maxOpen, connections are closed at once.
func TestTooManyOpenConns(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	h.agent.queue.mu.Lock()
	h.agent.queue.maxOpen = 0
	h.agent.queue.mu.Unlock()
	if got := h.readAll(h.dial("127.0.0.1")); got != "" {
		t.Errorf("answered %q", got)
	}
}

// startBadClient opens connections as fast as it can and holds them. It sends nothing, half a line, a line without an
// end, or a request, and never reads.
func startBadClient(tb testing.TB, addr string) (stop func() (opened int64)) {
	tb.Helper()
	var opened atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			held := make([]net.Conn, 1500)
			for n := 0; !done.Load(); n++ {
				at := n % len(held)
				if held[at] != nil {
					held[at].Close()
					held[at] = nil
				}
				c, err := net.DialTimeout("tcp", addr, time.Second)
				if err != nil {
					continue
				}
				held[at] = c
				opened.Add(1)
				_ = c.SetDeadline(time.Now().Add(soon))
				_, _ = io.WriteString(c, []string{"", "we", strings.Repeat("x", 2*maxRequest), "web\nweb\n"}[i])
			}
			for _, c := range held {
				if c != nil {
					c.Close()
				}
			}
		})
	}
	return func() int64 {
		done.Store(true)
		wg.Wait()
		return opened.Load()
	}
}

// TestBadClientDelaysNobody: not even a client with the same address.
func TestBadClientDelaysNobody(t *testing.T) {
	t.Parallel()
	h := newTestAgentWithTimeout(t, "web", readTimeout)
	h.overrides.set("web", spool.Maint, "disk")
	stop := startBadClient(t, h.addr)
	until(t, "the queue is full", func() bool { return h.waiting() >= maxWaitingPerClient })
	var slowest time.Duration
	for range 200 {
		began := time.Now()
		if got := h.ask("web\n"); got != "maint down #disk\n" {
			t.Fatalf("the good client is told %q", got)
		}
		slowest = max(slowest, time.Since(began))
		h.agent.queue.mu.Lock()
		all, alive := h.agent.queue.waiting.Len(), len(h.agent.queue.open)
		h.agent.queue.mu.Unlock()
		if all > maxWaitingPerClient || alive > maxOpen {
			t.Fatalf("%d wait, %d are alive", all, alive)
		}
	}
	opened := stop()
	t.Logf("slowest of 200 answers beside %d bad connections: %v", opened, slowest)
	if slowest > 2*time.Second { // what HAProxy waits by default
		t.Errorf("the slowest of 200 answers took %v", slowest)
	}
	until(t, "nobody is left", func() bool { return h.waiting() == 0 })
}
