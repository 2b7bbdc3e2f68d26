// Package test holds the system tests. They run the real commands against real servers and assert what an operator and
// a load balancer see. Each package has its own tests for everything else.
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

// waitLimit bounds every wait for another process. It is long because test machines can be slow; a working process
// never needs it.
const waitLimit = 60 * time.Second

var commands struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	// Debian installs servers in sbin, which is not in the PATH of a user.
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	// If make runs the tests, the makes that the tests start must not inherit its flags and its job server.
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

// bin returns the path of a command. The first call builds all commands. If the tests run under the race detector, so
// does the daemon.
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
			// Only the daemon: the small commands have hardly two goroutines, and the detector adds a second to each run.
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

// buildTags returns the build tags of this test binary, "poison" in particular. The built commands get the same tags.
func buildTags() string {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

// findTool returns the path of a server or a tool. It fails the test if there is none, because a skipped test proves
// nothing.
func findTool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run test/install.sh", err)
	}
	return p
}

// eventually calls cond until it returns nil. After waitLimit it fails the test with the last error. It polls the
// state of other processes.
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

// freePort returns a TCP port that is free on 127.0.0.1 and on 127.0.0.2. It returns no port twice, because the
// caller listens only later. The port is below the range that the kernel uses for outgoing connections, so no client
// of another test can take it.
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

// usedPorts holds the ports that freePort has tried.
var usedPorts sync.Map

// canListen reports whether the port is free. It holds ForkLock: a child process that starts meanwhile would inherit
// the listener and keep the port busy until its exec.
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

// answer is the answer of an HTTP server.
type answer struct {
	code   int
	body   string
	header http.Header
}

// client sends requests as a balancer does: each on a new connection, without following redirects.
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

// dial connects to addr. The deadline of the connection is waitLimit from now.
func dial(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, waitLimit)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(waitLimit))
	}
	return conn, err
}

// exitCode returns the exit code from the error of a command: -1 if a signal killed the command or it did not start.
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

// service is an HTTP server in the test process that the daemon checks. It counts its requests.
type service struct {
	port     int
	requests atomic.Int64
}

// startService serves h on host until the test ends. Port 0 means a free port.
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

// serveOK is the handler of a healthy service.
func serveOK(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "OK")
}

// parallel runs f n times concurrently and returns when all calls have returned.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
