package servertest_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"hacheck/internal/servertest"
)

// A server is there when Start returns, and gone with its directory when the test is over.
func TestStartAndStop(t *testing.T) {
	var s *servertest.Server
	t.Run("runs", func(t *testing.T) {
		s = servertest.Redis(t, "--maxclients", "10")
		conn, err := net.DialTimeout("tcp", s.Addr(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// What a server writes arrives when it does, as its readiness does.
		late, again := time.After(10*time.Second), time.NewTicker(time.Millisecond)
		defer again.Stop()
		for !strings.Contains(s.Log(), "Ready to accept connections") {
			select {
			case <-late:
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

// failing is a test of which only the failure is looked at.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(f)
}

// A missing server must fail the test, never skip it, and say what to install.
func TestMissingServer(t *testing.T) {
	f := &failing{TB: t}
	func() {
		defer func() { _ = recover() }()
		servertest.Find(f, "no-such-server", "some-package")
	}()
	if want := "no-such-server is not installed: apt-get install some-package"; f.message != want {
		t.Errorf("failed with %q, want %q", f.message, want)
	}
}
