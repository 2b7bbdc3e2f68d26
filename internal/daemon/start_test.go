package daemon

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestStartupLine(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	spool := filepath.Join(t.TempDir(), "spool")
	writeFile(t, conf, "cache_tme: 3\nlog_format: json\n")
	p := launch(t, nil, "-c", conf, "--spool-root", spool, "-B", "127.0.0.1", "-p", "0", "ignored", "-n", "1", "-p", "0", "-S")
	p.waitForLog(regexp.MustCompile(`"level":"WARN","msg":"the configuration has a key that means nothing","where":".*hacheck\.yaml:1: cache_tme: unknown key; did you mean cache_time\?"`))
	p.waitForLog(regexp.MustCompile(`"level":"WARN",.*"arguments":\["ignored"\]`))
	m := p.waitForLog(regexp.MustCompile(`"level":"INFO","msg":"hacheck answers","version":"1\.2\.3-test","listen":\["(.*?)","(.*?)"\],"spool":"` + regexp.QuoteMeta(spool) + `","config":"` + regexp.QuoteMeta(conf) + `"`))
	for _, addr := range m[1:] {
		p.addrs = []string{addr}
		p.mustGet("/spool/web/0/", 200)
	}
	if fi, err := os.Stat(spool); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("the spool directory was made as %v, %v; want mode 0750", fi, err)
	}
}

// TestFailedStartIsLogged: warnings from before a failed start are in the log.
func TestFailedStartIsLogged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "hacheck.yaml")
	if err := os.WriteFile(conf, []byte("cachetime: 5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 20 { // the end of the process must not overtake the log
		out, err := exec.Command(binary, "-c", conf, "--spool-root", filepath.Join(dir, "no", "parent")).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("%v, want exit code 1\n%s", err, out)
		}
		if !strings.Contains(string(out), "did you mean cache_time?") || !strings.Contains(string(out), "create spool directory") {
			t.Fatalf("it says\n%s", out)
		}
	}
}

func TestUnreadableSpool(t *testing.T) {
	// Not below t.TempDir, which other users cannot read.
	spool, err := os.MkdirTemp(filepath.Dir(binary), "spool")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(spool, 0); err != nil {
		t.Fatal(err)
	}
	p := launch(t, func(c *exec.Cmd) {
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		c.Dir = filepath.Dir(binary)
	}, "--spool-root", spool, "-B", "127.0.0.1", "-p", "0")
	p.wantExit(1)
	if want := regexp.MustCompile(`^hacheck: .*` + regexp.QuoteMeta(spool) + `.*permission denied\n$`); !want.MatchString(p.log()) {
		t.Errorf("stderr is %q, want %v", p.log(), want)
	}
}

func TestBind(t *testing.T) {
	reaches := func(network, host, addr string) bool {
		c, err := net.Dial(network, net.JoinHostPort(host, port(t, addr)))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	probe, err := net.Listen("tcp6", "[::1]:0")
	ipv6 := err == nil
	if ipv6 {
		probe.Close()
	}
	for _, test := range []struct {
		bind   string
		v4, v6 bool
	}{
		{"0.0.0.0", true, false},
		{"127.0.0.1", true, false},
		{"::", true, true},
		{"", true, true},
		{"localhost", true, false},
	} {
		t.Run("-B "+test.bind, func(t *testing.T) {
			p := startDaemon(t, "-B", test.bind, "-p", "0", "-p", "0")
			if len(p.addrs) != 2 || p.addrs[0] == p.addrs[1] {
				t.Fatalf("it answers on %v, want two ports", p.addrs)
			}
			for _, addr := range p.addrs {
				if got := reaches("tcp4", "127.0.0.1", addr); got != test.v4 {
					t.Errorf("IPv4 on %s: %v, want %v", addr, got, test.v4)
				}
				if got := reaches("tcp6", "::1", addr); got != (test.v6 && ipv6) {
					t.Errorf("IPv6 on %s: %v, want %v", addr, got, test.v6 && ipv6)
				}
			}
		})
	}
	t.Run("the same port twice", func(t *testing.T) {
		n := port(t, freeAddr(t))
		p := startDaemon(t, "-p", n, "--port="+n)
		if len(p.addrs) != 1 {
			t.Errorf("it answers on %v", p.addrs)
		}
	})
}
