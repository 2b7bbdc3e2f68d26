package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fetch asks an address that is no daemon's main one.
func fetch(t *testing.T, addr, accept string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/any/url", nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	r, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// beacon returns what a port says to who connects, "" when it is closed.
func beaconSays(addr string) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(soon))
	b, _ := io.ReadAll(c)
	return string(b)
}

// slowScript writes a program that says at began that it runs, and runs until release exists.
func slowScript(t *testing.T) (script, began, release string) {
	t.Helper()
	dir := t.TempDir()
	script, began, release = filepath.Join(dir, "slow.sh"), filepath.Join(dir, "began"), filepath.Join(dir, "release")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n: >'"+began+"'\nuntil test -e '"+release+"'; do sleep 0.01; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return script, began, release
}

// accepts reports whether somebody listens at addr.
func accepts(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// dial connects to addr for as long as the test lasts.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestServiceDoors has one service behind its three doors, and one override that covers them all.
func TestServiceDoors(t *testing.T) {
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
		until(t, what, func() bool {
			c1, b1 := fetch(t, httpAddr, "")
			c2, b2, err := p.get("/checks/web/0/")
			want2 := 503
			if code == 200 {
				want2 = 200
			}
			return c1 == code && strings.HasPrefix(b1, body) && err == nil && c2 == want2 && b2 != "" && beaconSays(beaconAddr) == beacon
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

	// A reload moves a door; the others stay.
	writeFile(t, conf, config(other, 599))
	p.signal(syscall.SIGHUP)
	until(t, "the new listener answers", func() bool { c, _ := fetch(t, other, ""); return c == 200 })
	until(t, "the old one is closed", func() bool { c, _ := fetch(t, httpAddr, ""); return c == 0 })
	if beaconSays(beaconAddr) != "OK\n" {
		t.Error("the beacon did not stay open")
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	until(t, "the new failure code", func() bool { c, _ := fetch(t, other, ""); return c == 599 })

	p.signal(syscall.SIGTERM)
	p.stopped(0)
	if beaconSays(beaconAddr) != "" {
		t.Error("the beacon is open although nobody looks any more")
	}
}

// TestDoorsNotReloaded: a listener that cannot be opened leaves everything as it was, also the ports that had been
// closed to make room.
func TestDoorsNotReloaded(t *testing.T) {
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
		if got := agentSays(addr, "\n"); got != "up ready" {
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
		until(t, "the reload has failed", func() bool {
			return len(regexp.MustCompile(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*service (new|too): (http|agent)_listen: listen on 127\.0\.0\.1:\d+: address already in use; is another hacheck running\?`).FindAllString(p.said(), -1)) == i+1
		})
		answers(kept, 500)
		answers(dropped, 501)
		agentSpeaks(agent)
	}
	if n := strings.Count(p.said(), "level=ERROR"); n != 2 {
		t.Errorf("%d errors for 2 reloads", n)
	}
	// The same ports on other addresses, kinds exchanged, and nothing in the way.
	writeFile(t, conf, config(599, fmt.Sprintf("  new: {checks: [{type: script, command: 'false'}], http_listen: '0.0.0.0:%s', agent_listen: '0.0.0.0:%s', failure_code: 502}\n", agentPort, droppedPort)))
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`msg="reloaded the configuration"`))
	answers(kept, 599)
	answers(agent, 502)
	agentSpeaks(dropped)
	p.signal(syscall.SIGTERM)
	p.stopped(0)
}

// TestDoorsKept: a reload that changes what a listener answers, and about whom, refuses nobody.
func TestDoorsKept(t *testing.T) {
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
			if said := agentSays(agent, "\n"); said != "ready down #red" && said != "ready down #blue" {
				ended <- fmt.Errorf("the agent says %q", said)
				return
			}
		}
	}()
	for i := range 20 {
		name := []string{"blue", "red"}[i%2]
		writeFile(t, conf, config(name, 500+(i+1)%2))
		p.signal(syscall.SIGHUP)
		until(t, "it was reloaded", func() bool { return strings.Count(p.said(), "reloaded the configuration") > i })
		if code, body := fetch(t, addr, ""); code != 500+(i+1)%2 || !strings.HasPrefix(body, "Service "+name) {
			t.Errorf("after the reload: %d %s", code, body)
		}
		if got := agentSays(agent, "\n"); got != "ready down #"+name {
			t.Errorf("after the reload the agent says %q", got)
		}
	}
	close(end)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if beaconSays(beacon) != "" {
		t.Error("the beacon of a service that is down is open")
	}
	if err := os.Remove(filepath.Join(spoolRoot, "red")); err != nil {
		t.Fatal(err)
	}
	until(t, "the beacon is open", func() bool { return beaconSays(beacon) == "OK\n" })
	// Another service has it, which is down: its next round is an hour away.
	writeFile(t, conf, config("blue", 500))
	p.signal(syscall.SIGHUP)
	until(t, "the beacon is closed", func() bool { return beaconSays(beacon) == "" })
}

// TestServiceBeacon: a beacon is closed until its first round has passed, and an override does not wait for
// the next one, which here does not come.
func TestServiceBeacon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script, began, release := slowScript(t)
	spoolRoot, conf := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml")
	addr := freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("healthcheck_timeout: 60\nservices:\n  web:\n    checks:\n      - {type: script, command: %q, timeout: 60}\n    beacon_listen: %s\n    interval: 3600\n", script, addr))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot)
	until(t, "the first round has begun", func() bool { _, err := os.Stat(began); return err == nil })
	if got := beaconSays(addr); got != "" {
		t.Errorf("open before anything is known: %q", got)
	}
	writeFile(t, release, "")
	open, closed := func() bool { return beaconSays(addr) == "OK\n" }, func() bool { return beaconSays(addr) == "" }
	until(t, "open", open)
	for _, name := range []string{"web", "all"} {
		writeFile(t, filepath.Join(spoolRoot, name), "")
		until(t, "closed by "+name, closed)
		if err := os.Remove(filepath.Join(spoolRoot, name)); err != nil {
			t.Fatal(err)
		}
		until(t, "open again", open)
	}
	// One that runs out is the same: no file has to change for it.
	writeFile(t, filepath.Join(spoolRoot, "web"), fmt.Sprintf(`{"reason": "soon over", "expiration": %d, "creation": 1}`, time.Now().Unix()+2))
	until(t, "closed until it expires", closed)
	until(t, "open when it has expired", open)
	p.signal(syscall.SIGTERM)
	p.stopped(0)
}

// launchSub starts a subcommand; what it prints on stdout and stderr is in said.
func launchSub(t *testing.T, args ...string) *process {
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
	p := launchSub(t, "aggregate", "--listener", addr, "--port", port(t, ln.Addr().String()),
		"--script", "test -e '"+flag+"'", "--service", "web", "--spool-root", spoolRoot)
	p.wait(regexp.MustCompile(`hacheck aggregate answers`))
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
	p.stopped(0)
}

func TestAggregateUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "at least one --port or --script"},
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
		if code := p.exit(); code != 2 || !strings.Contains(p.said(), c.says) {
			t.Errorf("%q: exit %d, %s; want 2 and %q", c.args, code, p.said(), c.says)
		}
	}
}

// TestLateSpool: the spool directory that hadown makes is obeyed by those that began without one.
func TestLateSpool(t *testing.T) {
	t.Parallel()
	spoolRoot := filepath.Join(t.TempDir(), "spool")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	addr, tcp := freeAddr(t), freeAddr(t)
	p := launchSub(t, "aggregate", "--listener", addr, "--script", "true", "--spool-root", spoolRoot)
	p.wait(regexp.MustCompile(`hacheck aggregate answers`))
	launchSub(t, "beacon", port(t, udp.LocalAddr().String()), port(t, tcp), "--spool-root", spoolRoot)
	until(t, "the beacon is open", func() bool { return beaconSays(tcp) == "OK\n" })
	if code, body := fetch(t, addr, ""); code != 200 {
		t.Errorf("%d %q without a spool directory", code, body)
	}
	if err := os.Mkdir(spoolRoot, 0o750); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(spoolRoot, "all"), "")
	if code, body := fetch(t, addr, ""); code != 504 || body != "Service all in down state" {
		t.Errorf("%d %q with an override", code, body)
	}
	until(t, "the beacon is closed", func() bool { return beaconSays(tcp) == "" })
}

// TestBeacon is a session with udp_healther.py, line by line.
func TestBeacon(t *testing.T) {
	dir := t.TempDir()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udpPort := port(t, udp.LocalAddr().String())
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	p := launchSub(t, "beacon", udpPort, port(t, addr), "--spool-root", filepath.Join(dir, "none"))
	p.wait(regexp.MustCompile(`(?m)^Starting UDP Healther\. Looking for udp port ` + udpPort + ` and running tcp on port ` + port(t, addr) + `$`))
	p.wait(regexp.MustCompile(`(?m)^UDP listener not found\. Waiting\.\.\.$`))
	if beaconSays(addr) != "" {
		t.Error("open without a UDP listener")
	}
	if udp, err = net.ListenPacket("udp", "127.0.0.1:"+udpPort); err != nil {
		t.Fatal(err)
	}
	p.wait(regexp.MustCompile(`(?m)^UDP listener found, starting TCP listener$`))
	until(t, "OK", func() bool { return beaconSays(addr) == "OK\n" })
	p.wait(regexp.MustCompile(`(?m)^Got a connection from \('127\.0\.0\.1', \d+\)$`))
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	p.wait(regexp.MustCompile(`(?m)^UDP listener gone, killing TCP listener$`))
	until(t, "closed", func() bool { return beaconSays(addr) == "" })
	p.signal(syscall.SIGINT)
	p.stopped(0)
	p.wait(regexp.MustCompile(`(?m)^Exiting\.\.\.$`))
}

func TestBeaconPortTaken(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	_, tcpPort, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := launchSub(t, "beacon", port(t, udp.LocalAddr().String()), tcpPort, "--spool-root", filepath.Join(t.TempDir(), "none"))
	p.wait(regexp.MustCompile(`(?m)^Cant bind to socket$`))
	udpAddr := udp.LocalAddr().String()
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	p.wait(regexp.MustCompile(`(?m)^UDP listener gone, killing TCP listener$`)) // as the original, which has tried
	if udp, err = net.ListenPacket("udp", udpAddr); err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "it is tried again", func() bool { return beaconSays("127.0.0.1:"+tcpPort) == "OK\n" })
}

// askAny sends a request to addr and gives its answer when there is one.
func askAny(t *testing.T, addr string) <-chan string {
	t.Helper()
	c := make(chan string, 1)
	go func() {
		code, body := fetch(t, addr, "")
		c <- fmt.Sprint(code, " ", body)
	}()
	return c
}

// TestReloadBesideRequests: a reload that closes a door opens the others and has overrides obeyed while a
// request is still in flight there, and that one is answered, also when the daemon ends.
func TestReloadBesideRequests(t *testing.T) {
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
	until(t, "the beacon is open", func() bool { return beaconSays(beacon) == "OK\n" })
	answered := askAny(t, old)
	until(t, "a check is under way", func() bool { _, err := os.Stat(began); return err == nil })
	writeFile(t, conf, config(moved))
	p.signal(syscall.SIGHUP)
	until(t, "the new door is open", func() bool { return accepts(moved) })
	until(t, "the old door is closed", func() bool { return !accepts(old) })
	writeFile(t, filepath.Join(spoolRoot, "web"), "")
	until(t, "the beacon obeys", func() bool { return beaconSays(beacon) == "" })
	p.signal(syscall.SIGTERM)
	p.wait(regexp.MustCompile(`stopping; requests in flight`))
	writeFile(t, release, "")
	if got := <-answered; got != "200 OK" {
		t.Errorf("the request in flight is answered with %q", got)
	}
	p.stopped(0)
}

// TestStopWithSilentDoor: whoever connects to a service's door and says nothing does not keep the daemon.
func TestStopWithSilentDoor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, addr := filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	writeFile(t, conf, "services:\n  web:\n    checks: [{type: script, command: \"true\"}]\n    http_listen: "+addr+"\n")
	p := startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	dial(t, addr) // and says nothing
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.stopped(0)
	if took := time.Since(began); took > 4*time.Second { // until the request is due it would be 10 s
		t.Errorf("the end took %v", took)
	}
}

// TestAggregateStop: what was accepted before the signal is answered after it, also on connections whose
// request comes only then; who says nothing does not keep it.
func TestAggregateStop(t *testing.T) {
	t.Parallel()
	script, began, release := slowScript(t)
	addr := freeAddr(t)
	p := launchSub(t, "aggregate", "--listener", addr, "--script", script, "--script-timeout", "60", "--spool-root", filepath.Join(t.TempDir(), "none"))
	p.wait(regexp.MustCompile(`hacheck aggregate answers`))
	answered := askAny(t, addr)
	until(t, "a check is under way", func() bool { _, err := os.Stat(began); return err == nil })
	late := dial(t, addr)
	dial(t, addr) // and says nothing
	if _, err := io.WriteString(late, "GET / HTT"); err != nil {
		t.Fatal(err)
	}
	// Who came later and needs no check has been answered: the others have been accepted.
	last := dial(t, addr)
	if _, err := io.WriteString(last, "GET /%zz HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(last); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Fatalf("%q, %v", got, err)
	}
	p.signal(syscall.SIGTERM)
	p.wait(regexp.MustCompile(`stopping; requests in flight`))
	until(t, "it accepts no more", func() bool { return !accepts(addr) })
	if _, err := io.WriteString(late, "P/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, release, "")
	_ = late.SetDeadline(time.Now().Add(soon))
	if got, err := io.ReadAll(late); err != nil || !strings.HasPrefix(string(got), "HTTP/1.0 200 OK\r\n") {
		t.Errorf("the connection accepted before the signal: %q, %v", got, err)
	}
	if got := <-answered; got != "200 OK" {
		t.Errorf("the request in flight is answered with %q", got)
	}
	ended := time.Now()
	p.stopped(0)
	if took := time.Since(ended); took > 4*time.Second {
		t.Errorf("the silent connection kept it for %v", took)
	}
}

// TestBeaconBesideCheck: while a check takes its time the beacon obeys overrides, and the daemon ends without
// waiting for it; what a script has started ends with it.
func TestBeaconBesideCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	script := "#!/bin/sh\ncd '" + dir + "'\ntest -e quick && exit 0\n(while test ! -e over; do touch alive; sleep 0.01; done) &\n: >began\nwait\n"
	if err := os.WriteFile(file("check.sh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	defer writeFile(t, file("over"), "")
	writeFile(t, file("quick"), "")
	addr := freeAddr(t)
	writeFile(t, file("hacheck.yaml"), fmt.Sprintf("cache_time: 0\nhealthcheck_timeout: 60\nservices:\n  web:\n    checks: [{type: script, command: %q, timeout: 60}]\n    beacon_listen: %s\n    interval: 0.1\n", file("check.sh"), addr))
	p := startDaemon(t, "-c", file("hacheck.yaml"), "--spool-root", file("spool"))
	until(t, "open", func() bool { return beaconSays(addr) == "OK\n" })
	if err := os.Remove(file("quick")); err != nil {
		t.Fatal(err)
	}
	until(t, "a check is under way", func() bool { _, err := os.Stat(file("began")); return err == nil })
	if beaconSays(addr) != "OK\n" {
		t.Error("closed although nothing is known yet")
	}
	writeFile(t, file("spool/web"), "")
	until(t, "the override is obeyed", func() bool { return beaconSays(addr) == "" })
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.stopped(0)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %v", took)
	}
	until(t, "what the script started has ended", func() bool {
		if err := os.Remove(file("alive")); err != nil {
			return os.IsNotExist(err)
		}
		<-time.After(100 * time.Millisecond) // ten times what it takes to say that it lives
		return false
	})
}
