package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
	"hacheck/test/checktest"
)

// overrides is a spool in memory: what is said about "all" and about services decides, what is said about
// instances is only listed.
type overrides struct {
	mu   sync.Mutex
	said map[string]spool.Entry // by name
	lost bool
}

func (o *overrides) Lookup(service, _ string, _ uint16, _ bool) spool.View {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range []string{spool.All, service} {
		if e, ok := o.said[s]; ok {
			return spool.View{Override: &e}
		}
	}
	return spool.View{}
}

func (o *overrides) List() []spool.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := slices.Collect(maps.Values(o.said))
	slices.SortFunc(list, func(a, b spool.Entry) int { return strings.Compare(a.Key.Name(), b.Key.Name()) })
	return list
}

func (o *overrides) DirectoryStatus() spool.DirectoryStatus {
	return spool.DirectoryStatus{Directory: "/spool", Inode: 7, Read: true}
}

func (o *overrides) Stats() spool.Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return spool.Stats{Lost: o.lost}
}

func (o *overrides) say(e spool.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said[e.Key.Name()] = e
}

func (o *overrides) lift(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.said, name)
}

// door is a server on a real port in front of a real service.
type door struct {
	*Server
	addr    string
	over    *overrides
	service *service
	http    *http.Server
	slow    atomic.Int64 // requests that came to net/http
}

// service is a real HTTP service that remembers what it was asked.
type service struct {
	port  int
	http  *http.Server
	asked atomic.Int64
	hold  chan struct{} // when not nil, each answer waits until it has received from it twice
	mu    sync.Mutex
	last  string // the request line and the headers of interest
}

func (s *service) lastAsked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func newService(t *testing.T) *service {
	t.Helper()
	s := new(service)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = ln.Addr().(*net.TCPAddr).Port
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		s.last = fmt.Sprintf("%s %s Host=%s X-Copy=%q", r.Method, r.RequestURI, r.Host, r.Header["X-Copy"])
		s.mu.Unlock()
		if s.hold != nil {
			<-s.hold
			<-s.hold
		}
		switch r.URL.Path {
		case "/empty":
			return
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("0123456789", 10_000))
			return
		case "/type":
			w.Header().Set("Content-Type", "text/x-\t\u00e9; charset=latin1")
		}
		var code int
		if _, err := fmt.Sscanf(r.URL.Path, "/code/%d", &code); err == nil {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("X-Private", "stays here")
			w.WriteHeader(code)
		}
		if code != 204 && code != 304 {
			_, _ = io.WriteString(w, "body of "+r.RequestURI)
		}
	})}
	s.http = srv
	done := make(chan struct{})
	go func() { _ = srv.Serve(ln); close(done) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return s
}

func newDoor(t *testing.T, level slog.Level) *door {
	t.Helper()
	d := &door{over: &overrides{said: map[string]spool.Entry{}}, service: newService(t)}
	log := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: level}))
	checks := check.All(check.Options{Version: "test"})
	d.Server = New(Options{Log: log, Balancers: balancer.New(), Overrides: d.over}, Settings{
		Evaluator: health.New(health.Options{
			Overrides: d.over, Checks: checks, CacheTime: time.Hour, CacheTimeDown: time.Hour,
			CacheMaxEntries: 1000, CacheMaxBytes: 1 << 20, Timeout: 5 * time.Second, MaxClients: 50,
			Allowed: []netip.Prefix{}, Log: log,
		}),
		Checks: checks, CheckHost: "127.0.0.1", HeadersToCopy: []string{"host", "x-copy"},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = ln.Addr().String()
	d.http = d.HTTPServer(5 * time.Second)
	inner := d.http.Handler
	d.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.slow.Add(1); inner.ServeHTTP(w, r) })
	done := make(chan struct{})
	go func() { _ = d.http.Serve(d.Listener(ln)); close(done) }()
	t.Cleanup(func() { _ = d.http.Close(); <-done })
	return d
}

// reply is an answer without what changes from one second to the next.
type reply struct {
	Code   int
	Proto  string
	Body   string
	Header http.Header
	Close  bool
}

// send writes raw bytes on a new connection and reads one answer to a request of that method.
func (d *door) send(t *testing.T, method, raw string) reply {
	t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	return readReply(t, bufio.NewReader(c), method)
}

func readReply(t *testing.T, br *bufio.Reader, method string) reply {
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
	// What net/http refuses before any handler runs has no Date.
	if resp.Header.Get("Date") == "" && resp.StatusCode != http.StatusBadRequest {
		t.Errorf("no Date: %d %s", resp.StatusCode, body)
	}
	resp.Header.Del("Date")
	return reply{resp.StatusCode, resp.Proto, string(body), resp.Header, resp.Close}
}

// get asks for a path, where PORT stands for the service's port.
func (d *door) get(t *testing.T, path string, headers ...string) reply {
	t.Helper()
	head := "GET " + strings.ReplaceAll(path, "PORT", fmt.Sprint(d.service.port)) + " HTTP/1.1\r\n"
	for _, h := range headers {
		head += strings.ReplaceAll(h, "PORT", fmt.Sprint(d.service.port)) + "\r\n"
	}
	return d.send(t, "GET", head+"Connection: close\r\n\r\n")
}

func TestRoutes(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	for _, c := range []struct {
		request string // method, target, version
		header  string
		code    int
		says    string
	}{
		{"GET /http/web/PORT/status HTTP/1.1", "", 200, "body of /status"},
		{"GET /http/web/PORT/status HTTP/1.0", "", 200, "body of /status"},
		{"OPTIONS /http/web/PORT/status HTTP/1.0", "", 200, "body of /status"},
		{"HEAD /http/web/PORT/status HTTP/1.1", "", 200, ""},
		{"GET //http/web/PORT/status HTTP/1.1", "", 200, "body of /status"},
		{"GET /http/web/PORT//status HTTP/1.1", "", 200, "body of //status"},
		{"GET /http/web/PORT/a/../b/./c// HTTP/1.1", "", 200, "body of /a/../b/./c//"},
		{"GET /http/web/PORT/a%2Fb%20c?x=%26&&y HTTP/1.1", "", 200, "body of /a%2Fb%20c?x=%26&&y"},
		{"GET /http/web/PORT/ HTTP/1.1", "", 200, "body of /"},
		{"GET /http/web/00PORT/ HTTP/1.1", "", 200, "body of /"},
		{"GET /http/web/PORT HTTP/1.1", "", 404, "slash"},
		{"GET /http/web/PORT?x=1 HTTP/1.1", "", 404, "slash"},
		{"GET /http/web/PORT/%zz HTTP/1.1", "", 400, ""},
		{"GET /http/web/PORT/?x=%zz HTTP/1.1", "", 400, "escape"},
		{"GET /http/web/PORT/?x=%f HTTP/1.1", "", 400, "escape"},
		{"GET /http/web/65536/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web/99999999999999999999/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web/-1/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web/80x/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web// HTTP/1.1", "", 404, "port"},
		{"GET /http/web HTTP/1.1", "", 404, "port"},
		{"GET /http/../80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/./80/ HTTP/1.1", "", 404, "service"},
		{"GET /http//80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/a:b/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/%66oo/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/" + strings.Repeat("a", 201) + "/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/" + strings.Repeat("a", 10_000) + "/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/" + strings.Repeat("a", 200) + "/PORT/ HTTP/1.1", "", 200, "body of /"},
		{"GET /tcp/web/PORT HTTP/1.1", "", 200, ""},
		{"GET /tcp/web/PORT/ignored?and=that HTTP/1.1", "", 200, ""},
		{"GET /tcp/web/PORTabc HTTP/1.1", "", 404, "port"},
		{"GET /spool/web/0/status HTTP/1.1", "", 200, ""},
		{"GET /spool/web/0 HTTP/1.1", "", 200, ""},
		{"GET /http/web/0/ HTTP/1.1", "", 400, "http-check send-state"},
		{"GET /gopher/web/80/ HTTP/1.1", "", 404, "check URL"},
		{"GET /HTTP/web/80/ HTTP/1.1", "", 404, "check URL"},
		{"GET / HTTP/1.1", "", 404, ""},
		{"GET /status/ HTTP/1.1", "", 404, ""},
		{"GET http://x/http/web/PORT/ HTTP/1.1", "", 404, ""},
		{"OPTIONS / HTTP/1.0", "", 405, ""},
		{"OPTIONS * HTTP/1.1", "", 405, ""},
		{"OPTIONS /status HTTP/1.1", "", 405, ""},
		{"OPTIONS / HTTP/1.0", "X-Haproxy-Server-State: UP 2/3; name=be/srv", 404, ""},
		{"GET /status HTTP/1.0", "x-haproxy-server-state: UP 2/3; name=be/srv", 404, ""},
		{"OPTIONS /status HTTP/1.0", "X-Haproxy-Server-State: UP", 404, ""},
		{"PUT /http/web/PORT/ HTTP/1.1", "", 405, ""},
		{"DELETE /status HTTP/1.1", "", 405, ""},
		{"BREW /http/web/PORT/ HTTP/1.1", "", 405, ""},
		{"GET /status HTTP/1.1", "", 200, `"uptime"`},
		{"HEAD /status HTTP/1.1", "", 200, ""},
		{"GET /status/count HTTP/1.1", "", 200, `"service_access_counts"`},
		{"GET /recent HTTP/1.1", "", 200, `"threshold_seconds":600`},
		{"GET /recent?threshold=0 HTTP/1.1", "", 200, `{"seen_services":[],"threshold_seconds":0}`},
		{"GET /recent?threshold=1.5 HTTP/1.1", "", 200, `"threshold_seconds":1.5`},
		{"GET /recent?threshold=abc HTTP/1.1", "", 400, "threshold"},
		{"GET /recent?threshold=nan HTTP/1.1", "", 400, "threshold"},
		{"GET /http/web/PORT/code/201 HTTP/1.1", "", 201, "body of /code/201"},
		{"GET /http/web/PORT/code/302 HTTP/1.1", "", 302, "body of /code/302"},
		{"GET /http/web/PORT/code/204 HTTP/1.1", "", 204, ""},
		{"GET /http/web/PORT/code/304 HTTP/1.1", "", 304, ""},
		{"GET /http/web/PORT/code/500 HTTP/1.1", "", 500, "body of /code/500"},
		{"GET /http/web/PORT/code/599 HTTP/1.1", "", 503, "body of /code/599"},
	} {
		request := strings.ReplaceAll(c.request, "PORT", fmt.Sprint(d.service.port))
		raw := request + "\r\n"
		if c.header != "" {
			raw += c.header + "\r\n"
		}
		method, _, _ := strings.Cut(request, " ")
		r := d.send(t, method, raw+"\r\n")
		if r.Code != c.code || !strings.Contains(r.Body, c.says) || c.code == 200 && c.says == "" && method == "HEAD" && r.Body != "" {
			t.Errorf("%.100s %s: %d %q, want %d %q", c.request, c.header, r.Code, r.Body, c.code, c.says)
		}
		if r.Header.Get("Location") != "" || r.Header.Get("X-Private") != "" {
			t.Errorf("%s: headers of the service are passed on: %v", c.request, r.Header)
		}
		if (r.Code == 204 || r.Code == 304) && (r.Body != "" || r.Header.Get("Content-Length") != "") {
			t.Errorf("%s: a body, or the length of one: %q %v", c.request, r.Body, r.Header)
		}
	}
}

func TestOverridesOnTheWire(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	for _, c := range []struct {
		entry spool.Entry
		path  string
		code  int
		body  string
	}{
		{spool.Entry{State: spool.Down, Reason: "r1", Created: time.UnixMicro(1500000000500000)}, "/spool/web/0/status", 503, "Service web in down state since 1500000000.500000: r1"},
		{spool.Entry{State: spool.Drain, Reason: "r1"}, "/http/web/PORT/", 404, "Service web in drain state: r1"},
		{spool.Entry{State: spool.Maint, Reason: "r1"}, "/http/web/PORT/", 503, "Service web in down state: r1"},
		{spool.Entry{State: spool.ForceUp, Reason: "r1"}, "/http/web/PORT/code/500", 200, "OK"},
		{spool.Entry{State: spool.ForceUp, Reason: "r1"}, "/spool/web/1/", 200, ""},
	} {
		c.entry.Key.Service = "web"
		d.over.say(c.entry)
		r := d.get(t, c.path)
		if r.Code != c.code || r.Body != c.body || r.Header.Get("X-Hacheck-Cache") != "override" || r.Header.Get("Age") != "0" {
			t.Errorf("%v %s: %d %q %v, want %d %q", c.entry.State, c.path, r.Code, r.Body, r.Header, c.code, c.body)
		}
	}
	if n := d.service.asked.Load(); n != 0 {
		t.Errorf("the service was asked %d times although overrides decide", n)
	}
}

func TestWhereTheCheckGoes(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	const state = "X-Haproxy-Server-State: "
	for _, c := range []struct {
		path    string
		headers []string
		code    int
		says    string
	}{
		{"/http/a/1/", []string{state + "UP 2/3; address=127.0.0.1; port=PORT; name=be/srv; node=N; weight=1/2; scur=13/22; qcur=0"}, 200, "body"},
		{"/http/a/0/", []string{"x-haproxy-server-state: UP;port=PORT"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP 2/3; port= PORT"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; Port=1"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; port=1=2"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; port=0"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; port="}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; address=unix; port=unix"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP; port=1; port=PORT"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP; port=1", state + "UP; port=PORT"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP; port=abc"}, 400, "port=abc"},
		{"/http/a/1/", []string{state + "UP; port=-1"}, 400, "port=-1"},
		{"/http/a/1/", []string{state + "UP; port=65536"}, 400, "port=65536"},
		{"/http/a/0/", []string{state + "UP; address=127.0.0.1"}, 400, "send-state"},
		{"/http/a/PORT/", []string{state + "UP; address=localhost"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP; address=0.0.0.0"}, 200, "body"},
		{"/tcp/a/PORT", []string{state + "UP; address=0.0.0.0", "X-Nerve-Check-IP: 198.51.100.9"}, 403, "198.51.100.9"},
		{"/tcp/a/PORT", []string{state + "UP; address=::", "X-Nerve-Check-IP: 198.51.100.9"}, 403, "198.51.100.9"},
		{"/http/a/PORT/", []string{state + "UP; address=::"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP; address=::ffff:127.0.0.1"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP; address="}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 127.0.0.1"}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP:"}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1", state + "UP; address=127.0.0.1"}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1", state + "UP; address=unix"}, 403, "check_hosts_allowed"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1"}, 403, "check_hosts_allowed"},
		{"/spool/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1"}, 200, ""},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: x@127.0.0.1"}, 400, "X-Nerve-Check-IP: x@127.0.0.1"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: example.test"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=[::1]"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=fe80::1%lo"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=127.1"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=0x7f000001"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=010.0.0.1"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=127.0.0.1:80/x?"}, 400, "not an IP address"},
	} {
		if r := d.get(t, c.path, c.headers...); r.Code != c.code || !strings.Contains(r.Body, c.says) {
			t.Errorf("%s %q: %d %q, want %d %q", c.path, c.headers, r.Code, r.Body, c.code, c.says)
		}
	}
}

func TestHeadersToTheService(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	own := fmt.Sprintf("127.0.0.1:%d", d.service.port)
	for _, c := range []struct {
		path    string
		headers []string
		want    string
	}{
		{"/1", nil, `GET /1 Host=` + own + ` X-Copy=[]`},
		{"/2", []string{"Host:"}, `GET /2 Host=` + own + ` X-Copy=[]`},
		{"/3", []string{"hOST: shop.test"}, `GET /3 Host=shop.test X-Copy=[]`},
		{"/3", []string{"Host: a", "X-Copy: 1", "x-copy: 2", "X-Other: 3"}, `GET /3 Host=a X-Copy=["1" "2"]`},
	} {
		for i, cached := range []string{"miss", "hit"} {
			r := d.get(t, "/http/web/PORT"+c.path, c.headers...)
			if got := d.service.lastAsked(); got != c.want || r.Header.Get("X-Hacheck-Cache") != cached {
				t.Errorf("%q, time %d: the service was asked %s (%s), want %s (%s)", c.headers, i, got, r.Header.Get("X-Hacheck-Cache"), c.want, cached)
			}
		}
	}
	before := d.service.asked.Load()
	for _, h := range []string{"Pragma: no-cache", "pragma: No-Cache", "Cache-Control: max-age=0, no-cache"} {
		if r := d.get(t, "/http/web/PORT/h", h); r.Header.Get("X-Hacheck-Cache") != "bypass" {
			t.Errorf("%s: %v", h, r.Header)
		}
	}
	if n := d.service.asked.Load() - before; n != 3 {
		t.Errorf("3 demands for a fresh check led to %d", n)
	}
}

func TestRecent(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	d.get(t, "/http/b/PORT/")
	d.get(t, "/http/b/PORT/") // this one from the cache
	d.get(t, "/http/a/PORT/code/500")
	d.get(t, "/http/a/PORT/", "X-Nerve-Check-IP: 192.0.2.1")
	r := d.get(t, "/recent")
	if !strings.Contains(r.Body, `{"seen_services":[["a",{"code":403,"remote_ip":"127.0.0.1","ts":1`) || !strings.Contains(r.Body, `["b",{"code":200,`) {
		t.Errorf("recent: %s", r.Body)
	}
	if r := d.get(t, "/status/count"); r.Body != `{"service_access_counts":{"a":{"127.0.0.1":2},"b":{"127.0.0.1":2}}}` {
		t.Errorf("count: %s", r.Body)
	}
	if r := d.get(t, "/status"); !strings.Contains(r.Body, `"gets":3,"hits":1,"misses":2`) && !strings.Contains(r.Body, `"hits":1`) {
		t.Errorf("status: %s", r.Body)
	}
}

// TestTablesAreBounded asks for more services than the tables hold. Every client finds room at the cost of the one
// that fills them, and nobody else's service goes.
func TestTablesAreBounded(t *testing.T) {
	tab := newRecent(balancer.New())
	now := time.Now()
	ask := func(service, peer string) {
		tab.answer(tab.see(service, peer, now), service, &balancer.Request{Peer: peer, Code: 200, Answered: now}, &health.Verdict{})
	}
	ask("web", "10.0.0.1")
	ask("svc7", "10.0.0.1") // the flood asks about this one as well
	for i := range maxServices + 1000 {
		ask(fmt.Sprintf("svc%d", i), "127.0.0.1")
	}
	if n := len(tab.since(now.Add(-time.Minute), "")); n != maxServices || tab.n != n {
		t.Errorf("%d services, want %d", n, maxServices)
	}
	for i := range 2000 {
		ask(fmt.Sprintf("late%d", i), "10.0.0.2")
	}
	if n := len(tab.since(now.Add(-time.Minute), "")); n != maxServices || tab.n != n {
		t.Errorf("%d services, want %d", n, maxServices)
	}
	for _, name := range []string{"web", "svc7", "late0", "late1999", "svc9000"} {
		if tab.services.get(name) == nil {
			t.Errorf("%s has lost its row", name)
		}
	}
	for _, name := range []string{"svc0", "svc100", "svc10500"} {
		if tab.services.get(name) != nil {
			t.Errorf("%s has a row", name)
		}
	}
	for i := range maxPeers + 1000 {
		ask("svc9000", fmt.Sprintf("2001:db8::%x:%x", i>>16, i&0xffff))
	}
	if n := tab.callers.Len(); n > maxPeers {
		t.Errorf("%d callers, want at most %d", n, maxPeers)
	}
	ask("web", "10.0.0.3")
	if n := len(tab.counts()["web"]); n != 2 {
		t.Errorf("%d callers of web, want 2", n)
	}
	// When they are old they make room.
	tab.services.each(func(_ string, s *seenService) bool { s.at = now.Add(-recentFor - time.Second); return true })
	tab.swept = time.Time{}
	ask("new", "127.0.0.1")
	if rows := tab.since(now.Add(-time.Minute), ""); len(rows) != 1 || rows[0].service != "new" || tab.callers.Len() != 1 {
		t.Errorf("%d rows and %d callers after the old ones were dropped", len(rows), tab.callers.Len())
	}
}

// TestTwoClientsTogether: two clients that ask about the same invented services keep a third one out no longer than
// one of them would.
func TestTwoClientsTogether(t *testing.T) {
	tab := newRecent(balancer.New())
	now := time.Now()
	for i := range maxServices {
		for _, peer := range []string{"10.6.6.6", "10.6.6.7"} {
			tab.see(fmt.Sprintf("svc%d", i), peer, now)
			tab.enter(fmt.Sprintf("svc%d", i), peer, now)
		}
	}
	for _, name := range []string{"web", "api"} {
		if tab.see(name, "10.0.0.1", now) == nil {
			t.Errorf("no row for %s", name)
		}
	}
	if tab.n != maxServices {
		t.Errorf("%d services, want %d", tab.n, maxServices)
	}
}

// TestTableUnderLoad has clients displace each other's rows while they are asked about. Afterwards the table agrees
// with itself.
func TestTableUnderLoad(t *testing.T) {
	tab := newRecent(balancer.New())
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 4 * maxServices {
				peer, service := fmt.Sprintf("10.0.%d.%d", worker, i%7), fmt.Sprintf("svc%d", i%(maxServices/2+worker*3000))
				tab.answer(tab.see(service, peer, time.Now()), service, &balancer.Request{
					Peer: peer, HasState: true, Node: "n", Name: "be/s", Code: 200, Answered: time.Now(),
				}, &health.Verdict{})
			}
		})
	}
	wg.Wait()
	rows, callers := 0, 0
	tab.services.each(func(name string, s *seenService) bool {
		rows++
		s.each(func(c *caller) {
			if c.row != s || c.place == nil {
				t.Errorf("%s: a caller of another row", name)
			}
			callers++
		})
		if s.gone || s.name != name {
			t.Errorf("%s: gone %v, named %s", name, s.gone, s.name)
		}
		return true
	})
	if rows != tab.n || callers != tab.callers.Len() || rows > maxServices {
		t.Errorf("%d rows counted as %d, %d callers counted as %d", rows, tab.n, callers, tab.callers.Len())
	}
}

// TestAHalfClosedClientGetsItsAnswer: the original gave none.
func TestAHalfClosedClientGetsItsAnswer(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /http/web/%d/half HTTP/1.0\r\n\r\n", d.service.port)
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if r := readReply(t, bufio.NewReader(c), "GET"); r.Code != 200 {
		t.Errorf("%+v", r)
	}
}

// TestKeptConnection mixes what the shortcut answers with what it does not on one connection.
func TestKeptConnection(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for i := range 50 {
		path := fmt.Sprintf("/http/web/%d/%d", d.service.port, i/5)
		if i%7 == 0 {
			path = "/status"
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\n\r\n", path)
		if r := readReply(t, br, "GET"); r.Code != 200 || r.Close {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if n := d.service.asked.Load(); n != 10 {
		t.Errorf("%d checks, want 10", n)
	}
	// All at once, without waiting for answers.
	var all strings.Builder
	for i := range 100 {
		fmt.Fprintf(&all, "GET /http/web/%d/%d HTTP/1.1\r\n\r\n", d.service.port, i%10)
	}
	_, _ = io.WriteString(c, all.String())
	for i := range 100 {
		if r := readReply(t, br, "GET"); r.Code != 200 || r.Body != fmt.Sprintf("body of /%d", i%10) {
			t.Fatalf("pipelined %d: %+v", i, r)
		}
	}
}

// twoWays asks the same head by the shortcut, where it takes it, and by net/http.
func twoWays(t *testing.T, quick, slow *door, head []byte) (a, b reply, ok bool) {
	t.Helper()
	var h plainHead
	if !h.parsePlain(string(head)) {
		return a, b, false
	}
	return quick.send(t, h.method, string(head)), slow.send(t, h.method, string(head)), true
}

// FuzzShortcut holds the shortcut against net/http: whatever head it takes, the answer is the same.
func FuzzShortcut(f *testing.F) {
	for _, s := range []string{
		"GET /spool/web/0/ HTTP/1.0\r\n\r\n",
		"OPTIONS /spool/down/80 HTTP/1.1\r\nConnection: close\r\n\r\n",
		"HEAD /spool/down/80/x?y HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n",
		"GET /spool/web/0/ HTTP/1.1\r\nX-Haproxy-Server-State: UP 2/3; address=1.2.3.4; port=0\r\nConnection: close\r\n\r\n",
		"GET /spool/web/0/ HTTP/1.1\r\nX-Nerve-Check-IP: x\r\nPragma: no-cache\r\nConnection: close\r\n\r\n",
		"GET /spool/web/65536/ HTTP/1.0\r\nA:\t b \r\n\r\n",
		"GET /spool/web/0/ HTTP/1.0\r\nX-Hacheck-Hops: 2\r\nx-hacheck-hops:\t1 \r\n\r\n",
		"GET /spool/web/0/ HTTP/1.1\r\nX-HACHECK-HOPS: +1\r\nConnection: close\r\n\r\n",
		"GET /status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET /spool/web/0/ HTTP/1.0\r\nX-Haproxy-Server-State: DOWN; name=a=b; node= lb1 ;name=be/s; scur=1/2\r\nx-haproxy-server-state: UP;node=\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	var quick, slow *door
	f.Fuzz(func(t *testing.T, head []byte) {
		if bytes.HasPrefix(head, []byte("GET /status ")) || bytes.HasPrefix(head, []byte("GET /recent")) || len(head) > 2000 {
			return // these tell of themselves
		}
		if !bytes.Contains(head, []byte("/spool/")) {
			return // nothing is to be dialled
		}
		// Not all that the headers say shows in an answer about which nothing is asked.
		var h plainHead
		if r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head))); err == nil && h.parsePlain(string(head)) {
			if w := wantedBy(r.Header); w != h.want {
				t.Errorf("%q\nby net/http %+v, by the shortcut %+v", head, w, h.want)
			}
		}
		// One pair of servers for all inputs of a process would outlive t; two listeners an input are cheap.
		quick, slow = newDoor(t, slog.LevelInfo), newDoor(t, slog.LevelDebug) // debug: no shortcut
		for _, d := range []*door{quick, slow} {
			d.over.say(spool.Entry{Key: spool.Key{Service: "down"}, State: spool.Down, Reason: "x", Created: time.Unix(1, 0)})
		}
		if a, b, ok := twoWays(t, quick, slow, head); ok {
			if d := cmp.Diff(b, a); d != "" {
				t.Errorf("%q\nby net/http (-), by the shortcut (+):\n%s", head, d)
			}
			if d := cmp.Diff(slow.asked(), quick.asked()); d != "" {
				t.Errorf("%q\nremembered by net/http (-), by the shortcut (+):\n%s", head, d)
			}
		}
	})
}

// TestShortcutIsTaken makes sure that the heads balancers send do take it: net/http's way counts none.
func TestShortcutIsTaken(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	path := fmt.Sprintf("/http/web/%d/x", d.service.port)
	heads := []string{
		"OPTIONS " + path + " HTTP/1.0\r\n\r\n",
		"GET " + path + " HTTP/1.0\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nconnection: close\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nx-haproxy-server-state: UP 2/3; address=127.0.0.1; port=" + fmt.Sprint(d.service.port) + "; name=be/srv; node=lb1; weight=1/2; scur=13/22; qcur=0\r\nconnection: close\r\n\r\n",
	}
	d.send(t, "GET", heads[0]) // the miss
	before := d.slow.Load()
	for _, h := range heads {
		if r := d.send(t, "GET", h); r.Code != 200 || r.Header.Get("X-Hacheck-Cache") != "hit" || r.Body != "body of /x" {
			t.Errorf("%q: %+v", h, r)
		}
	}
	if n := d.slow.Load() - before; n != 0 {
		t.Errorf("%d of %d plain heads went through net/http", n, len(heads))
	}
}

// kept opens a connection on which net/http has answered once, so that the shortcut takes what follows.
func (d *door) kept(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	if _, err := io.WriteString(c, "GET /spool/first/0/ HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if r := readReply(t, br, "GET"); r.Code != 200 {
		t.Fatalf("first request: %+v", r)
	}
	return c, br
}

// TestShortcutChecks: on a kept connection the shortcut waits for checks itself, and says what net/http would have.
func TestShortcutChecks(t *testing.T) {
	quick, slow := newDoor(t, slog.LevelInfo), newDoor(t, slog.LevelDebug) // debug: no shortcut
	closed := checktest.ClosedPort(t)
	questions := []string{
		"GET /http/web/PORT/plain", "HEAD /http/web/PORT/head", "OPTIONS /http/web/PORT/options",
		"GET /http/web/PORT/plain", // a hit now
		"GET /http/web/PORT/code/204", "GET /http/web/PORT/code/304", "HEAD /http/web/PORT/code/204",
		"GET /http/web/PORT/code/302", "GET /http/web/PORT/code/404", "GET /http/web/PORT/code/500", "GET /http/web/PORT/code/499",
		"GET /http/web/PORT/empty", "HEAD /http/web/PORT/empty", "GET /http/web/PORT/empty",
		"GET /http/web/PORT/large", "GET /http/web/PORT/large", "HEAD /http/web/PORT/large",
		"GET /http/web/PORT/type",
		"GET /tcp/web/PORT/", "GET /redis/web/PORT/",
		fmt.Sprintf("GET /http/web/%d/", closed), fmt.Sprintf("GET /tcp/web/%d", closed),
		"GET /http/web/0/", "GET /mysql/web/PORT/",
	}
	ask := func(d *door) (replies []reply) {
		c, br := d.kept(t)
		before := d.slow.Load()
		for _, q := range questions {
			q = strings.ReplaceAll(q, "PORT", fmt.Sprint(quick.service.port))
			if _, err := io.WriteString(c, q+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(q, " ")
			replies = append(replies, readReply(t, br, method))
		}
		if n := d.slow.Load() - before; d == quick && n != 0 {
			t.Errorf("%d of %d plain heads went through net/http", n, len(questions))
		}
		return replies
	}
	byShortcut, byNetHTTP := ask(quick), ask(slow)
	for i, q := range questions {
		// How long a connection took is in the text.
		if d := cmp.Diff(byNetHTTP[i], byShortcut[i]); d != "" && !strings.HasPrefix(byShortcut[i].Body, "Connected in ") {
			t.Errorf("%s\nby net/http (-), by the shortcut (+):\n%s", q, d)
		}
	}
	if d := cmp.Diff(slow.asked(), quick.asked()); d != "" {
		t.Errorf("remembered by net/http (-), by the shortcut (+):\n%s", d)
	}
}

// TestShortcutIsClosedBehindItsAnswer: a connection that net/http takes for idle, while the shortcut waits for a
// check on it, is closed by it when the server stops; the answer is written first.
func TestShortcutIsClosedBehindItsAnswer(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	c, br := d.kept(t)
	d.service.hold = make(chan struct{})
	fmt.Fprintf(c, "GET /http/web/%d/held HTTP/1.1\r\n\r\n", d.service.port)
	d.service.hold <- struct{}{}       // its check is under way
	d.http.SetKeepAlivesEnabled(false) // closes idle connections, as a stop does
	close(d.service.hold)
	if r := readReply(t, br, "GET"); r.Code != 200 || r.Body != "body of /held" {
		t.Errorf("%+v", r)
	}
	if b, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the connection was left open: %q, %v", b, err)
	}
}

// TestAnAskerThatHangsUp: its check lives on, and whoever asks next has the answer, however the first one was served.
func TestAnAskerThatHangsUp(t *testing.T) {
	for name, connect := range map[string]func(*testing.T, *door) net.Conn{
		"the shortcut": func(t *testing.T, d *door) net.Conn {
			c, _ := d.kept(t)
			return c
		},
		"net/http": func(t *testing.T, d *door) net.Conn {
			c, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, slog.LevelInfo)
			d.service.hold = make(chan struct{})
			c := connect(t, d)
			fmt.Fprintf(c, "GET /http/web/%d/held HTTP/1.1\r\n\r\n", d.service.port)
			d.service.hold <- struct{}{} // its check is under way
			_ = c.Close()
			close(d.service.hold)
			if r := d.get(t, "/http/web/PORT/held"); r.Code != 200 || r.Body != "body of /held" {
				t.Errorf("who asks next gets %+v", r)
			}
			if n := d.service.asked.Load(); n != 1 {
				t.Errorf("%d checks, want the first one's", n)
			}
		})
	}
}
