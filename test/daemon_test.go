package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hacheck/test/checktest"
)

// output collects the output of a process while it runs. It is safe for concurrent use.
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

// process is a server that the test has started.
type process struct {
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed after the process has ended and err is set
	err  error
}

// start starts a server. At the end of the test the server gets SIGTERM, and SIGKILL if it does not end within
// waitLimit. If the test has failed, start logs the output.
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

// stop ends the process with SIGTERM and returns the error of Wait.
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
	options := []string{"-B", ip, "-p", port, "--spool-root", d.spool}
	if program == bin(d.t, "hacheck") && !slices.Contains(args, "--control-socket") {
		options = append(options, "--control-socket", "") // not the one of this machine
	}
	d.process = start(d.t, program, append(options, args...)...)
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
		if out := d.out.String(); checktest.ShowsBug(out) {
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

// mustRun runs a command on the daemon's spool directory and returns its output. It fails the test unless the exit
// code is 0.
func (d *daemon) mustRun(name string, args ...string) string {
	d.t.Helper()
	out, err := d.run(name, args...)
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// run runs a command on the daemon's spool directory and returns its output. It adds -p and --control-socket if args have
// none, so that the command does not ask a daemon of this machine.
func (d *daemon) run(name string, args ...string) (string, error) {
	d.t.Helper()
	args = append(args, "--spool-root", d.spool)
	if !slices.Contains(args, "-p") {
		args = append(args, "-p", strconv.Itoa(d.port))
	}
	if !slices.Contains(args, "--control-socket") {
		args = append(args, "--control-socket", "")
	}
	out, err := exec.Command(bin(d.t, name), args...).CombinedOutput()
	return string(out), err
}

// get sends a GET request to the daemon.
func (d *daemon) get(path string) answer {
	d.t.Helper()
	a, err := get(d.url + path)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
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

// underLoad runs f while n clients request the paths in turn. Each answer must be 200 or 503: with any overrides, a
// healthy service has no other answer.
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
