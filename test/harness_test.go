// Package test holds the tests that run the commands as they are, against real servers: what is asserted
// here is what an operator and a load balancer see. What only concerns one package is tested there.
package test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// waitLimit bounds every wait for another process. It is long because machines that test are busy; nothing
// that works takes it.
const waitLimit = 60 * time.Second

var commands struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	// sbin is where Debian keeps servers, and not on the PATH of a user who is not root.
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	// The tests may themselves be run by make, which leaves its flags and its jobs to the makes below it.
	for _, name := range []string{"MAKEFLAGS", "MAKELEVEL", "MFLAGS"} {
		_ = os.Unsetenv(name)
	}
	servertest.Detach()
	code := m.Run()
	if commands.dir != "" {
		_ = os.RemoveAll(commands.dir)
	}
	os.Exit(code)
}

// bin returns the path of a command, built on the first call, the daemon under the race detector if we are.
func bin(t testing.TB, name string) string {
	t.Helper()
	commands.once.Do(func() {
		if commands.dir, commands.err = os.MkdirTemp("", "hacheck-bin-"); commands.err != nil {
			return
		}
		build := func(flags ...string) {
			args := append([]string{"build", "-buildvcs=false", "-tags", buildTags(), "-ldflags", "-X main.version=1.2.3", "-o", commands.dir + "/"}, flags...)
			cmd := exec.Command("go", args...)
			cmd.Dir = ".."
			if !slices.Contains(flags, "-race") {
				cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Makefile does
			}
			if out, err := cmd.CombinedOutput(); err != nil && commands.err == nil {
				commands.err = fmt.Errorf("build the commands: %w\n%s", err, out)
			}
		}
		build("./cmd/...")
		if raceEnabled {
			// The daemon alone: the small commands hardly have two goroutines, and would take a second each to start.
			build("-race", "./cmd/hacheck")
		}
		if commands.err != nil {
			return
		}
		for _, link := range []string{"halist", "hashowdowned"} {
			if commands.err = os.Symlink("hastatus", filepath.Join(commands.dir, link)); commands.err != nil {
				return
			}
		}
	})
	if commands.err != nil {
		t.Fatal(commands.err)
	}
	return filepath.Join(commands.dir, name)
}

// buildTags are the build tags of this test, which the commands that it builds get too: "poison" in particular.
func buildTags() string {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

// findTool returns the path of a server or tool that the test needs. It fails the test when there is none:
// a test that is skipped proves nothing.
func findTool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run test/install.sh", err)
	}
	return p
}

// eventually calls cond until it returns nil; the last error fails the test when patience ends. It is for
// states of other processes, which cannot be waited for in another way.
func eventually(t testing.TB, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not, after %v: %v", waitLimit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// freePort returns a TCP port that nothing listens on, neither on 127.0.0.1 nor on 127.0.0.2. It is below
// the range from which the kernel takes ports for outgoing connections, so that no client of this or another
// test gets it in the meantime; and no port is returned twice, since whoever has it may not listen yet.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		if _, taken := usedPorts.LoadOrStore(port, true); !taken && canListen("127.0.0.1", port) && canListen("127.0.0.2", port) {
			return port
		}
	}
	t.Fatal("found no free port")
	return 0
}

// usedPorts are the ports that freePort has looked at.
var usedPorts sync.Map

// canListen tells whether the port is free. No process is started meanwhile: until it has become another program, it
// would hold a copy of the listener, and the port would be taken when it is to be listened on.
func canListen(host string, port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

// answer is what an HTTP server said.
type answer struct {
	code   int
	body   string
	header http.Header
}

// client asks as a balancer does: a new connection each time, no redirect followed.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       waitLimit,
}

func get(url string) (answer, error) {
	resp, err := client.Get(url)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(body), resp.Header}, err
}

// dial connects, and bounds all that is done on the connection.
func dial(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, waitLimit)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(waitLimit))
	}
	return conn, err
}

// exitCode returns the exit code in the error of a command that has run, -1 if it was killed or never ran.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// service is a toy service to be checked: an HTTP server in this process that counts what it is asked.
type service struct {
	port     int
	requests atomic.Int64
}

// startService serves h on host until the test ends. Port 0 takes a free one.
func startService(t testing.TB, host string, port int, h http.HandlerFunc) *service {
	t.Helper()
	if port == 0 {
		port = freePort(t)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	s := &service{port: port}
	srv := &http.Server{
		ReadHeaderTimeout: waitLimit,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.requests.Add(1)
			h(w, r)
		}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("toy service: %v", err)
		}
	}()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return s
}

// serveOK is a healthy service.
func serveOK(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "OK")
}

// parallel runs f n times side by side until all have returned.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
