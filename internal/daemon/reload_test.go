package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReload(t *testing.T) {
	seen := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("X-One") + r.Header.Get("X-Two")
	}))
	defer s.Close()
	path := "/http/web/" + port(t, s.Listener.Addr().String()) + "/"
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "service_name_header: X-One\ncache_time: 0\n")
	p := startDaemon(t, "-c", conf)
	header := func() string {
		t.Helper()
		p.mustGet(path, 200)
		return <-seen
	}
	if got := header(); got != "web" {
		t.Fatalf("the service saw %q", got)
	}

	// A wrong file changes nothing and causes one log line.
	writeFile(t, conf, "service_name_header: X-Two\ncache_time: x\nmysql_password: [hunter2]\n")
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*hacheck\.yaml:2: cache_time: .*; .*hacheck\.yaml:3: mysql_password: `))
	writeFile(t, conf, "service_name_header: X-Two\nlog_path: "+filepath.Join(conf, "log")+"\n") // below a file
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`level=ERROR .*open log_path`))
	writeFile(t, conf, "service_name_header: X-Two\nrlimit_nofile: 1073741824\n")
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`level=ERROR .*above the hard limit`))
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`level=ERROR .*hacheck\.yaml: no such file`))
	if n := strings.Count(p.log(), "level=ERROR"); n != 4 {
		t.Errorf("%d lines for 4 failed reloads", n)
	}
	if strings.Contains(p.log(), "hunter2") {
		t.Errorf("a password is in the log:\n%s", p.log())
	}
	if got := header(); got != "web" {
		t.Fatalf("the service saw %q", got)
	}
	if code, _, err := p.get(path); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	<-seen

	// A correct file is in force. An unknown key is a warning. The log goes to the new file.
	log := filepath.Join(t.TempDir(), "log")
	writeFile(t, conf, "service_name_header: X-Two\ncache_time: 0\nbogus: 1\nlog_path: "+log+"\nlog_format: json\n")
	p.signal(syscall.SIGHUP)
	waitForFile(t, log, `"msg":"reloaded the configuration"`)
	waitForFile(t, log, `bogus: unknown key`)
	writeFile(t, conf, "service_name_header: X-Two\n")
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`level=INFO msg="reloaded the configuration"`))
	if got := header(); got != "web" {
		t.Fatalf("the service saw %q", got)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestReloadUnderLoad: no request is lost during many reloads, and a check of the old configuration is answered.
func TestReloadUnderLoad(t *testing.T) {
	service, asked, release := slowService(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "max_clients: 3\n")
	p := startDaemon(t, "-c", conf)
	slow := p.getAsync("/http/slow/" + service + "/")
	<-asked
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 2)
	for range cap(failed) {
		go func() {
			for ctx.Err() == nil {
				if code, body, err := p.get("/spool/web/0/"); err != nil || code != 200 {
					failed <- fmt.Errorf("%d %q %w", code, body, err)
					return
				}
			}
			failed <- nil
		}()
	}
	for i := range 20 {
		p.signal(syscall.SIGHUP)
		waitUntil(t, "it was reloaded", func() bool {
			return strings.Count(p.log(), "reloaded the configuration") > i
		})
	}
	cancel()
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	// The daemon waits for checks of every configuration before it ends.
	p.signal(syscall.SIGTERM)
	p.waitForLog(regexp.MustCompile(`msg="stopping`))
	close(release)
	if a := <-slow; a.err != nil || a.code != 200 {
		t.Errorf("the check from before the reloads got %d %q, %v", a.code, a.body, a.err)
	}
	p.wantExit(0)
}

func TestReloadWithoutFile(t *testing.T) {
	p := startDaemon(t)
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`reopened the log; there is no configuration file to reload`))
	p.mustGet("/spool/web/0/", 200)
}

// TestReloadDuringRequests: a reload closes an endpoint with a request in flight. New endpoints open, overrides are
// obeyed, and the request is answered, also if the daemon stops.
func TestReloadDuringRequests(t *testing.T) {
	t.Parallel()
	script, began, release := slowScript(t)
	dir := t.TempDir()
	spoolRoot, conf := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml")
	old, moved, beacon := freeAddr(t), freeAddr(t), freeAddr(t)
	config := func(addr string) string {
		return fmt.Sprintf(`
healthcheck_timeout: 60
services:
  slow:
    checks: [{type: script, command: %q, timeout: 60}]
    http_listen: %s
  web:
    checks: [{type: script, command: "true"}]
    beacon_listen: %s
    interval: 3600
`, script, addr, beacon)
	}
	writeFile(t, conf, config(old))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot)
	waitUntil(t, "the beacon is open", func() bool { return readBeacon(beacon) == "OK\n" })
	answered := askAny(t, old)
	waitUntil(t, "a check is under way", func() bool { _, err := os.Stat(began); return err == nil })
	writeFile(t, conf, config(moved))
	p.signal(syscall.SIGHUP)
	waitUntil(t, "the new endpoint is open", func() bool { return isListening(moved) })
	waitUntil(t, "the old endpoint is closed", func() bool { return !isListening(old) })
	writeFile(t, filepath.Join(spoolRoot, "web"), "")
	waitUntil(t, "the beacon obeys", func() bool { return readBeacon(beacon) == "" })
	p.signal(syscall.SIGTERM)
	p.waitForLog(regexp.MustCompile(`stopping; requests in flight`))
	writeFile(t, release, "")
	if got := <-answered; got != "200 OK" {
		t.Errorf("the request in flight is answered with %q", got)
	}
	p.wantExit(0)
}

// TestReloadOfBeacon: a beacon stays open when its interval changes, although the first check since then has not ended.
// It closes when its port belongs to another service, which no check has found healthy.
func TestReloadOfBeacon(t *testing.T) {
	t.Parallel()
	dir, beacon := t.TempDir(), freeAddr(t)
	conf, hang := filepath.Join(dir, "hacheck.yaml"), filepath.Join(dir, "hang")
	config := func(service string, interval int) string {
		return fmt.Sprintf(`
healthcheck_timeout: 60
services:
  %s:
    checks: [{type: script, command: [sh, -c, "[ ! -e %s ] || exec sleep 60"], timeout: 60}]
    beacon_listen: %s
    interval: %d
`, service, hang, beacon, interval)
	}
	writeFile(t, conf, config("web", 3600))
	p := startDaemon(t, "-c", conf)
	waitUntil(t, "the beacon is open", func() bool { return readBeacon(beacon) == "OK\n" })
	writeFile(t, hang, "")
	writeFile(t, conf, config("web", 1800))
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`reloaded the configuration`))
	if got := readBeacon(beacon); got != "OK\n" {
		t.Errorf("after the reload the beacon says %q", got)
	}
	writeFile(t, conf, config("api", 1800))
	p.signal(syscall.SIGHUP)
	waitUntil(t, "the second reload", func() bool { return strings.Count(p.log(), "reloaded the configuration") == 2 })
	if got := readBeacon(beacon); got != "" {
		t.Errorf("the beacon of another service says %q before its first check has ended", got)
	}
}

// TestWriteDeadline: an answer may take as long as a reloaded healthcheck_timeout, although the server has the limit of
// its start.
func TestWriteDeadline(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewUnstartedServer(nil)
	s.Config.WriteTimeout = time.Millisecond
	p := &writeDeadlineHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "ok")
	})}
	s.Config.Handler = p
	s.Start()
	defer s.Close()
	get := func() (string, error) {
		r, err := client.Get(s.URL)
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	if body, err := get(); err == nil {
		t.Fatalf("with the limit of the start it got %q", body)
	}
	p.setCheckTimeout(time.Minute, s.Config)
	if body, err := get(); err != nil || body != "ok" {
		t.Errorf("%q, %v", body, err)
	}
	s.Config.WriteTimeout = time.Hour
	if p.setCheckTimeout(time.Minute, s.Config); p.limit.Load() != 0 {
		t.Error("the server's own limit is long enough")
	}
}
