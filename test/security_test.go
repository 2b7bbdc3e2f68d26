package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests in security_*_test.go show what docs/security.md says: what a client, a local user, a service, a spool file,
// a balancer and a web page can do, and what they cannot do. TestSecurityPage compares the page with the tests.

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

// TestLongURLsUseLittleMemory: a client that requests a new long URL each time fills neither the memory nor the log.
func TestLongURLsUseLittleMemory(t *testing.T) {
	t.Parallel()
	const n = 1500
	d := startDaemon(t, "cache_max_bytes: 1000000\n")
	before := d.rss()
	attacker := clientAt(t, "127.0.0.3")
	pad := strings.Repeat("x", 60_000)
	for i := range n {
		sendRequest(t, attacker, http.MethodGet, fmt.Sprintf("%s/http/web/1/%d%s", d.url, i, pad), nil)
	}
	if grown := d.rss() - before; grown > memoryTolerance() {
		t.Errorf("%d URLs of 60 kB have the daemon grow by %d MB", n, grown>>20)
	}
	log := d.out.String()
	if lines := strings.Count(log, "\n"); lines > 700 || len(log) > 700*700 {
		t.Errorf("%d URLs of 60 kB make %d lines of log, %d bytes", n, lines, len(log))
	}
}

// TestRecursiveURLUsesFewSlots: a URL that makes hacheck check itself again and again takes few slots and little
// time.
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

// TestConnectionsOfOneClientAreLimited: one address cannot hold all descriptors, and other clients still get answers.
func TestConnectionsOfOneClientAreLimited(t *testing.T) {
	t.Parallel()
	// Two listeners share the descriptors.
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
	// The daemon writes its log after the answers.
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

// TestFullCacheAnswersRight: with a full cache, answers are still right and overrides act at once.
func TestFullCacheAnswersRight(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "cache_max_entries: 50\ncache_max_bytes: 1000000\n")
	large := strings.Repeat("x", 64<<10)
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, large) })
	small := startService(t, "127.0.0.1", 0, serveOK)
	attacker := clientAt(t, "127.0.0.3")
	for i := range 100 {
		sendRequest(t, attacker, http.MethodGet, fmt.Sprintf("%s/http/x/%d/?%d", d.url, web.port, i), nil)
		sendRequest(t, attacker, http.MethodGet, fmt.Sprintf("%s/http/x/%d/?%d", d.url, small.port, i), nil)
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

// TestClientReachesLocalPorts: any client can make hacheck check a port of this machine. That is its purpose, and the
// reason to protect its port with a firewall. TestNetns shows that hacheck dials no other host.
func TestClientReachesLocalPorts(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	private := startService(t, "127.0.0.1", 0, serveOK)
	attacker := clientAt(t, "127.0.0.3")
	for path, want := range map[string]int{
		fmt.Sprintf("/http/x/%d/admin", private.port): 200,
		fmt.Sprintf("/tcp/x/%d/", private.port):       200,
		fmt.Sprintf("/tcp/x/%d/", freePort(t)):        503,
	} {
		if a := sendRequest(t, attacker, http.MethodGet, d.url+path, nil); a.code != want {
			t.Errorf("%s: %d %s, want %d", path, a.code, a.body, want)
		}
	}
	if a := sendRequest(t, attacker, http.MethodGet, d.url+"/tcp/x/80/", nil, "X-Nerve-Check-IP: 192.0.2.1"); a.code != 403 {
		t.Errorf("another host: %d %s, want 403", a.code, a.body)
	}
}

// TestRequestNamesNoCommand: only the configuration names scripts. A URL only selects a service.
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
		got, _ := io.ReadAll(conn) // until the connection closes or is reset
		conn.Close()
		if answers := bytes.Count(got, []byte("HTTP/1.1 ")); answers > 1 {
			t.Errorf("%s: %d answers:\n%s", name, answers, got)
		}
	}
	if a := d.get("/recent"); strings.Contains(a.body, "smuggled") {
		t.Errorf("the request inside was answered: %s", a.body)
	}

	// The service reads one request, with any URL and any forwarded headers.
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

// TestRemoteChanges: HTTP requests change overrides only if the configuration allows it, for the listed clients or
// with the complete token.
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

// TestFakeBalancer: a client that pretends to be a balancer is a row of its own, under its own address. The row of
// the real balancer does not change.
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

// TestSecurityPage: every test that docs/security.md names exists, and the page names every test of
// security_*_test.go.
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
			if strings.HasPrefix(filepath.Base(file), "security_") {
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
