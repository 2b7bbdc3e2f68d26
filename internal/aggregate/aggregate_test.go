package aggregate

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

func TestMain(m *testing.M) {
	// net/http sleeps half a second over a connection that it has refused, longer than goleak waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// door is a Server in front of a real judge, for a service of two TCP checks.
type door struct {
	addr     string
	up, down net.Listener
	override atomic.Pointer[spool.Entry]
	log      lines
}

// Lookup is what operators have said.
func (d *door) Lookup(string, string, uint16, bool) spool.View {
	return spool.View{Override: d.override.Load()}
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func tcpCheck(t *testing.T, ln net.Listener) *check.ConfiguredCheck {
	t.Helper()
	port := ln.Addr().(*net.TCPAddr).Port
	c, err := check.Build(check.Spec{Type: "tcp", Options: map[string]any{"host": "127.0.0.1", "port": port}}, check.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t *testing.T, failureCode int) *door {
	t.Helper()
	d := &door{up: listen(t), down: listen(t)}
	judge := health.New(health.Options{
		Overrides: d,
		Checks: check.All(check.Options{Services: map[string][]*check.ConfiguredCheck{
			"web": {tcpCheck(t, d.up), tcpCheck(t, d.down)},
		}}),
		CacheMaxEntries: 1, Timeout: 10 * time.Second, MaxClients: 4, Log: slog.New(slog.DiscardHandler),
	})
	h := &Handler{
		Evaluate: func(hops uint8) health.Verdict {
			return judge.Evaluate(&health.Request{
				Target: check.Target{Protocol: "checks", Service: "web", Host: "127.0.0.1", Hops: hops}, Local: true, NoCache: true, NoShare: true,
			})
		},
		FailureCode: func() int { return failureCode },
		Log:         slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	srv, ln := NewServer(h, 10*time.Second, clients.NewConnLimiter(clients.ConnLimits{}), Timeouts{}), listen(t)
	d.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return d
}

// say sends raw bytes, and returns everything that comes back until the connection is closed.
func (d *door) say(t *testing.T, text string, halfClose bool) string {
	t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if halfClose {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// answer is what a client sees of one.
type answer struct {
	Code       int
	Type, Body string
}

// ask sends one request and returns the answer, with T for the times in it and A and B for the two ports.
func (d *door) ask(t *testing.T, method, accept string) answer {
	t.Helper()
	head := method + " /any/url?at=all HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	if accept != "" {
		head += "Accept: " + accept + "\r\n"
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(d.say(t, head+"\r\n", false))), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(d.up.Addr().String(), "A", d.down.Addr().String(), "B").Replace(string(b))
	text = regexp.MustCompile(`("seconds":|after )[0-9.e-]+`).ReplaceAllString(text, "${1}T")
	return answer{r.StatusCode, r.Header.Get("Content-Type"), text}
}

func (d *door) wants(t *testing.T, what, method, accept string, want answer) {
	t.Helper()
	if diff := cmp.Diff(want, d.ask(t, method, accept)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const (
	plain = "text/plain; charset=utf-8"
	doc   = "application/json; charset=utf-8"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	d := open(t, 0)
	for _, method := range []string{"GET", "POST", "OPTIONS", "DELETE"} {
		d.wants(t, method, method, "", answer{200, plain, "OK"})
	}
	d.wants(t, "HEAD", "HEAD", "", answer{200, plain, ""})
	healthy := d.ask(t, "GET", "text/html, application/json")
	if healthy.Code != 200 || healthy.Type != doc || !strings.HasPrefix(healthy.Body, `{"healthy":true,"checks":[{"name":"tcp:A","healthy":true,"message":"`) {
		t.Errorf("JSON while healthy: %+v", healthy)
	}

	if err := d.down.Close(); err != nil {
		t.Fatal(err)
	}
	const why = "tcp:B: Connection refused by B"
	d.wants(t, "one check fails", "GET", "", answer{504, plain, "At least one health check failed\n" + why})
	d.wants(t, "HEAD of a failure", "HEAD", "", answer{504, plain, ""})
	failing := d.ask(t, "GET", "application/json")
	if failing.Code != 504 || failing.Type != doc || !strings.HasPrefix(failing.Body, `{"healthy":false,"reason":"`+why+`","checks":[{"name":"tcp:A","healthy":true,`) ||
		!strings.Contains(failing.Body, `{"name":"tcp:B","healthy":false,"message":"Connection refused by B","seconds":T}`) {
		t.Errorf("JSON of a failure: %+v", failing)
	}

	if err := d.up.Close(); err != nil {
		t.Fatal(err)
	}
	d.wants(t, "both fail, in the order of the configuration", "GET", "",
		answer{504, plain, "At least one health check failed\ntcp:A: Connection refused by A\n" + why})
}

// TestOverrides: what an operator says comes before what the checks would find, for better and worse.
func TestOverrides(t *testing.T) {
	t.Parallel()
	d := open(t, 0)
	since := time.Unix(1500000000, 500000000)
	d.override.Store(&spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down, Reason: "kernel", Created: since})
	const line = "Service web in down state since 1500000000.500000: kernel"
	d.wants(t, "down", "GET", "", answer{504, plain, line})
	d.wants(t, "down, JSON", "GET", "application/json", answer{504, doc, `{"healthy":false,"state":"down","reason":"` + line + `"}`})
	d.override.Store(&spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Drain, Reason: "kernel", Created: since})
	d.wants(t, "drain", "GET", "", answer{504, plain, strings.Replace(line, "down", "drain", 1)})
	if err := d.down.Close(); err != nil {
		t.Fatal(err)
	}
	d.override.Store(&spool.Entry{Key: spool.Key{Service: "web"}, State: spool.ForceUp, Created: since})
	d.wants(t, "force-up although a check fails", "GET", "", answer{200, plain, "OK"})
	d.override.Store(nil)
	if got := d.ask(t, "GET", ""); got.Code != 504 {
		t.Errorf("lifted while a check fails: %+v", got)
	}
}

func TestFailureCode(t *testing.T) {
	t.Parallel()
	d := open(t, 500)
	d.wants(t, "healthy", "GET", "", answer{200, plain, "OK"})
	d.override.Store(&spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Drain})
	d.wants(t, "drain is a failure here, and no 404", "GET", "", answer{500, plain, "Service web in drain state"})
	if err := d.down.Close(); err != nil {
		t.Fatal(err)
	}
	d.override.Store(nil)
	if got := d.ask(t, "GET", ""); got.Code != 500 {
		t.Errorf("%+v", got)
	}
}

// TestAnyRequest: whatever a balancer asks, and however, it gets the answer and never a redirect.
func TestAnyRequest(t *testing.T) {
	t.Parallel()
	d := open(t, 0)
	for _, c := range []struct {
		text string
		half bool
		want string // how the answer begins
	}{
		{"GET / HTTP/1.0\r\n\r\n", false, "HTTP/1.0 200 OK\r\n"},
		{"OPTIONS / HTTP/1.0\r\n\r\n", false, "HTTP/1.0 200 OK\r\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, "HTTP/1.1 200 OK\r\n"},
		{"GET //a/../b/. HTTP/1.0\r\n\r\n", false, "HTTP/1.0 200 OK\r\n"},
		{"GET /a%2Fb?x=%zz HTTP/1.0\r\n\r\n", false, "HTTP/1.0 200 OK\r\n"},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", false, "HTTP/1.1 200 OK\r\n"},
		{"GET / HTTP/1.0\r\n\r\n", true, "HTTP/1.0 200 OK\r\n"}, // who has only closed its sending side waits for an answer
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, "HTTP/1.1 200 OK\r\n"},
		{"GET / HTTP/1.0\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", false, "HTTP/1.1 431 "},
		{"nonsense\r\n\r\n", false, "HTTP/1.1 400 "},
	} {
		if got := d.say(t, c.text, c.half); !strings.HasPrefix(got, c.want) {
			t.Errorf("%.60q (half closed %v): %.200q, want %q", c.text, c.half, got, c.want)
		}
	}
	d.override.Store(&spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down})
	if got := d.say(t, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false); !strings.HasPrefix(got, "HTTP/1.1 504 ") {
		t.Errorf("OPTIONS * is answered by net/http: %q", got) // it would be up whatever the checks say
	}
	d.override.Store(nil)
	if two := d.say(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false); strings.Count(two, "HTTP/1.1 200 OK\r\n") != 2 {
		t.Errorf("two requests on one connection: %q", two)
	}
}

// TestJudgeIsAskedForEachRequest: nothing is kept here; whether others share is the judge's business.
func TestJudgeIsAskedForEachRequest(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	srv := NewServer(&Handler{Evaluate: func(hops uint8) health.Verdict {
		n := asked.Add(1)
		return health.Verdict{Result: check.Result{Code: 503, Body: fmt.Append(nil, n)}}
	}}, time.Second, clients.NewConnLimiter(clients.ConnLimits{}), Timeouts{})
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	d := &door{addr: ln.Addr().String()}
	for i := 1; i <= 3; i++ {
		if got := d.say(t, "GET / HTTP/1.0\r\n\r\n", false); !strings.HasSuffix(got, fmt.Sprintf("\r\n\r\nAt least one health check failed\n%d", i)) {
			t.Errorf("request %d: %q", i, got)
		}
	}
}

// TestLog: one line for each answer, at the level that asks for it.
func TestLog(t *testing.T) {
	t.Parallel()
	d := open(t, 0)
	d.wants(t, "", "GET", "", answer{200, plain, "OK"})
	if !regexp.MustCompile(`^time=\S+ level=DEBUG msg=answered peer=127\.0\.0\.1:\d+ uri=/any/url code=200 took=\S+\n$`).MatchString(d.log.String()) {
		t.Errorf("log: %q", d.log.String())
	}
}

// TestLimits: nothing a client does lasts longer than a number of seconds.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := NewServer(&Handler{}, 30*time.Second, clients.NewConnLimiter(clients.ConnLimits{}), Timeouts{})
	if s.ReadTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("no limit on what is read: %+v", s)
	}
	if s.WriteTimeout < 30*time.Second+s.ReadTimeout {
		t.Errorf("an answer that took 30 s to find is cut off after %v", s.WriteTimeout)
	}
}
