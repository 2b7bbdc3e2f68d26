package daemon

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// readBeacon returns what a port sends to a client, "" if the port is closed.
func readBeacon(addr string) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	b, _ := io.ReadAll(c)
	return string(b)
}

// TestServiceBeacon: a beacon is closed until its first check has passed. An override takes effect without the next
// check, which never comes here.
func TestServiceBeacon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script, began, release := slowScript(t)
	spoolRoot, conf := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml")
	addr := freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("healthcheck_timeout: 60\nservices:\n  web:\n    checks:\n      - {type: script, command: %q, timeout: 60}\n    beacon_listen: %s\n    interval: 3600\n", script, addr))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot)
	waitUntil(t, "the first round has begun", func() bool { _, err := os.Stat(began); return err == nil })
	if got := readBeacon(addr); got != "" {
		t.Errorf("open before anything is known: %q", got)
	}
	writeFile(t, release, "")
	open, closed := func() bool { return readBeacon(addr) == "OK\n" }, func() bool { return readBeacon(addr) == "" }
	waitUntil(t, "open", open)
	for _, name := range []string{"web", "all"} {
		writeFile(t, filepath.Join(spoolRoot, name), "")
		waitUntil(t, "closed by "+name, closed)
		if err := os.Remove(filepath.Join(spoolRoot, name)); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "open again", open)
	}
	// The same for an override that expires: no file changes.
	writeFile(t, filepath.Join(spoolRoot, "web"), fmt.Sprintf(`{"reason": "soon over", "expiration": %d, "creation": 1}`, time.Now().Unix()+2))
	waitUntil(t, "closed until it expires", closed)
	waitUntil(t, "open when it has expired", open)
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
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
	p := launchSubcommand(t, "beacon", port(t, udp.LocalAddr().String()), tcpPort, "--spool-root", filepath.Join(t.TempDir(), "none"))
	p.waitForLog(regexp.MustCompile(`(?m)^Cant bind to socket$`))
	udpAddr := udp.LocalAddr().String()
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	p.waitForLog(regexp.MustCompile(`(?m)^UDP listener gone, killing TCP listener$`)) // as the original, which has tried
	if udp, err = net.ListenPacket("udp", udpAddr); err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it is tried again", func() bool { return readBeacon("127.0.0.1:"+tcpPort) == "OK\n" })
}

// TestBeaconDuringCheck: during a slow check the beacon obeys overrides, and the daemon ends without waiting for the
// check. The processes of a script end with it.
func TestBeaconDuringCheck(t *testing.T) {
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
	waitUntil(t, "open", func() bool { return readBeacon(addr) == "OK\n" })
	if err := os.Remove(file("quick")); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "a check is under way", func() bool { _, err := os.Stat(file("began")); return err == nil })
	if readBeacon(addr) != "OK\n" {
		t.Error("closed although nothing is known yet")
	}
	writeFile(t, file("spool/web"), "")
	waitUntil(t, "the override is obeyed", func() bool { return readBeacon(addr) == "" })
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %v", took)
	}
	waitUntil(t, "what the script started has ended", func() bool {
		if err := os.Remove(file("alive")); err != nil {
			return os.IsNotExist(err)
		}
		<-time.After(100 * time.Millisecond) // ten times the interval of its sign of life
		return false
	})
}
