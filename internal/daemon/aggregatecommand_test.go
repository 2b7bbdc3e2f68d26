package daemon

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// launchSubcommand starts a subcommand; log returns its stdout and stderr.
func launchSubcommand(t *testing.T, args ...string) *process {
	t.Helper()
	return launch(t, func(c *exec.Cmd) {
		c.Args = append([]string{c.Args[0]}, args...)
		c.Stdout = c.Stderr
	})
}

func TestAggregate(t *testing.T) {
	dir := t.TempDir()
	flag, spoolRoot := filepath.Join(dir, "it is healthy"), filepath.Join(dir, "spool")
	if err := os.Mkdir(spoolRoot, 0o750); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := freeAddr(t)
	p := launchSubcommand(t, "aggregate", "--listener", addr, "--port", port(t, ln.Addr().String()),
		"--script", "test -e '"+flag+"'", "--service", "web", "--spool-root", spoolRoot)
	p.waitForLog(regexp.MustCompile(`hacheck aggregate answers`))
	if code, body := fetch(t, addr, ""); code != 504 || !strings.HasPrefix(body, "At least one health check failed\nscript:test: ") {
		t.Errorf("%d %q", code, body)
	}
	writeFile(t, flag, "")
	if code, body := fetch(t, addr, ""); code != 200 || body != "OK" {
		t.Errorf("%d %q: nothing may be kept", code, body)
	}
	writeFile(t, filepath.Join(spoolRoot, "all"), "")
	if code, body := fetch(t, addr, ""); code != 504 || body != "Service all in down state" {
		t.Errorf("%d %q", code, body)
	}
	if err := os.Rename(filepath.Join(spoolRoot, "all"), filepath.Join(spoolRoot, "web")); err != nil {
		t.Fatal(err)
	}
	if code, body := fetch(t, addr, ""); code != 504 || body != "Service web in down state" {
		t.Errorf("%d %q", code, body)
	}
	if err := os.Remove(filepath.Join(spoolRoot, "web")); err != nil {
		t.Fatal(err)
	}
	if code, _ := fetch(t, addr, ""); code != 200 {
		t.Errorf("%d after the override was lifted", code)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := fetch(t, addr, ""); code != 504 || !strings.Contains(body, "tcp:127.0.0.1:"+port(t, ln.Addr().String())) {
		t.Errorf("%d %q", code, body)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

func TestAggregateUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "at least one --port, --http or --script"},
		{[]string{"--port", "80,http"}, "--port must be from 1 to 65535, or a host and such a port"},
		{[]string{"--port", "db.example:0"}, "--port must be from 1 to 65535"},
		{[]string{"--port", "80,"}, "--port must be from 1 to 65535"},
		{[]string{"--http", "ftp://h/"}, "--http url: expected a URL that begins with http:// or https://"},
		{[]string{"--http", "http://a/", "--http", "http://b/", "--verify-payload", "x"}, "--verify-payload must be given once for each --http, got 1 for 2"},
		{[]string{"--http", "http://a/", "--verify-payload", "("}, "--http expect_body: expected a regular expression"},
		{[]string{"--port", "1", "--tcp-dial-timeout", "0"}, "--tcp-dial-timeout must be from 1 to 3600 seconds"},
		{[]string{"--port", "1", "--http-read-timeout", "soon"}, "--http-read-timeout"},
		{[]string{"--port", "1", "--http-write-timeout", "5"}, "--http-write-timeout must be longer than the longest check, which may take 5s, got 5s"},
		{[]string{"--port", "0"}, "--port must be from 1 to 65535"},
		{[]string{"--port", "http"}, "--port must be from 1 to 65535"},
		{[]string{"--script", "a 'b"}, "--script"},
		{[]string{"--port", "1", "--script-timeout", "0"}, "--script-timeout"},
		{[]string{"--port", "1", "--log-level", "loud"}, "--log-level"},
		{[]string{"--port", "1", "--service", "a/b"}, "--service"},
		{[]string{"--port", "1", "stray"}, "stray"},
		{[]string{"--listen", "x"}, "--listener"},
		{[]string{"--port", "1", "--listener", ""}, "--listener must be an address and a port"},
		{[]string{"--port", "1", "--listener", "127.0.0.1"}, "--listener must be"},
		{[]string{"--port", "1", "--listener", "127.0.0.1:"}, "--listener must be"},
		{[]string{"--port", "1", "--listener", "127.0.0.1:65536"}, "--listener must be"},
	} {
		p := launch(t, func(cmd *exec.Cmd) { cmd.Args = append([]string{cmd.Args[0], "aggregate"}, c.args...) })
		if code := p.exit(); code != 2 || !strings.Contains(p.log(), c.says) {
			t.Errorf("%q: exit %d, %s; want 2 and %q", c.args, code, p.log(), c.says)
		}
	}
}

// TestAggregateURLs: the options of health-checker's pull requests and forks.
func TestAggregateURLs(t *testing.T) {
	t.Parallel()
	var body atomic.Pointer[string]
	ready := `{"status": "READY"}`
	body.Store(&ready)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, *body.Load())
	}))
	defer secure.Close()
	moved := httptest.NewServer(http.RedirectHandler(secure.URL, http.StatusFound))
	defer moved.Close()
	host := strings.TrimPrefix(moved.URL, "http://")
	addr := freeAddr(t)
	start := func(args ...string) *process {
		p := launchSubcommand(t, append([]string{
			"aggregate", "--listener", addr, "--spool-root", filepath.Join(t.TempDir(), "none"),
			"--port", host + "," + port(t, secure.Listener.Addr().String()), "--http", secure.URL, "--http", moved.URL,
			"--verify-payload", `"status":\s*"READY"`, "--verify-payload", "READY|BUSY",
			"--tcp-dial-timeout", "3", "--http-dial-timeout", "3", "--http-read-timeout", "4", "--http-write-timeout", "9", "--http-idle-timeout", "15", "--log-level", "INFO",
		}, args...)...)
		p.waitForLog(regexp.MustCompile(`hacheck aggregate answers`))
		return p
	}
	p := start("--detailed-status")
	code, text := fetch(t, addr, "")
	if !regexp.MustCompile(`(?s)^\{\n  "status": "At least one health check failed",\n  "elapsed_time": "\d+\.\d{3}s",\n  "errors": \[\n    "http:https:.*certificate.*\n    "http:http:.*certificate.*\]\n\}\n$`).MatchString(text) || code != 504 {
		t.Errorf("not trusted: %d %s", code, text)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	start("--detailed-status", "--allow-insecure-tls")
	if code, text = fetch(t, addr, ""); code != 200 || !regexp.MustCompile(`^\{\n  "status": "OK",\n  "elapsed_time": "\d+\.\d{3}s"\n\}\n$`).MatchString(text) {
		t.Errorf("%d %s", code, text)
	}
	busy := "BUSY"
	body.Store(&busy)
	if code, text = fetch(t, addr, ""); code != 504 || strings.Count(text, "does not match expect_body") != 1 {
		t.Errorf("another body: %d %s", code, text)
	}
}

// TestAggregateStop: connections that were accepted before the signal are answered, also if their request comes after
// it. A silent connection does not delay the end.
func TestAggregateStop(t *testing.T) {
	t.Parallel()
	script, began, release := slowScript(t)
	addr := freeAddr(t)
	p := launchSubcommand(t, "aggregate", "--listener", addr, "--script", script, "--script-timeout", "60", "--spool-root", filepath.Join(t.TempDir(), "none"))
	p.waitForLog(regexp.MustCompile(`hacheck aggregate answers`))
	answered := askAny(t, addr)
	waitUntil(t, "a check is under way", func() bool { _, err := os.Stat(began); return err == nil })
	late := dial(t, addr)
	dial(t, addr) // and sends nothing
	if _, err := io.WriteString(late, "GET / HTT"); err != nil {
		t.Fatal(err)
	}
	// A later request without a check has been answered, so the others have been accepted.
	last := dial(t, addr)
	if _, err := io.WriteString(last, "GET /%zz HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(last); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Fatalf("%q, %v", got, err)
	}
	p.signal(syscall.SIGTERM)
	p.waitForLog(regexp.MustCompile(`stopping; requests in flight`))
	waitUntil(t, "it accepts no more", func() bool { return !isListening(addr) })
	if _, err := io.WriteString(late, "P/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, release, "")
	_ = late.SetDeadline(time.Now().Add(testTimeout))
	if got, err := io.ReadAll(late); err != nil || !strings.HasPrefix(string(got), "HTTP/1.0 200 OK\r\n") {
		t.Errorf("the connection accepted before the signal: %q, %v", got, err)
	}
	if got := <-answered; got != "200 OK" {
		t.Errorf("the request in flight is answered with %q", got)
	}
	ended := time.Now()
	p.wantExit(0)
	if took := time.Since(ended); took > 4*time.Second {
		t.Errorf("the silent connection kept it for %v", took)
	}
}
