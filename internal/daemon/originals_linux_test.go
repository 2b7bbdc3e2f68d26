package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The command lines in this file are from the READMEs of health-checker and udp_healther, with other ports and paths.
// Those of conn-check are in internal/runner.

func tcpListener(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// healthScript writes a shell script that passes while a file exists and prints its arguments.
func healthScript(t *testing.T, name, healthy string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	text := fmt.Sprintf("#!/bin/sh\necho \"called with $# arguments: $*\"\ntest -e '%s'\n", healthy)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// startAggregate starts hacheck aggregate with health-checker's options, on another port than "0.0.0.0:6000".
func startAggregate(t *testing.T, args ...string) (p *process, addr string) {
	t.Helper()
	addr = freeAddr(t)
	p = launchSubcommand(t, append([]string{"aggregate", "--spool-root", filepath.Join(t.TempDir(), "none"), "--listener", "0.0.0.0:" + port(t, addr)}, args...)...)
	p.waitForLog(regexp.MustCompile(`hacheck aggregate answers`))
	return p, addr
}

func wantAnswer(t *testing.T, addr string, code int, body string) {
	t.Helper()
	if c, b := fetch(t, addr, ""); c != code || !regexp.MustCompile("^"+body+"$").MatchString(b) {
		t.Errorf("%d %q, want %d %q", c, b, code, body)
	}
}

const checkFailed = "At least one health check failed\n"

// TestHealthCheckerExample1: two ports.
func TestHealthCheckerExample1(t *testing.T) {
	t.Parallel()
	a, b := tcpListener(t), tcpListener(t)
	portA, portB := port(t, a.Addr().String()), port(t, b.Addr().String())
	p, addr := startAggregate(t, "--port", portA, "--port", portB)
	wantAnswer(t, addr, 200, "OK")
	a.Close()
	refusedA := fmt.Sprintf("tcp:127.0.0.1:%[1]s: Connection refused by 127.0.0.1:%[1]s", portA)
	wantAnswer(t, addr, 504, checkFailed+refusedA)
	b.Close()
	wantAnswer(t, addr, 504, checkFailed+refusedA+"\n"+strings.ReplaceAll(refusedA, portA, portB))
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestHealthCheckerExample2: a port, a script and its timeout.
func TestHealthCheckerExample2(t *testing.T) {
	t.Parallel()
	ln, healthy := tcpListener(t), filepath.Join(t.TempDir(), "healthy")
	script := healthScript(t, "script.sh", healthy)
	_, addr := startAggregate(t, "--port", port(t, ln.Addr().String()), "--script", script, "--script-timeout", "10")
	wantAnswer(t, addr, 504, checkFailed+"script:"+script+": "+script+` exited with 1 after \d+\.\d\ds: called with 0 arguments:`)
	writeFile(t, healthy, "")
	wantAnswer(t, addr, 200, "OK")
	ln.Close()
	wantAnswer(t, addr, 504, checkFailed+`tcp:127\.0\.0\.1:\d+: Connection refused by 127\.0\.0\.1:\d+`)
	slow := filepath.Join(t.TempDir(), "slow.sh")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\nsleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, addr = startAggregate(t, "--script", slow, "--script-timeout", "1")
	wantAnswer(t, addr, 504, checkFailed+"script:"+slow+": "+slow+` was killed after 1\.\d\ds`)
}

// TestHealthCheckerExample3: two scripts with arguments.
func TestHealthCheckerExample3(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	exhibitor, zk := healthScript(t, "exhibitor-health-check.sh", one), healthScript(t, "zk-health-check.sh", two)
	_, addr := startAggregate(t, "--script", exhibitor+" --exhibitor-port 8080", "--script", zk+" --zk-port 2191")
	says := func(script, args string) string {
		return "script:" + script + ": " + script + ` exited with 1 after \d+\.\d\ds: called with 2 arguments: ` + args
	}
	wantAnswer(t, addr, 504, checkFailed+says(exhibitor, "--exhibitor-port 8080")+"\n"+says(zk, "--zk-port 2191"))
	writeFile(t, one, "")
	wantAnswer(t, addr, 504, checkFailed+says(zk, "--zk-port 2191"))
	writeFile(t, two, "")
	wantAnswer(t, addr, 200, "OK")
}

// TestHealthCheckerSingleflight: with --singleflight, requests during a check share its result; without it each request
// checks. The test counts connections, because scripts are always shared.
func TestHealthCheckerSingleflight(t *testing.T) {
	t.Parallel()
	for _, flag := range []bool{false, true} {
		// A script keeps the checks running until all requests have arrived.
		ln, release := tcpListener(t), filepath.Join(t.TempDir(), "release")
		script := filepath.Join(t.TempDir(), "wait.sh")
		if err := os.WriteFile(script, []byte("#!/bin/sh\nuntil test -e '"+release+"'; do sleep 0.01; done\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		accepted := make(chan struct{}, 100)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
				accepted <- struct{}{}
			}
		}()
		args := []string{"--port", port(t, ln.Addr().String()), "--script", script, "--script-timeout", "60"}
		if flag {
			args = append(args, "--singleflight")
		}
		_, addr := startAggregate(t, args...)
		const askers = 5
		codes := make(chan int, askers)
		for range askers {
			go func() {
				code, _ := fetch(t, addr, "")
				codes <- code
			}()
		}
		want := askers
		if flag {
			want = 1
		}
		for range want {
			<-accepted
		}
		waitUntil(t, "all have asked", func() bool { return readConnections(t, port(t, addr)) == askers })
		writeFile(t, release, "")
		for range askers {
			if code := <-codes; code != 200 {
				t.Errorf("singleflight %v: %d", flag, code)
			}
		}
		if n := len(accepted) + want; n != want {
			t.Errorf("singleflight %v: %d connections, want %d", flag, n, want)
		}
	}
}

// readConnections returns the number of connections to a port of 127.0.0.1 without unread data.
func readConnections(t *testing.T, port string) (n int) {
	t.Helper()
	var tables strings.Builder
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tables.Write(table)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	local := fmt.Sprintf("0100007F:%04X", number) // also the end of the mapped address
	for line := range strings.Lines(tables.String()) {
		// number, local address, remote address, state (01 is established), bytes unsent:bytes unread
		if f := strings.Fields(line); len(f) > 4 && strings.HasSuffix(f[1], local) && f[3] == "01" && strings.HasSuffix(f[4], ":00000000") {
			n++
		}
	}
	return n
}

// TestUDPHealtherSession: the session of the README with all its output.
func TestUDPHealtherSession(t *testing.T) {
	t.Parallel()
	udpListener := func(addr string) net.PacketConn {
		t.Helper()
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	udp := udpListener("0.0.0.0:0")
	udpPort := port(t, udp.LocalAddr().String())
	udp.Close()
	addr := freeAddr(t)
	p := launchSubcommand(t, "beacon", "--spool-root", filepath.Join(t.TempDir(), "none"), udpPort, port(t, addr))
	session := ""
	prints := func(line string) {
		t.Helper()
		session += line + "\n"
		re := regexp.MustCompile("^" + session + "$")
		waitUntil(t, "it prints "+line, func() bool { return re.MatchString(p.log()) })
	}
	session = "Starting UDP Healther. Looking for udp port " + udpPort + " and running tcp on port " + port(t, addr) + "\n"
	prints(`UDP listener not found\. Waiting\.\.\.`)
	udp = udpListener("0.0.0.0:" + udpPort)
	prints(`UDP listener found, starting TCP listener`)
	// It prints this before it listens.
	waitUntil(t, "it says OK", func() bool { return readBeacon(addr) == "OK\n" })
	prints(`Got a connection from \('127\.0\.0\.1', \d+\)`)
	udp.Close()
	prints(`UDP listener gone, killing TCP listener`)
	if got := readBeacon(addr); got != "" {
		t.Errorf("open although nothing listens: %q", got)
	}
	p.signal(syscall.SIGINT)
	prints(`Exiting\.\.\.`)
	p.wantExit(0)
}

// TestUDPHealtherOverrides: an override is in force at the next check.
func TestUDPHealtherOverrides(t *testing.T) {
	t.Parallel()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	root, addr := t.TempDir(), freeAddr(t)
	launchSubcommand(t, "beacon", "--service", "dns", "--spool-root", root, port(t, udp.LocalAddr().String()), port(t, addr))
	open := func() bool { return readBeacon(addr) == "OK\n" }
	closed := func() bool { return readBeacon(addr) == "" }
	waitUntil(t, "open", open)
	for _, name := range []string{"dns", "all"} {
		writeFile(t, filepath.Join(root, name), "")
		waitUntil(t, "closed by "+name, closed)
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "open again", open)
	}
	writeFile(t, filepath.Join(root, "other"), "")
	udp.Close()
	waitUntil(t, "closed", closed)
	writeFile(t, filepath.Join(root, "dns"), `{"reason": "", "expiration": null, "creation": 1, "state": "up"}`)
	waitUntil(t, "forced open", open)
}
