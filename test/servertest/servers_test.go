package servertest_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// TestStartAndStop: a server runs when Start returns, and is removed with its directory when the test ends.
func TestStartAndStop(t *testing.T) {
	var s *servertest.Server
	t.Run("runs", func(t *testing.T) {
		s = servertest.Redis(t, "--maxclients", "10")
		conn, err := net.DialTimeout("tcp", s.Addr(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The log may arrive after the server is ready.
		timeout, again := time.After(10*time.Second), time.NewTicker(time.Millisecond)
		defer again.Stop()
		for !strings.Contains(s.Log(), "Ready to accept connections") {
			select {
			case <-timeout:
				t.Fatalf("log: %s", s.Log())
			case <-again.C:
			}
		}
	})
	if conn, err := net.DialTimeout("tcp", s.Addr(), 5*time.Second); err == nil {
		conn.Close()
		t.Error("still runs after its test")
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("directory after the test: %v", err)
	}
}

// failing is a test that records the message of Fatalf.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(f)
}

// TestMissingServer: a missing server fails the test with the package to install. It does not skip the test.
func TestMissingServer(t *testing.T) {
	got := failure(t, func(t testing.TB) { servertest.Find(t, "no-such-server", "some-package") })
	if want := "no-such-server is not installed: apt-get install some-package"; got != want {
		t.Errorf("failed with %q, want %q", got, want)
	}
}

// failure returns the message with which f fails a test.
func failure(t *testing.T, f func(t testing.TB)) string {
	t.Helper()
	record := &failing{TB: t}
	func() {
		defer func() { _ = recover() }()
		f(record)
	}()
	return record.message
}

// TestFindHAProxy: a wrong HAPROXY fails the test, which does not use the installed HAProxy instead.
func TestFindHAProxy(t *testing.T) {
	for name, want := range map[string]string{
		"/no/such/haproxy": "HAPROXY=/no/such/haproxy: ",
		"./haproxy":        "HAPROXY=./haproxy is a relative path: give an absolute one",
		"no-such-haproxy":  "HAPROXY=no-such-haproxy: ",
	} {
		t.Setenv("HAPROXY", name)
		if got := failure(t, func(t testing.TB) { servertest.FindHAProxy(t) }); !strings.HasPrefix(got, want) {
			t.Errorf("HAPROXY=%s fails with %q, want %q", name, got, want)
		}
	}
	t.Setenv("HAPROXY", "/bin/sh")
	if got := servertest.FindHAProxy(t); got != "/bin/sh" {
		t.Errorf("HAPROXY=/bin/sh finds %s", got)
	}
}

// TestFindEtcd: a wrong ETCD fails the test, which does not use the installed etcd instead.
func TestFindEtcd(t *testing.T) {
	t.Setenv("ETCD", "/no/such/etcd")
	if got := failure(t, func(t testing.TB) { servertest.FindEtcd(t) }); !strings.HasPrefix(got, "ETCD=/no/such/etcd: ") {
		t.Errorf("fails with %q", got)
	}
}

// TestEtcdRestart: an etcd has the same port and data after Kill and Start, answers nothing while it is paused, and is
// empty after Wipe.
func TestEtcdRestart(t *testing.T) {
	etcd := servertest.Etcd(t, servertest.EtcdMembers(1))
	etcd.Ctl("put", "key", "value")
	etcd.Kill()
	etcd.Start()
	if got := etcd.Ctl("get", "--print-value-only", "key"); got != "value\n" {
		t.Errorf("after a restart: %q", got)
	}
	etcd.Pause()
	etcd.Restart()
	etcd.Wipe()
	etcd.Start()
	if got := etcd.Ctl("get", "--print-value-only", "key"); got != "" {
		t.Errorf("after a wipe: %q", got)
	}
}

func TestCheckHAProxyNames(t *testing.T) {
	for config, ok := range map[string]bool{
		"frontend front\n    default_backend web\nbackend web\n": true,
		"frontend web\nbackend web\n":                            false,
		"listen  web\nbackend\tweb\n":                            false,
		"backend a\nbackend b\n# backend a\n":                    true,
	} {
		if got := failure(t, func(t testing.TB) { servertest.CheckHAProxyNames(t, config) }); (got == "") != ok {
			t.Errorf("%q fails with %q", config, got)
		}
	}
}

// TestDetach: a child process ends at a signal that the tests ignore, and does not inherit the variables of systemd.
func TestDetach(t *testing.T) {
	const child = "SERVERTEST_DETACHED"
	if os.Getenv(child) != "" {
		servertest.Detach()
		out, err := exec.Command("sh", "-c", "echo $NOTIFY_SOCKET$LISTEN_FDS; kill -INT $$; echo survived").Output()
		if err == nil || string(out) != "\n" {
			t.Errorf("%v, %q; want it to end at the signal", err, out)
		}
		return
	}
	cmd := exec.Command("sh", "-c", `trap "" INT; exec "$0" -test.run='^TestDetach$'`, os.Args[0])
	cmd.Env = append(os.Environ(), child+"=1", "NOTIFY_SOCKET=/run/notify", "LISTEN_FDS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
