package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/balancer"
)

// TestServiceEndpoints: one service at http_listen, beacon_listen and its check URL, and overrides that apply to all.
func TestServiceEndpoints(t *testing.T) {
	dir := t.TempDir()
	flag, spoolRoot, conf := filepath.Join(dir, "healthy"), filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml")
	httpAddr, beaconAddr, other := freeAddr(t), freeAddr(t), freeAddr(t)
	config := func(httpAddr string, code int) string {
		return fmt.Sprintf(`
cache_time: 0
services:
  web:
    checks:
      - {type: script, command: [test, -e, %q]}
    http_listen: %s
    failure_code: %d
    beacon_listen: %s
    interval: 0.1
`, flag, httpAddr, code, beaconAddr)
	}
	writeFile(t, conf, config(httpAddr, 500))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot)
	state := func(what string, code int, body, beacon string) {
		t.Helper()
		waitUntil(t, what, func() bool {
			c1, b1 := fetch(t, httpAddr, "")
			c2, b2, err := p.get("/checks/web/0/")
			want2 := 503
			if code == 200 {
				want2 = 200
			}
			return c1 == code && strings.HasPrefix(b1, body) && err == nil && c2 == want2 && b2 != "" && readBeacon(beaconAddr) == beacon
		})
	}
	state("down at first", 500, "At least one health check failed\nscript:test: ", "")
	writeFile(t, flag, "")
	state("up", 200, "OK", "OK\n")
	if code, body := fetch(t, httpAddr, "application/json"); code != 200 || !strings.Contains(body, `"healthy":true`) || !strings.Contains(body, `"name":"script:test"`) {
		t.Errorf("JSON: %d %s", code, body)
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+p.addrs[0]+"/checks/web/0/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), `{"healthy":true,"checks":[{"name":"script:test"`) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		t.Errorf("JSON of /checks: %s %s", resp.Header.Get("Content-Type"), b)
	}
	writeFile(t, filepath.Join(spoolRoot, "web"), `{"reason": "kernel", "expiration": null, "creation": 1500000000.5}`)
	state("downed", 500, "Service web in down state since 1500000000.500000: kernel", "")
	if err := os.Remove(filepath.Join(spoolRoot, "web")); err != nil {
		t.Fatal(err)
	}
	state("lifted", 200, "OK", "OK\n")

	// A reload moves one endpoint; the others stay.
	writeFile(t, conf, config(other, 599))
	p.signal(syscall.SIGHUP)
	waitUntil(t, "the new listener answers", func() bool { c, _ := fetch(t, other, ""); return c == 200 })
	waitUntil(t, "the old one is closed", func() bool { c, _ := fetch(t, httpAddr, ""); return c == 0 })
	if readBeacon(beaconAddr) != "OK\n" {
		t.Error("the beacon did not stay open")
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the new failure code", func() bool { c, _ := fetch(t, other, ""); return c == 599 })

	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	if readBeacon(beaconAddr) != "" {
		t.Error("the beacon is open although nobody looks any more")
	}
}

// TestFailedReloadKeepsEndpoints: if a listener cannot be opened, every endpoint is as before, also those that were
// closed because a new one needed their port.
func TestFailedReloadKeepsEndpoints(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	taken, kept, dropped, agent := listenTCP(t), freeAddr(t), freeAddr(t), freeAddr(t)
	_, droppedPort, _ := net.SplitHostPort(dropped)
	_, agentPort, _ := net.SplitHostPort(agent)
	config := func(code int, rest string) string {
		return fmt.Sprintf("cache_time: 0\nservices:\n  web: {checks: [{type: script, command: 'false'}], http_listen: %q, failure_code: %d}\n%s", kept, code, rest)
	}
	writeFile(t, conf, config(500, fmt.Sprintf("  old: {checks: [{type: script, command: 'false'}], http_listen: %q, agent_listen: %q, failure_code: 501}\n", dropped, agent)))
	p := startDaemon(t, "-c", conf)
	answers := func(addr string, want int) {
		t.Helper()
		if code, body := fetch(t, addr, ""); code != want {
			t.Errorf("%s answers %d %q, want %d", addr, code, body, want)
		}
	}
	agentSpeaks := func(addr string) {
		t.Helper()
		if got := askAgent(addr, "\n"); got != "up ready" {
			t.Errorf("the agent says %q", got)
		}
	}
	for i, rest := range []string{
		fmt.Sprintf("  new: {checks: [{type: script, command: 'true'}], http_listen: %q}\n", taken.Addr()),
		fmt.Sprintf("  new: {checks: [{type: script, command: 'true'}], http_listen: '0.0.0.0:%s', agent_listen: '0.0.0.0:%s', beacon_listen: %q}\n  too: {agent_listen: %q}\n",
			droppedPort, agentPort, freeAddr(t), taken.Addr()),
	} {
		writeFile(t, conf, config(599, rest))
		p.signal(syscall.SIGHUP)
		waitUntil(t, "the reload has failed", func() bool {
			return len(regexp.MustCompile(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*service (new|too): (http|agent)_listen: listen on 127\.0\.0\.1:\d+: address already in use; is another hacheck running\?`).FindAllString(p.log(), -1)) == i+1
		})
		answers(kept, 500)
		answers(dropped, 501)
		agentSpeaks(agent)
	}
	if n := strings.Count(p.log(), "level=ERROR"); n != 2 {
		t.Errorf("%d errors for 2 reloads", n)
	}
	// The same ports on other addresses and with other kinds of endpoints.
	writeFile(t, conf, config(599, fmt.Sprintf("  new: {checks: [{type: script, command: 'false'}], http_listen: '0.0.0.0:%s', agent_listen: '0.0.0.0:%s', failure_code: 502}\n", agentPort, droppedPort)))
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`msg="reloaded the configuration"`))
	answers(kept, 599)
	answers(agent, 502)
	agentSpeaks(dropped)
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestReloadKeepsEndpointsOpen: a reload that changes the service and the answers of a listener refuses no connection.
func TestReloadKeepsEndpointsOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spoolRoot, conf := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml")
	addr, agent, beacon := freeAddr(t), freeAddr(t), freeAddr(t)
	config := func(name string, code int) string {
		return fmt.Sprintf("services: {%s: {checks: [{type: script, command: 'true'}], http_listen: %q, failure_code: %d, agent_listen: %q, beacon_listen: %q, interval: 3600}}\n", name, addr, code, agent, beacon)
	}
	writeFile(t, conf, config("red", 500))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot)
	writeFile(t, filepath.Join(spoolRoot, "red"), "red")
	writeFile(t, filepath.Join(spoolRoot, "blue"), "blue")
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if code, body := fetch(t, addr, ""); code != 500 && code != 501 {
				ended <- fmt.Errorf("the listener answers %d %s", code, body)
				return
			}
			if said := askAgent(agent, "\n"); said != "ready down #red" && said != "ready down #blue" {
				ended <- fmt.Errorf("the agent says %q", said)
				return
			}
		}
	}()
	for i := range 20 {
		name := []string{"blue", "red"}[i%2]
		writeFile(t, conf, config(name, 500+(i+1)%2))
		p.signal(syscall.SIGHUP)
		waitUntil(t, "it was reloaded", func() bool { return strings.Count(p.log(), "reloaded the configuration") > i })
		if code, body := fetch(t, addr, ""); code != 500+(i+1)%2 || !strings.HasPrefix(body, "Service "+name) {
			t.Errorf("after the reload: %d %s", code, body)
		}
		if got := askAgent(agent, "\n"); got != "ready down #"+name {
			t.Errorf("after the reload the agent says %q", got)
		}
	}
	close(end)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if readBeacon(beacon) != "" {
		t.Error("the beacon of a service that is down is open")
	}
	if err := os.Remove(filepath.Join(spoolRoot, "red")); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the beacon is open", func() bool { return readBeacon(beacon) == "OK\n" })
	// Now it belongs to a service that is down. The next check would be in an hour.
	writeFile(t, conf, config("blue", 500))
	p.signal(syscall.SIGHUP)
	waitUntil(t, "the beacon is closed", func() bool { return readBeacon(beacon) == "" })
}

// TestServiceEndpointsIgnoreNoCheckSpool: with -S, http_listen and beacon_listen still obey overrides.
func TestServiceEndpointsIgnoreNoCheckSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spoolRoot, conf, addr := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("cache_time: 0\nservices:\n  web:\n    checks:\n      - {type: script, command: [\"true\"]}\n    http_listen: %s\n", addr))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot, "-S")
	if code, body := fetch(t, addr, ""); code != 200 {
		t.Fatalf("before: %d %s", code, body)
	}
	writeFile(t, filepath.Join(spoolRoot, "web"), "why")
	if code, body, err := p.get("/checks/web/0/"); code != 200 {
		t.Errorf("the check under -S: %d %s %v", code, body, err)
	}
	if code, body := fetch(t, addr, ""); code != 504 || !strings.Contains(body, "down state: why") {
		t.Errorf("the service's own listener under -S: %d %s", code, body)
	}
	if code, _, err := p.get("/spool/web/0/"); code != 503 {
		t.Errorf("/spool under -S: %d %v", code, err)
	}
}

// TestServiceEndpointsRecordBalancers: /recent and /balancers show the clients of http_listen.
func TestServiceEndpointsRecordBalancers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, addr := filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("services:\n  web:\n    checks:\n      - {type: script, command: [\"true\"]}\n    http_listen: %s\n", addr))
	p := startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Haproxy-Server-State", "UP 2/3; name=be/web1; node=lb1; weight=1/2; scur=3/4; qcur=0")
	r, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	_, body, err := p.get("/balancers?service=web")
	var page balancer.Report
	if err != nil || json.Unmarshal([]byte(body), &page) != nil || len(page.Balancers) != 1 || len(page.Services) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	if b := page.Balancers[0]; b.Node != "lb1" || b.State != "UP 2/3" || b.Sessions == nil || *b.Sessions != 3 || !b.Local || b.URL != "http://"+addr+"/x" || b.Last.Code != 200 {
		t.Errorf("%+v", b)
	}
}

// TestServiceEndpointsWithoutHostHeader: every endpoint answers "option httpchk GET /x HTTP/1.1", which sends no Host.
func TestServiceEndpointsWithoutHostHeader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, addr, other := filepath.Join(dir, "hacheck.yaml"), freeAddr(t), freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("services:\n  web:\n    checks:\n      - {type: script, command: [\"true\"]}\n    http_listen: %s\n", addr))
	startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	launchSubcommand(t, "aggregate", "--listener", other, "--script", "true", "--spool-root", filepath.Join(dir, "spool"))
	for _, addr := range []string{addr, other} {
		var said string
		waitUntil(t, "an answer from "+addr, func() bool {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(testTimeout))
			_, _ = io.WriteString(c, "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
			b, _ := io.ReadAll(c)
			said = string(b)
			return true
		})
		if !strings.HasPrefix(said, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%s: %q", addr, said)
		}
	}
}
