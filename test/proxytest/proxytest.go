// Package proxytest starts the HTTP endpoint with its pages on a real port, in front of a real HTTP service, for the
// tests of packages proxy, fastpath and web.
package proxytest

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/proxy"
	"hacheck/internal/web"
)

// Server is a running HTTP endpoint.
type Server struct {
	*proxy.Server
	Web       *web.Server
	Table     *balancer.Table
	Overrides *Overrides
	Service   *Service
	Addr      string
	HTTP      *http.Server
	ByHTTP    atomic.Int64 // requests that net/http has answered
	Settings  proxy.Settings
	Pages     web.Settings
	Log       *slog.Logger
}

// Start starts an endpoint that stops at the end of the test. At level debug, no request takes the fast path.
func Start(t testing.TB, level slog.Level) *Server {
	t.Helper()
	return StartWith(t, level, check.All(check.Options{Version: "test"}), 5*time.Second)
}

// StartWith is Start with other checks and another timeout of a check.
func StartWith(t testing.TB, level slog.Level, checks check.Set, timeout time.Duration) *Server {
	t.Helper()
	s := &Server{Overrides: NewOverrides(), Service: NewService(t), Table: balancer.New()}
	s.Log = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: level}))
	s.Pages.Evaluator = health.New(health.Options{
		Overrides: s.Overrides, Checks: checks, CacheTime: time.Hour, CacheTimeDown: time.Hour,
		CacheMaxEntries: 1000, CacheMaxBytes: 1 << 20, Timeout: timeout, MaxClients: 50,
		CheckHostsAllowed: []netip.Prefix{}, Log: s.Log,
	})
	s.Settings = proxy.Settings{
		Evaluator: s.Pages.Evaluator, Checks: checks, CheckHost: "127.0.0.1", HeadersToCopy: []string{"host", "x-copy"},
	}
	s.Web = web.New(web.Options{Log: s.Log, Balancers: s.Table, Overrides: s.Overrides}, s.Pages)
	s.Server = proxy.New(proxy.Options{Log: s.Log, Recorder: s.Web, Pages: s.Web}, s.Settings)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = ln.Addr().String()
	s.HTTP = s.HTTPServer(5 * time.Second)
	inner := s.HTTP.Handler
	s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ByHTTP.Add(1); inner.ServeHTTP(w, r) })
	done := make(chan struct{})
	go func() { _ = s.HTTP.Serve(s.Listener(ln)); close(done) }()
	t.Cleanup(func() { _ = s.HTTP.Close(); <-done })
	return s
}

// Reply is an answer without the Date header.
type Reply struct {
	Code   int
	Proto  string
	Body   string
	Header http.Header
	Close  bool
}

// Dial opens a connection that closes at the end of the test. Its deadline is 20 s from now.
func (s *Server) Dial(t testing.TB) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// DialKeepAlive opens a keep-alive connection on which net/http has answered one request, so that later requests take the fast
// path.
func (s *Server) DialKeepAlive(t testing.TB) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, br := s.Dial(t)
	if _, err := io.WriteString(c, "GET /spool/first/0/ HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if r := ReadReply(t, br, "GET"); r.Code != 200 {
		t.Fatalf("first request: %+v", r)
	}
	return c, br
}

// Send writes raw bytes on a new connection and reads the answer to a request of that method.
func (s *Server) Send(t testing.TB, method, raw string) Reply {
	t.Helper()
	c, br := s.Dial(t)
	defer c.Close()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	return ReadReply(t, br, method)
}

// ReadReply reads the answer to a request of that method.
func ReadReply(t testing.TB, br *bufio.Reader, method string) Reply {
	t.Helper()
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("body: %v", err)
	}
	// net/http sends no Date if it refuses a request before any handler runs.
	if resp.Header.Get("Date") == "" && resp.StatusCode != http.StatusBadRequest {
		t.Errorf("no Date: %d %s", resp.StatusCode, body)
	}
	resp.Header.Del("Date")
	return Reply{resp.StatusCode, resp.Proto, string(body), resp.Header, resp.Close}
}

// Get requests a path. PORT in the path and in the headers is replaced by the port of the service.
func (s *Server) Get(t testing.TB, path string, headers ...string) Reply {
	t.Helper()
	head := "GET " + path + " HTTP/1.1\r\n" + strings.Join(append(headers, "Connection: close"), "\r\n") + "\r\n\r\n"
	return s.Send(t, "GET", strings.ReplaceAll(head, "PORT", fmt.Sprint(s.Service.Port)))
}

// Balancers returns the rows of the table without their ages.
func (s *Server) Balancers() []balancer.ServerView {
	list := s.Table.Report("").Balancers
	for i := range list {
		b := &list[i]
		b.Last.Age, b.RequestAge, b.SameFor, b.Interval = 0, 0, 0, 0
		if b.Previous != nil {
			b.Previous.Age = 0
		}
	}
	return list
}
