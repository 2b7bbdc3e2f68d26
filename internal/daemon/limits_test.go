package daemon

import (
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"hacheck/internal/config"
)

// TestOutOfDescriptors: without free descriptors the daemon waits and logs it once. It answers again as soon as one is
// free.
func TestOutOfDescriptors(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "rlimit_nofile: 20\n")
	p := startDaemon(t, "-c", conf)
	held := make([]net.Conn, 0, 100)
	for range cap(held) {
		c, err := net.Dial("tcp", p.addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	p.waitForLog(regexp.MustCompile(`level=ERROR msg="cannot accept connections; trying again" listen=\S+ err=.*too many open files`))
	for _, c := range held {
		c.Close()
	}
	waitUntil(t, "it answers again", func() bool {
		p.wantRunning()
		code, _, err := p.get("/spool/web/0/")
		return err == nil && code == 200
	})
	// A reload needs descriptors too. This one raises the limit again.
	writeFile(t, conf, "rlimit_nofile: max\n")
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`reloaded the configuration`))
	if n := strings.Count(p.log(), "cannot accept"); n != 1 {
		t.Errorf("%d lines about one shortage", n)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestReloadOfRlimit: a reload changes what one client may hold, and a limit below what is open is an error.
func TestReloadOfRlimit(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "rlimit_nofile: max\n")
	p := startDaemon(t, "-c", conf)
	writeFile(t, conf, "rlimit_nofile: 100\n")
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`reloaded the configuration`))
	for range 200 {
		c, err := net.Dial("tcp", p.addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET /spool")); err != nil {
			t.Fatal(err)
		}
	}
	p.waitForLog(regexp.MustCompile(`a client holds as many connections as it may.* connections=50`))
	if code, _, err := p.get("/spool/web/0/"); err != nil || code != 200 {
		t.Errorf("beside 200 silent connections: %d, %v", code, err)
	}
	writeFile(t, conf, "rlimit_nofile: 5\n")
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`was not reloaded.*rlimit_nofile: 5 is too low`))
	if code, _, err := p.get("/spool/web/0/"); err != nil || code != 200 {
		t.Errorf("after a limit that is too low: %d, %v", code, err)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

func TestRlimit(t *testing.T) {
	limit := func() (l syscall.Rlimit) {
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := limit()
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	low, high := before, before
	low.Cur, high.Cur = 500, before.Max
	for _, test := range []struct {
		n    int64
		want syscall.Rlimit
	}{{500, low}, {0, low}, {config.RlimitMax, high}} {
		if _, err := setNoFile(test.n); err != nil || limit() != test.want {
			t.Errorf("setNoFile(%d): %v, the limit is %v, want %v", test.n, err, limit(), test.want)
		}
	}
	if _, err := setNoFile(1 << 40); err == nil || errors.Is(err, syscall.EPERM) || limit() != high {
		t.Errorf("above the hard limit: %v, the limit is %v", err, limit())
	}
}
