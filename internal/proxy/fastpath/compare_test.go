package fastpath_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/spool"
	"hacheck/test/checktest"
	"hacheck/test/proxytest"
)

// FuzzFastPath compares the fast path with net/http: for each head that the fast path takes, both read the same header
// lines, give the same answer, and record the same balancer.
func FuzzFastPath(f *testing.F) {
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
	f.Fuzz(func(t *testing.T, head []byte) {
		if bytes.HasPrefix(head, []byte("GET /status ")) || bytes.HasPrefix(head, []byte("GET /recent")) || len(head) > 2000 {
			return // these pages change with each request
		}
		if !bytes.Contains(head, []byte("/spool/")) {
			return // no check may connect to anything
		}
		h, ok := fastpath.ParseHead(string(head))
		if !ok {
			return
		}
		compareFields(t, head, h)
		// A pair of servers for all inputs of a process would outlive t; two listeners for each input are cheap.
		fast, slow := proxytest.Start(t, slog.LevelInfo), proxytest.Start(t, slog.LevelDebug) // debug: no fast path
		for _, d := range []*proxytest.Server{fast, slow} {
			d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "down"}, State: spool.Down, Reason: "x", Created: time.Unix(1, 0)})
		}
		a, b := fast.Send(t, h.Method, string(head)), slow.Send(t, h.Method, string(head))
		if d := cmp.Diff(b, a); d != "" {
			t.Errorf("%q\nby net/http (-), by the fast path (+):\n%s", head, d)
		}
		if d := cmp.Diff(slow.Balancers(), fast.Balancers()); d != "" {
			t.Errorf("%q\nrecorded by net/http (-), by the fast path (+):\n%s", head, d)
		}
	})
}

// compareFields compares the header lines of h with those that net/http reads. Not all of them show in an answer for
// which no check runs.
func compareFields(t *testing.T, head []byte, h *fastpath.Head) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return
	}
	if strings.EqualFold(r.Header.Get("Pragma"), "no-cache") && !bytes.Contains(bytes.ToLower(head), []byte("\ncache-control:")) {
		r.Header.Del("Cache-Control") // net/http adds it
	}
	got, host := http.Header{}, ""
	for _, f := range h.Fields {
		if strings.EqualFold(f.Name, "Host") {
			host = f.Value
		} else {
			got.Add(f.Name, f.Value)
		}
	}
	if r.Host != host || r.RequestURI != h.Target || r.Method != h.Method || !cmp.Equal(r.Header, got) {
		t.Errorf("%q\nby net/http %s %s %q %v, by the fast path %s %s %q %v", head, r.Method, r.RequestURI, r.Host, r.Header, h.Method, h.Target, host, got)
	}
}

// TestFastPathIsTaken: the heads that balancers send take the fast path.
func TestFastPathIsTaken(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	path := fmt.Sprintf("/http/web/%d/x", d.Service.Port)
	heads := []string{
		"OPTIONS " + path + " HTTP/1.0\r\n\r\n",
		"GET " + path + " HTTP/1.0\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nconnection: close\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nx-haproxy-server-state: UP 2/3; address=127.0.0.1; port=" + fmt.Sprint(d.Service.Port) + "; name=be/srv; node=lb1; weight=1/2; scur=13/22; qcur=0\r\nconnection: close\r\n\r\n",
	}
	d.Send(t, "GET", heads[0]) // the miss
	before := d.ByHTTP.Load()
	for _, h := range heads {
		if r := d.Send(t, "GET", h); r.Code != 200 || r.Header.Get("X-Hacheck-Cache") != "hit" || r.Body != "body of /x" {
			t.Errorf("%q: %+v", h, r)
		}
	}
	if n := d.ByHTTP.Load() - before; n != 0 {
		t.Errorf("%d of %d plain heads went through net/http", n, len(heads))
	}
}

// TestFastPathRunsChecks: on a kept connection the fast path waits for checks, and answers as net/http would.
func TestFastPathRunsChecks(t *testing.T) {
	fast, slow := proxytest.Start(t, slog.LevelInfo), proxytest.Start(t, slog.LevelDebug) // debug: no fast path
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
	ask := func(d *proxytest.Server) (replies []proxytest.Reply) {
		c, br := d.DialKeepAlive(t)
		before := d.ByHTTP.Load()
		for _, q := range questions {
			q = strings.ReplaceAll(q, "PORT", fmt.Sprint(fast.Service.Port))
			if _, err := io.WriteString(c, q+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(q, " ")
			replies = append(replies, proxytest.ReadReply(t, br, method))
		}
		if n := d.ByHTTP.Load() - before; d == fast && n != 0 {
			t.Errorf("%d of %d plain heads went through net/http", n, len(questions))
		}
		return replies
	}
	byFastPath, byNetHTTP := ask(fast), ask(slow)
	for i, q := range questions {
		// How long a connection took is in the text.
		if d := cmp.Diff(byNetHTTP[i], byFastPath[i]); d != "" && !strings.HasPrefix(byFastPath[i].Body, "Connected in ") {
			t.Errorf("%s\nby net/http (-), by the fast path (+):\n%s", q, d)
		}
	}
	if d := cmp.Diff(slow.Balancers(), fast.Balancers()); d != "" {
		t.Errorf("recorded by net/http (-), by the fast path (+):\n%s", d)
	}
}

// TestCloseWaitsForTheAnswer: while the fast path waits for a check, net/http believes that the connection is idle, and
// closes it when the server stops. The client still gets the answer.
func TestCloseWaitsForTheAnswer(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	c, br := d.DialKeepAlive(t)
	d.Service.Hold = make(chan struct{})
	fmt.Fprintf(c, "GET /http/web/%d/held HTTP/1.1\r\n\r\n", d.Service.Port)
	d.Service.Hold <- struct{}{}       // its check is under way
	d.HTTP.SetKeepAlivesEnabled(false) // closes idle connections, as a stop does
	close(d.Service.Hold)
	if r := proxytest.ReadReply(t, br, "GET"); r.Code != 200 || r.Body != "body of /held" {
		t.Errorf("%+v", r)
	}
	if b, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the connection was left open: %q, %v", b, err)
	}
}

// TestRememberedHead: a connection that sends the same head again gets what a first request gets, also after a reload,
// after other heads in between, and for heads that are too long to be remembered.
func TestRememberedHead(t *testing.T) {
	t.Parallel()
	d := proxytest.Start(t, slog.LevelInfo)
	c, br := d.DialKeepAlive(t)
	ask := func(head, body string) {
		t.Helper()
		before := d.ByHTTP.Load()
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		if r := proxytest.ReadReply(t, br, "GET"); r.Code != 200 || r.Body != body {
			t.Fatalf("%.60q: %+v, want %q", head, r, body)
		}
		if d.ByHTTP.Load() != before {
			t.Errorf("%.60q went through net/http", head)
		}
	}
	head := func(path string, headers ...string) string {
		return fmt.Sprintf("GET /http/web/%d%s HTTP/1.1\r\n%s\r\n", d.Service.Port, path, strings.Join(append(headers, ""), "\r\n"))
	}
	one, two, long := head("/one", "X-Copy: 1"), head("/two", "Host: h"), head("/one", "X-Long: "+strings.Repeat("x", 3000))
	for range 3 {
		ask(one, "body of /one")
		ask(one, "body of /one")
		ask(two, "body of /two")
		ask(long, "body of /one")
		ask(long, "body of /one")
	}
	if n := d.Service.Requests.Load(); n != 3 {
		t.Errorf("%d checks, want 3", n)
	}
	ask(one, "body of /one")
	set := d.Settings
	set.HeadersToCopy = nil // so the same head is another question
	d.SetSettings(set)
	ask(one, "body of /one")
	if got := d.Service.LastRequest(); !strings.Contains(got, "GET /one") || !strings.Contains(got, "X-Copy=[]") {
		t.Errorf("after the reload the service got %s", got)
	}
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.ForceUp})
	ask(one, "OK")
}
