package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
)

// These tests show what docs/security.md says: what a stranger, a local user, a service, a spool file, a balancer and
// a web page can do, and above all what they cannot. TestSecurityPage holds the page to them.

// clientAt is a client with an address of its own, from 127/8; a daemon tells such addresses apart.
func clientAt(t testing.TB, ip string) *http.Client {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: waitLimit}
	tr := &http.Transport{DialContext: d.DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: waitLimit}
}

// sendRequest sends a request with headers ("Name: value") and returns the answer.
func sendRequest(t testing.TB, c *http.Client, method, to string, form url.Values, headers ...string) answer {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, to, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Add(name, value); name == "Host" {
			req.Host = value
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(b), resp.Header}
}

// TestLongURLsUseLittleMemory: whoever asks for another long URL each time fills neither memory nor the log.
func TestLongURLsUseLittleMemory(t *testing.T) {
	t.Parallel()
	const n = 1500
	d := startDaemon(t, "cache_max_bytes: 1000000\n")
	before := d.rss()
	stranger := clientAt(t, "127.0.0.3")
	pad := strings.Repeat("x", 60_000)
	for i := range n {
		sendRequest(t, stranger, http.MethodGet, fmt.Sprintf("%s/http/web/1/%d%s", d.url, i, pad), nil)
	}
	if grown := d.rss() - before; grown > memoryTolerance() {
		t.Errorf("%d URLs of 60 kB have the daemon grow by %d MB", n, grown>>20)
	}
	log := d.out.String()
	if lines := strings.Count(log, "\n"); lines > 700 || len(log) > 700*700 {
		t.Errorf("%d URLs of 60 kB make %d lines of log, %d bytes", n, lines, len(log))
	}
}

// TestRecursiveURLUsesFewSlots: a URL that has hacheck ask itself, and that again, takes few slots and little time.
func TestRecursiveURLUsesFewSlots(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "max_clients: 100\n")
	web := startService(t, "127.0.0.1", 0, serveOK)
	deep := strings.Repeat(fmt.Sprintf("/http/a/%d", d.port), 3000) + "/status"
	var others sync.WaitGroup
	others.Go(func() {
		a, err := get(d.url + deep)
		if err != nil || a.code != 503 || !strings.Contains(a.body, "ask hacheck itself") {
			t.Errorf("%v %d %.200s", err, a.code, a.body)
		}
	})
	for i := range 20 {
		began := time.Now()
		a := d.get(fmt.Sprintf("/http/web/%d/?%d", web.port, i))
		if took := time.Since(began); a.code != 200 || took > 5*time.Second {
			t.Errorf("beside it, a check answers %d %s after %v", a.code, a.body, took)
		}
	}
	others.Wait()
}

// TestConnectionsOfOneClientAreLimited: one address cannot hold all the descriptors, so that the others are still answered.
func TestConnectionsOfOneClientAreLimited(t *testing.T) {
	t.Parallel()
	// On two doors, which have the same descriptors.
	port := freePort(t)
	d := startDaemon(t, fmt.Sprintf("rlimit_nofile: 400\nservices: {web: {http_listen: \"127.0.0.1:%d\", checks: [{type: tcp, port: %d}]}}\n", port, port))
	listeners := []string{d.addr, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	d.waitReady(t, listeners[1])
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}, Timeout: waitLimit}
	closed := make(chan struct{}, 600)
	for i := range 600 {
		c, err := from.Dial("tcp", listeners[i%2])
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		_, _ = io.WriteString(c, "GET /spool/web/0/ HTTP/1.1\r\nX-Never: ") // or it is closed already
		go func() {
			_, _ = c.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	for range 400 {
		select {
		case <-closed:
		case <-time.After(waitLimit):
			t.Fatal("a single address holds more than half of the descriptors")
		}
	}
	if a := d.get("/spool/web/0/"); a.code != 200 {
		t.Errorf("others are answered %d %s", a.code, a.body)
	}
	if n := d.metric("process_open_fds"); n > 250 {
		t.Errorf("%v descriptors are open", n)
	}
	// The daemon writes its log behind the answers.
	about := func() int { return strings.Count(d.out.String(), "holds as many connections as it may") }
	eventually(t, func() error {
		if about() == 0 {
			return fmt.Errorf("no line about it in the log")
		}
		return nil
	})
	if n := about(); n != 1 {
		t.Errorf("%d lines about it, want 1", n)
	}
}

// TestFullCacheAnswersRight: results that find no room are still right, and overrides are obeyed at once.
func TestFullCacheAnswersRight(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "cache_max_entries: 50\ncache_max_bytes: 1000000\n")
	large := strings.Repeat("x", 64<<10)
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, large) })
	small := startService(t, "127.0.0.1", 0, serveOK)
	stranger := clientAt(t, "127.0.0.3")
	for i := range 100 {
		sendRequest(t, stranger, http.MethodGet, fmt.Sprintf("%s/http/x/%d/?%d", d.url, web.port, i), nil)
		sendRequest(t, stranger, http.MethodGet, fmt.Sprintf("%s/http/x/%d/?%d", d.url, small.port, i), nil)
	}
	if n, b := d.metric("hacheck_cache_entries"), d.metric("hacheck_cache_bytes"); n > 50 || b > 1_000_000 {
		t.Errorf("%v results and %v bytes are kept", n, b)
	}
	if d.metric("hacheck_cache_uncached_total") == 0 {
		t.Error("nothing says that the cache is full")
	}
	path := fmt.Sprintf("/http/web/%d/", small.port)
	if a := d.get(path); a.code != 200 || a.body != "OK" {
		t.Errorf("beside it, a check answers %d %.100s", a.code, a.body)
	}
	d.mustRun("hadown", "web", "-r", "why")
	if a := d.get(path); a.code != 503 {
		t.Errorf("an override is answered %d %.100s", a.code, a.body)
	}
}

// TestClientReachesLocalPorts: what listens on this machine alone is asked for whoever asks. It is the purpose, and
// why the port belongs behind a firewall; other hosts are not asked, which TestNetns proves.
func TestClientReachesLocalPorts(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	private := startService(t, "127.0.0.1", 0, serveOK)
	stranger := clientAt(t, "127.0.0.3")
	for path, want := range map[string]int{
		fmt.Sprintf("/http/x/%d/admin", private.port): 200,
		fmt.Sprintf("/tcp/x/%d/", private.port):       200,
		fmt.Sprintf("/tcp/x/%d/", freePort(t)):        503,
	} {
		if a := sendRequest(t, stranger, http.MethodGet, d.url+path, nil); a.code != want {
			t.Errorf("%s: %d %s, want %d", path, a.code, a.body, want)
		}
	}
	if a := sendRequest(t, stranger, http.MethodGet, d.url+"/tcp/x/80/", nil, "X-Nerve-Check-IP: 192.0.2.1"); a.code != 403 {
		t.Errorf("another host: %d %s, want 403", a.code, a.body)
	}
}

// TestRequestNamesNoCommand: scripts are in the configuration alone; a URL picks a service, and that is all.
func TestRequestNamesNoCommand(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(t.TempDir(), "trace")
	d := startDaemon(t, "services: {web: {checks: [{type: script, command: [\"sh\", \"-c\", \"echo $0 $# $HACHECK_SERVICE\"]}]}}\n")
	for _, path := range []string{
		"/script/web/0/touch%20" + trace, "/checks/web/0/$(touch%20" + trace + ")", "/checks/web/0/?command=touch+" + trace,
		"/checks/web;touch/0/", "/checks/%60touch%60/0/",
	} {
		a := d.get(path)
		if a.code == 200 && !strings.Contains(a.body, "sh 0 web") && a.body != "OK" {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("a request has run a command")
	}
}

// TestNoRequestSmuggling: one request is one request, for the daemon and for the service behind it.
func TestNoRequestSmuggling(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "allow_remote_spool_changes: true\nremote_spool_allowed: []\n")
	const hidden = "GET /spool/smuggled/0/ HTTP/1.1\r\nHost: x\r\n\r\n"
	n := strconv.Itoa(len(hidden))
	for name, request := range map[string]string{
		"a body":                "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nContent-Length: " + n + "\r\n\r\n" + hidden,
		"two lengths":           "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: " + n + "\r\n\r\n" + hidden,
		"length and chunks":     "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nContent-Length: " + n + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"chunks spelled oddly":  "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" + hidden,
		"a blank in a name":     "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nContent-Length : " + n + "\r\n\r\n" + hidden,
		"a folded line":         "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nX: y\r\n Content-Length: " + n + "\r\nContent-Length: " + n + "\r\n\r\n" + hidden,
		"a bare CR":             "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nX: y\rContent-Length: 0\r\nContent-Length: " + n + "\r\n\r\n" + hidden,
		"a refused POST":        "POST /spool/web/0/ HTTP/1.1\r\nHost: x\r\nContent-Length: " + n + "\r\n\r\n" + hidden,
		"a length beyond":       "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n" + hidden,
		"a body without a Host": "GET /spool/web/0/ HTTP/1.1\r\nContent-Length: " + n + "\r\n\r\n" + hidden,
	} {
		conn, err := dial(d.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(conn) // up to the close, which may be a reset
		conn.Close()
		if answers := bytes.Count(got, []byte("HTTP/1.1 ")); answers > 1 {
			t.Errorf("%s: %d answers:\n%s", name, answers, got)
		}
	}
	if a := d.get("/recent"); strings.Contains(a.body, "smuggled") {
		t.Errorf("the request inside was answered: %s", a.body)
	}

	// The service: whatever the URL and the headers that are passed on hold, it reads one request.
	var mu sync.Mutex
	var heads []string
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 16<<10)
			k, _ := c.Read(b)
			mu.Lock()
			heads = append(heads, string(b[:k]))
			mu.Unlock()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, request := range []string{
		"GET /http/web/" + port + "/a%0d%0aX-Evil:%20y HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /http/web/" + port + "/a?b%0d%0a%0d%0aGET%20/evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /http/web/" + port + "/a\rX-Evil: y HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /http/web/" + port + "/a b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /http/web/" + port + "/a HTTP/1.1\r\nHost: x\rX-Evil: y\r\n\r\n",
		"GET /http/web/" + port + "/a HTTP/1.1\r\nHost: x\r\n X-Evil: y\r\n\r\n",
		"GET /http/web/" + port + "/a\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /http/web/" + port + "/a HTTP/1.0\r\nHost: x\nX-Evil: y\r\n\r\n",
	} {
		conn, err := dial(d.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, request)
		conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(heads) == 0 {
		t.Error("the service was never asked: this test looks for nothing")
	}
	for _, h := range heads {
		if lines := strings.Split(h, "\r\n"); strings.Count(h, "\r\n\r\n") != 1 || strings.Contains(h, "\nX-Evil") || strings.Contains(strings.ReplaceAll(h, "\r\n", ""), "\r") ||
			!strings.HasSuffix(lines[0], " HTTP/1.1") || strings.Count(lines[0], " ") != 2 {
			t.Errorf("the service reads %q", h)
		}
	}
}

// controlText is text that forges lines, talks to terminals, and turns writing round.
const controlText = "a\ntime=2020-01-01 level=INFO msg=forged\r\x1b[2J\x1b]0;owned\x07\u009b31m\u202eback\u2028\u00ad\u061c\u200b\u200d\u200f\u2060\ufeff\U000e0041<script>alert(1)</script>\"'`"

// expectPlainText fails unless s is lines of text that no terminal obeys.
func expectPlainText(t *testing.T, what, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Errorf("%s has %U: %q", what, r, s)
			return
		}
	}
}

// TestForgedText: what comes from elsewhere forges no line in the log and moves no cursor, whoever shows it.
func TestForgedText(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		d := startDaemon(t, "allow_remote_spool_changes: true\nlog_format: "+format+"\n")
		// A service that answers with it.
		evil, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer evil.Close()
		go func() {
			for {
				c, err := evil.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, strings.ReplaceAll(controlText, "\n", " ")+"\r\n"+controlText)
				c.Close()
			}
		}()
		_, port, _ := net.SplitHostPort(evil.Addr().String())
		for _, protocol := range []string{"http", "redis", "smtp", "memcached", "haproxy", "tls", "grpc"} {
			a := d.get("/" + protocol + "/web/" + port + "/")
			if a.code == 200 {
				t.Errorf("%s: %d %q", protocol, a.code, a.body)
			}
			expectPlainText(t, "the answer of "+protocol, a.body)
		}
		// A reason by HTTP, one in a file, and names of files.
		if a := sendRequest(t, client, http.MethodPost, d.url+"/spool/posted/0/", url.Values{"status": {"down"}, "reason": {controlText}}, "User-Agent: a\u009b\u202eb"); a.code != 200 {
			t.Fatalf("%d %s", a.code, a.body)
		}
		for name, content := range map[string]string{"filed": controlText, "a\nlevel=INFO msg=forged": "{}", "a\x1b[2J": "{}", "\u202eweb": "{}"} {
			if err := os.WriteFile(filepath.Join(d.spool, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		// A balancer with such names.
		sendRequest(t, client, http.MethodGet, d.url+"/spool/web/0/", nil, "X-Haproxy-Server-State: UP\u009b <b>; node=\u202e<script>; name=be/\u009bweb")
		for _, service := range []string{"posted", "filed"} {
			a := d.get("/spool/" + service + "/0/")
			if a.code != 503 || strings.Contains(a.body, "\n") {
				t.Errorf("%s: %d %q", service, a.code, a.body)
			}
			for _, r := range a.body {
				if unicode.IsControl(r) {
					t.Errorf("%s: %q", service, a.body)
				}
			}
		}
		for _, command := range [][]string{
			{"hastatus", "-p", d.addr},
			{"hastatus", "posted", "filed"},
			{"hashowdowned"},
			{"halist", "-p", d.addr},
			{"hastatus", "--json", "-p", d.addr},
			{"hastatus", "--json", "posted", "filed"},
			{"hashowdowned", "--json"},
			{"halist", "--json", "-p", d.addr},
		} {
			out, _ := d.run(command[0], command[1:]...) // exit 1: they are down
			if out == "" {
				t.Errorf("%v says nothing", command)
			}
			expectPlainText(t, command[0], out)
		}
		for _, path := range []string{"/status", "/recent", "/status/count", "/balancers", "/balancers?service=web"} {
			a := d.get(path)
			if !json.Valid([]byte(a.body)) || strings.ContainsAny(a.body, "<>") || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
				t.Errorf("%s: %s %s", path, a.header.Get("Content-Type"), a.body)
			}
			expectPlainText(t, path, a.body)
		}
		eventually(t, func() error {
			if log := d.out.String(); strings.Count(log, "forged") < 3 {
				return fmt.Errorf("not all of it is in the log")
			}
			return nil
		})
		log := d.out.String()
		expectPlainText(t, "the log", log)
		start := regexp.MustCompile(`^time=\S+ level=`)
		if format == "json" {
			start = regexp.MustCompile(`^\{"time":`)
		}
		for line := range strings.Lines(log) {
			if !start.MatchString(line) {
				t.Errorf("a line of the log is %q", line)
			}
		}
	}
}

// TestServiceHTML: what a service answers is passed on as it is, scripts included, so that hacheck's origin is worth
// nothing: no web page may change anything, which TestCrossSiteRequests shows.
func TestServiceHTML(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Location", "http://elsewhere.example/")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = io.WriteString(w, "<script>alert(1)</script>")
	})
	a := d.get(fmt.Sprintf("/http/web/%d/", web.port))
	for _, name := range []string{"Set-Cookie", "Location", "Access-Control-Allow-Origin"} {
		if v := a.header.Get(name); v != "" {
			t.Errorf("the service's %s is passed on: %s", name, v)
		}
	}
	if a.body != "<script>alert(1)</script>" {
		t.Errorf("got %q", a.body)
	}
}

// TestNosniff: every answer of every HTTP listener keeps browsers from guessing what a body is, whichever way the answer
// goes. The only answers without the header are those of net/http to what is not HTTP (a URL that it cannot parse, say), which no
// handler sees.
func TestNosniff(t *testing.T) {
	t.Parallel()
	service := startService(t, "127.0.0.1", 0, serveOK)
	own, port := freePort(t), freePort(t)
	d := startDaemon(t, fmt.Sprintf("services: {web: {checks: [{type: tcp, port: %d}], http_listen: \"127.0.0.1:%d\"}}\n", service.port, own))
	aggregate := "127.0.0.1:" + strconv.Itoa(port)
	start(t, bin(t, "hacheck"), "aggregate", "--listener", aggregate, "--port", strconv.Itoa(service.port), "--spool-root", d.spool).waitReady(t, aggregate)
	d.mustRun("hadown", "downed", "-r", "why")

	check := fmt.Sprintf("/http/web/%d/", service.port)
	var requests []string
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "DELETE", "TRACE"} {
		for _, path := range []string{check, check + "?twice", check + "?twice", "/spool/downed/0/", "/checks/web/0/", "/tcp/web/1", "/tcp/web/x", "/status", "/status/count", "/recent", "/recent?threshold=x", "/balancers", "/overview", "/metrics", "/", "/no/such", "//", "*"} {
			requests = append(requests, method+" "+path)
		}
	}
	for _, addr := range []string{d.addr, "127.0.0.1:" + strconv.Itoa(own), aggregate} {
		for _, request := range requests {
			method, _, _ := strings.Cut(request, " ")
			// The first kind of head is answered on the bare descriptor where it can be, the second by net/http.
			for _, rest := range []string{" HTTP/1.0\r\n\r\n", " HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n"} {
				a, err := exchangeRaw(addr, method, request+rest)
				if err != nil {
					t.Errorf("%s %s: %v", addr, request, err)
				} else if !slices.Contains(a.head, "X-Content-Type-Options: nosniff") {
					t.Errorf("%s %q: the answer has no X-Content-Type-Options: nosniff:\n%s", addr, request+rest, strings.Join(a.head, "\n"))
				}
			}
		}
	}
	// On a kept connection the second request takes the shortcut, and waits for its check there.
	c, err := dial(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for r := bufio.NewReader(c); len(requests) > 0 && strings.HasPrefix(requests[0], "GET "); requests = requests[1:] {
		if _, err := io.WriteString(c, requests[0]+" HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if got := resp.Header.Values("X-Content-Type-Options"); len(got) != 1 || got[0] != "nosniff" {
			t.Errorf("%s on a kept connection: X-Content-Type-Options %q", requests[0], got)
		}
	}
}

// TestCrossSiteRequests: a page in the browser of an operator, whose address may change overrides, may not.
func TestCrossSiteRequests(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "allow_remote_spool_changes: true\nremote_spool_token: s3cret-token\n")
	down := url.Values{"status": {"down"}, "reason": {"r"}}
	for name, headers := range map[string][]string{
		"another site":        {"Origin: http://evil.example"},
		"an old browser":      {"Origin: null"},
		"a rebound name":      {"Host: evil.example:3333", "Origin: http://evil.example:3333"},
		"our own origin":      {"Origin: " + d.url, "Sec-Fetch-Site: same-origin"},
		"no origin, a site":   {"Sec-Fetch-Site: cross-site"},
		"a page with a token": {"Origin: http://evil.example", "Authorization: Bearer s3cret-token"},
	} {
		if a := sendRequest(t, client, http.MethodPost, d.url+"/spool/web/0/", down, headers...); a.code != 403 || !strings.Contains(a.body, "web pages") {
			t.Errorf("%s: %d %s", name, a.code, a.body)
		}
	}
	// A preflight is no permission, and a GET, which a page may send, changes nothing.
	pre := sendRequest(t, client, http.MethodOptions, d.url+"/spool/web/0/", nil, "Origin: http://evil.example", "Access-Control-Request-Method: POST")
	for name := range pre.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("a preflight is answered with %s", name)
		}
	}
	d.get("/spool/web/0/?" + down.Encode())
	if list, err := os.ReadDir(d.spool); err != nil || len(list) != 0 {
		t.Errorf("something was written: %v %v", list, err)
	}
	if a := sendRequest(t, client, http.MethodPost, d.url+"/spool/web/0/", down); a.code != 200 {
		t.Errorf("a program: %d %s", a.code, a.body)
	}
}

// TestRemoteChanges: by HTTP nobody changes overrides unless the configuration says so, then who is named or shows the
// token, the whole token.
func TestRemoteChanges(t *testing.T) {
	t.Parallel()
	down := url.Values{"status": {"down"}, "reason": {"r"}}
	off := startDaemon(t, "remote_spool_token: s3cret-token\n")
	if a := sendRequest(t, client, http.MethodPost, off.url+"/spool/web/0/", down, "Authorization: Bearer s3cret-token"); a.code != 403 {
		t.Errorf("not enabled: %d %s", a.code, a.body)
	}
	d := startDaemon(t, "allow_remote_spool_changes: true\nremote_spool_allowed: [127.0.0.9]\nremote_spool_token: s3cret-token\n")
	for header, want := range map[string]int{
		"X-None: x":                           403,
		"Authorization: Bearer ":              403,
		"Authorization: Bearer s3cret-toke":   403,
		"Authorization: Bearer s3cret-token2": 403,
		"Authorization: Bearer S3CRET-TOKEN":  403,
		"Authorization: Basic s3cret-token":   403,
		"X-Forwarded-For: 127.0.0.9":          403,
		"X-Nerve-Check-IP: 127.0.0.9":         403,
		"Forwarded: for=127.0.0.9":            403,
		"Authorization: Bearer s3cret-token":  200,
	} {
		if a := sendRequest(t, clientAt(t, "127.0.0.3"), http.MethodPost, d.url+"/spool/web/0/", down, header); a.code != want || strings.Contains(a.body, "s3cret") {
			t.Errorf("%s: %d %s, want %d", header, a.code, a.body, want)
		}
	}
	if a := sendRequest(t, clientAt(t, "127.0.0.9"), http.MethodPost, d.url+"/spool/web/0/", url.Values{"status": {"up"}}); a.code != 200 {
		t.Errorf("who is named: %d %s", a.code, a.body)
	}
}

// TestFakeBalancer: a stranger who claims to be a balancer is another row, known by its own address; it takes none of
// the real one's words away.
func TestFakeBalancer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	state := "X-Haproxy-Server-State: UP; name=be/web; node=lb1; weight=1/2; scur=%s; qcur=0"
	sendRequest(t, clientAt(t, "127.0.0.1"), http.MethodGet, d.url+"/spool/web/0/", nil, fmt.Sprintf(state, "7/7"))
	sendRequest(t, clientAt(t, "127.0.0.3"), http.MethodGet, d.url+"/spool/web/0/", nil, fmt.Sprintf(state, "0/0"))
	var report struct {
		Balancers []struct {
			Address  string
			Sessions int
		}
	}
	if err := json.Unmarshal([]byte(d.get("/balancers?service=web").body), &report); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(report.Balancers), "[{127.0.0.1 7} {127.0.0.3 0}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestSpoolReadsNoOtherFile: whoever may write in the spool directory cannot have the daemon read what lies elsewhere.
func TestSpoolReadsNoOtherFile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	elsewhere := t.TempDir()
	secret := filepath.Join(elsewhere, "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(d.spool, name) }
	for name, to := range map[string]string{
		"absolute": secret, "environ": "/proc/self/environ", "device": "/dev/zero", "dir": elsewhere,
		"up": "../../" + filepath.Base(filepath.Dir(elsewhere)) + "/" + filepath.Base(elsewhere) + "/secret",
		"a":  "b", "b": "a", "deep": "sub/link",
	} {
		if err := os.Symlink(to, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(in("sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(in("sub"), "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(in("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"absolute", "environ", "device", "dir", "up", "a", "b", "deep", "fifo", "sub"} {
		if a := d.get("/spool/" + name + "/0/"); a.code != 200 || a.body != "" {
			t.Errorf("%s: %d %.200q", name, a.code, a.body)
		}
	}
	out, _ := d.run("hashowdowned")
	if strings.Contains(out+d.out.String(), "s3cret") {
		t.Errorf("shown:\n%s%s", out, d.out.String())
	}
}

// TestLocalUserChangesNoOverride: a user who is neither root nor hacheck's changes no override; a directory or a configuration that lets
// any user do so, or read passwords, is told of at the start.
func TestLocalUserChangesNoOverride(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	d.mustRun("hadown", "web", "-r", "why")
	for name, want := range map[string]os.FileMode{d.spool: 0o750, filepath.Join(d.spool, "web"): 0o644} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	// The command where anybody may run it, as somebody else; without root, as ourselves where we may not write.
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
	}
	command := filepath.Join(dir, "haup")
	if err := os.WriteFile(command, []byte(readFile(t, bin(t, "haup"))), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command, "--spool-root", d.spool, "web")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else {
		if err := os.Chmod(d.spool, 0o550); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(d.spool, 0o750) }()
	}
	if out, err := cmd.CombinedOutput(); exitCode(err) != 1 {
		t.Errorf("haup of another user: %v\n%s", err, out)
	}
	if a := d.get("/spool/web/0/"); a.code != 503 {
		t.Errorf("another user has lifted an override: %d", a.code)
	}

	conf := filepath.Join(dir, "hacheck.yaml")
	for _, c := range []struct {
		config      string
		mode, spool os.FileMode
		says        []string
	}{
		{"cache_time: 1\n", 0o644, 0o750, nil},
		{"mysql_password: s3cret\n", 0o640, 0o770, nil},
		{"mysql_password: s3cret\n", 0o644, 0o750, []string{"may read the passwords"}},
		{"services: {web: {checks: [{type: postgres, host: 127.0.0.1, database: a, username: a, password: s3cret}]}}\n", 0o644, 0o750, []string{"may read the passwords"}},
		{"cache_time: 1\n", 0o666, 0o777, []string{"may change the configuration", "may take services out"}},
	} {
		spool := filepath.Join(t.TempDir(), "spool")
		for _, err := range []error{os.WriteFile(conf, []byte(c.config), 0o600), os.Chmod(conf, c.mode), os.Mkdir(spool, 0o700), os.Chmod(spool, c.spool)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		port := strconv.Itoa(freePort(t))
		p := start(t, bin(t, "hacheck"), "-B", "127.0.0.1", "-p", port, "--spool-root", spool, "-c", conf)
		p.waitReady(t, "127.0.0.1:"+port)
		if _, err := get("http://127.0.0.1:" + port + "/status"); err != nil { // it has started by then
			t.Fatal(err)
		}
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		log := p.out.String()
		if n := strings.Count(log, "every user of this machine"); n != len(c.says) || strings.Contains(log, "s3cret") {
			t.Errorf("%+v:\n%s", c, log)
		}
		for _, say := range c.says {
			if !strings.Contains(log, say) {
				t.Errorf("%+v: the log does not say %q:\n%s", c, say, log)
			}
		}
	}
}

// TestSecretsAreShownNowhere: not in the log, not on a page, not by a command, not where other users of the machine look.
func TestSecretsAreShownNowhere(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	d := startDaemon(t, fmt.Sprintf(`mysql_username: u
mysql_password: s3cret-mysql
redis_password: s3cret-redis
remote_spool_token: s3cret-token
allow_remote_spool_changes: true
remote_spool_allowed: []
metrics_per_service: true
services:
  web:
    checks:
      - {type: postgres, host: 127.0.0.1, port: %[1]d, database: db, username: u, password: s3cret-pg}
      - {type: http, url: "http://u:s3cret-url@127.0.0.1:%[1]d/", params: {key: s3cret-param}, headers: {X-Key: s3cret-header}}
      - {type: script, command: [/bin/false, s3cret-argument]}
`, port))
	var shown strings.Builder
	for _, path := range []string{"/mysql/web/%d/", "/redis/web/%d/", "/checks/web/0/?%d", "/postgres/web/%d/", "/status?%d", "/recent?x=%d", "/status/count?%d", "/balancers?%d", "/metrics?%d", "/?%d"} {
		a := d.get(fmt.Sprintf(path, port))
		fmt.Fprintln(&shown, a.code, a.header, a.body)
	}
	a := sendRequest(t, client, http.MethodPost, d.url+"/spool/web/0/", url.Values{"status": {"up"}}, "Authorization: Bearer wrong")
	fmt.Fprintln(&shown, a.code, a.header, a.body)
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"hastatus", "-p", d.addr}, {"halist", "-p", d.addr}} {
		shown.WriteString(d.mustRun(args[0], args[1:]...))
	}
	for _, file := range []string{"environ", "cmdline", "status"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", d.cmd.Process.Pid, file))
		if err != nil && !errors.Is(err, fs.ErrPermission) { // the environment is for root alone
			t.Error(err)
		}
		shown.Write(text)
	}
	eventually(t, func() error {
		if !strings.Contains(d.out.String(), "reloaded the configuration") {
			return fmt.Errorf("not reloaded")
		}
		return nil
	})
	shown.WriteString(d.out.String())
	if i := strings.Index(shown.String(), "s3cret"); i >= 0 {
		t.Errorf("a secret is shown: ...%s", shown.String()[max(0, i-300):min(shown.Len(), i+40)])
	}
}

// TestPasswordGoesToAnyLocalPort: a check with a login logs in wherever the URL says on this machine. It is a weakness, which
// docs/security.md admits; other hosts do not get it.
func TestPasswordGoesToAnyLocalPort(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "redis_password: s3cret\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	heard := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 1000)
		_, _ = c.Read(b)
		_, _ = io.WriteString(c, "-NOAUTH Authentication required.\r\n")
		n, _ := c.Read(b)
		heard <- string(b[:n])
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	if a := d.get("/redis/web/" + port + "/"); a.code == 200 || strings.Contains(a.body, "s3cret") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if got := <-heard; !strings.Contains(got, "s3cret") {
		t.Errorf("the port heard %q; if that is all, docs/security.md may be better than it says", got)
	}
	if a := sendRequest(t, client, http.MethodGet, d.url+"/redis/web/"+port+"/", nil, "X-Nerve-Check-IP: 192.0.2.1"); a.code != 403 {
		t.Errorf("another host: %d %s", a.code, a.body)
	}
}

// TestSecurityPage: every test that docs/security.md names is there, and every test of this file is named by it.
func TestSecurityPage(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	files, err := filepath.Glob("../internal/*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob("../internal/*/*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	var ours []string
	for _, file := range slices.Concat(files, parts, here) {
		for _, m := range function.FindAllStringSubmatch(readFile(t, file), -1) {
			tests[m[1]] = true
			if filepath.Base(file) == "security_test.go" {
				ours = append(ours, m[1])
			}
		}
	}
	page := readFile(t, "../docs/security.md")
	for _, name := range regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(page, -1) {
		if !tests[name] {
			t.Errorf("docs/security.md names %s, and there is no such test", name)
		}
	}
	for _, name := range ours {
		if name != "TestSecurityPage" && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/security.md does not name %s", name)
		}
	}
}

// TestHeadersFollowRedirects: the configured headers of a check go along with a redirect to another host, except for
// the login. docs/security.md says so.
func TestHeadersFollowRedirects(t *testing.T) {
	t.Parallel()
	heard := make(chan http.Header, 1)
	other := startService(t, "127.0.0.2", 0, func(_ http.ResponseWriter, r *http.Request) { heard <- r.Header })
	first := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("http://127.0.0.2:%d/", other.port), http.StatusFound)
	})
	d := startDaemon(t, fmt.Sprintf(`services:
  web:
    checks:
      - type: http
        url: http://127.0.0.1:%d/
        allow_redirects: true
        headers: {X-Api-Key: s3cret, Authorization: Bearer s3cret, Cookie: session=s3cret}
`, first.port))
	if a := d.get("/checks/web/0/"); a.code != 200 {
		t.Fatalf("%d %s", a.code, a.body)
	}
	got := <-heard
	if got.Get("X-Api-Key") != "s3cret" {
		t.Errorf("X-Api-Key is %q at the other host; if it is not sent, docs/security.md may be better than it says", got.Get("X-Api-Key"))
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if got.Get(name) != "" {
			t.Errorf("%s goes along to another host: %q", name, got.Get(name))
		}
	}
}
