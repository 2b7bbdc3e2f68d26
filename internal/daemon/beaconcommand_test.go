package daemon

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

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
	p := launchSubcommand(t, "beacon", udpPort, port(t, addr), "--spool-root", filepath.Join(dir, "none"))
	p.waitForLog(regexp.MustCompile(`(?m)^Starting UDP Healther\. Looking for udp port ` + udpPort + ` and running tcp on port ` + port(t, addr) + `$`))
	p.waitForLog(regexp.MustCompile(`(?m)^UDP listener not found\. Waiting\.\.\.$`))
	if readBeacon(addr) != "" {
		t.Error("open without a UDP listener")
	}
	if udp, err = net.ListenPacket("udp", "127.0.0.1:"+udpPort); err != nil {
		t.Fatal(err)
	}
	p.waitForLog(regexp.MustCompile(`(?m)^UDP listener found, starting TCP listener$`))
	waitUntil(t, "OK", func() bool { return readBeacon(addr) == "OK\n" })
	p.waitForLog(regexp.MustCompile(`(?m)^Got a connection from \('127\.0\.0\.1', \d+\)$`))
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	p.waitForLog(regexp.MustCompile(`(?m)^UDP listener gone, killing TCP listener$`))
	waitUntil(t, "closed", func() bool { return readBeacon(addr) == "" })
	p.signal(syscall.SIGINT)
	p.wantExit(0)
	p.waitForLog(regexp.MustCompile(`(?m)^Exiting\.\.\.$`))
}

// TestLateSpool: subcommands that started without a spool directory obey the one that hadown creates.
func TestLateSpool(t *testing.T) {
	t.Parallel()
	spoolRoot := filepath.Join(t.TempDir(), "spool")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	addr, tcp := freeAddr(t), freeAddr(t)
	p := launchSubcommand(t, "aggregate", "--listener", addr, "--script", "true", "--spool-root", spoolRoot)
	p.waitForLog(regexp.MustCompile(`hacheck aggregate answers`))
	launchSubcommand(t, "beacon", port(t, udp.LocalAddr().String()), port(t, tcp), "--spool-root", spoolRoot)
	waitUntil(t, "the beacon is open", func() bool { return readBeacon(tcp) == "OK\n" })
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
	waitUntil(t, "the beacon is closed", func() bool { return readBeacon(tcp) == "" })
}
