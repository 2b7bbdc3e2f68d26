// Package test holds the tests that run the commands as they are, against real servers: what is asserted
// here is what an operator and a load balancer see. What only concerns one package is tested there.
package test

import (
	"bytes"
	"context"
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
	"strings"
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

// output collects what a process prints, while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// process is a server that runs beside the test.
type process struct {
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when it has ended; err is set then
	err  error
}

// start runs a server until the test ends, which is when it gets a SIGTERM, and a SIGKILL if that does not
// end it. What it printed is shown when the test has failed.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(name), cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = killWithParent()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s (%v) printed:\n%s", p.name, p.err, p.out.String())
		}
	})
	return p
}

// stop ends the process and returns how it ended.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(waitLimit):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end %v after SIGTERM", p.name, waitLimit)
	}
	return p.err
}

// waitReady waits until the address accepts connections.
func (p *process) waitReady(t testing.TB, addr string) {
	t.Helper()
	eventually(t, func() error {
		select {
		case <-p.done:
			t.Fatalf("%s ended at its start: %v\n%s", p.name, p.err, p.out.String())
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// daemon is a running hacheck with a spool directory of its own.
type daemon struct {
	*process
	t     testing.TB
	port  int
	addr  string
	url   string
	spool string
}

// newDaemon returns a daemon at ip and port that is not started yet.
func newDaemon(t testing.TB, ip string, port int, spool string) *daemon {
	addr := net.JoinHostPort(ip, strconv.Itoa(port))
	return &daemon{t: t, port: port, addr: addr, url: "http://" + addr, spool: spool}
}

// launch starts the program with the address and the spool directory of the daemon, and waits until it accepts connections.
func (d *daemon) launch(program string, args ...string) {
	d.t.Helper()
	ip, port, _ := net.SplitHostPort(d.addr)
	d.process = start(d.t, program, append([]string{"-B", ip, "-p", port, "--spool-root", d.spool}, args...)...)
	d.waitReady(d.t, d.addr)
}

// expectCleanExit stops the daemon at the end of the test t. The daemon must then exit with 0 after SIGTERM, and its
// output must have no panic and no data race.
func (d *daemon) expectCleanExit(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("hacheck after SIGTERM: %v, want exit 0", err)
		}
		if out := d.out.String(); strings.Contains(out, "panic") || strings.Contains(out, "DATA RACE") {
			t.Errorf("hacheck panicked or has a data race:\n%s", out)
		}
	})
}

// startDaemon starts hacheck with a configuration file of the given content, and waits until it accepts connections.
// See expectCleanExit for its end.
func startDaemon(t testing.TB, config string) *daemon {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "hacheck.yaml")
	if err := os.WriteFile(conf, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "127.0.0.1", freePort(t), filepath.Join(dir, "spool"))
	d.launch(bin(t, "hacheck"), "-c", conf)
	d.expectCleanExit(t)
	return d
}

// mustRun runs one of the commands on the daemon's spool directory; it has to exit with 0. It returns what was
// printed.
func (d *daemon) mustRun(name string, args ...string) string {
	d.t.Helper()
	out, err := d.run(name, args...)
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (d *daemon) run(name string, args ...string) (string, error) {
	d.t.Helper()
	args = append(args, "--spool-root", d.spool)
	if !slices.Contains(args, "-p") { // else the one on 3333 would be asked, if this machine has one
		args = append(args, "-p", strconv.Itoa(d.port))
	}
	out, err := exec.Command(bin(d.t, name), args...).CombinedOutput()
	return string(out), err
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

// get asks the daemon for a path.
func (d *daemon) get(path string) answer {
	d.t.Helper()
	a, err := get(d.url + path)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
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

// rss returns the daemon's resident memory in bytes.
func (d *daemon) rss() int64 {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(status), &size, &resident); err != nil {
		d.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
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

// underLoad keeps n clients asking the daemon for paths, round about, while f runs. Each answer must be 200
// or 503: under whatever overrides, that is all a healthy service can look like.
func (d *daemon) underLoad(n int, paths []string, f func()) {
	d.t.Helper()
	ctx, stop := context.WithCancel(d.t.Context())
	var asked atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			keep := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}, Timeout: waitLimit}
			defer keep.CloseIdleConnections()
			for j := i; ctx.Err() == nil; j++ {
				resp, err := keep.Get(d.url + paths[j%len(paths)])
				if err != nil {
					d.t.Errorf("under load: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 && resp.StatusCode != 503 {
					d.t.Errorf("under load: %s answered %d", paths[j%len(paths)], resp.StatusCode)
				}
				asked.Add(1)
			}
		})
	}
	f()
	stop()
	wg.Wait()
	d.t.Logf("%d requests beside", asked.Load())
}
