package test

import (
	"bufio"
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
	"testing"
	"unicode"
)

// controlText forges log lines, has terminal control sequences and changes the direction of writing.
const controlText = "a\ntime=2020-01-01 level=INFO msg=forged\r\x1b[2J\x1b]0;owned\x07\u009b31m\u202eback\u2028\u00ad\u061c\u200b\u200d\u200f\u2060\ufeff\U000e0041<script>alert(1)</script>\"'`"

// expectPlainText fails the test if s has a character that a terminal obeys, other than a line end or a tab.
func expectPlainText(t *testing.T, what, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Errorf("%s has %U: %q", what, r, s)
			return
		}
	}
}

// TestForgedText: text of clients, services and files forges no log line and controls no terminal, in any output.
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
		for _, protocol := range []string{"http", "redis", "smtp", "memcached", "haproxy", "tls", "grpc", "ldap"} {
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

// TestServiceHTML: hacheck passes the body of a service on unchanged, with its scripts. A script in hacheck's origin
// can change nothing, which TestCrossSiteRequests shows.
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

// TestNosniff: every answer of every HTTP listener has X-Content-Type-Options: nosniff. The only exceptions are
// answers of net/http to invalid requests, which reach no handler.
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
			// The fast path answers the first kind of head if it can, and net/http the second.
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
	// On a keep-alive connection the fast path takes the second request and waits for its check.
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

// TestCrossSiteRequests: a web page in the browser of an operator cannot change overrides, although the operator's
// address is allowed to.
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
	// A preflight gets no permission. A page can send a GET, which changes nothing.
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
