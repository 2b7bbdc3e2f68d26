package daemon

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testTimeout is how long a test waits for something that should happen at once. Test machines are slow.
const testTimeout = 20 * time.Second

// binary is the daemon. TestMain builds it once as make build does, or with the race detector if the tests have it. All
// users can read its directory.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	servertest.Detach()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hacheck-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		binary = filepath.Join(dir, "hacheck")
		args := []string{"build", "-tags", buildSetting("-tags"), "-ldflags", "-X main.version=1.2.3-test", "-o", binary}
		env := append(os.Environ(), "CGO_ENABLED=0")
		if underRace() {
			args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
		}
		build := exec.Command("go", append(args, "../../cmd/hacheck")...)
		build.Env = env
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// underRace reports whether this test was built with -race.
func underRace() bool { return buildSetting("-race") == "true" }

// buildSetting returns the value of a flag with which this test was built, "" without the flag.
func buildSetting(flag string) string {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == flag {
			return s.Value
		}
	}
	return ""
}

// TestScripts runs testdata/script/*.txtar: a new case is a new file or a few lines in one.
func TestScripts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // the scripts run in parallel, after this function
	help, err := os.ReadFile("testdata/help.golden")
	if err != nil && !*update {
		t.Fatal(err)
	}
	if *update {
		if help, err = exec.Command(binary, "--help").Output(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/help.golden", help, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		Deadline:      time.Now().Add(2 * testTimeout),
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("TAKEN", strconv.Itoa(taken.Addr().(*net.TCPAddr).Port))
			return os.WriteFile(filepath.Join(e.WorkDir, "help.golden"), help, 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE COMMAND ARG... runs the command and expects that exit code.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE COMMAND ARG...")
				}
				code := 0
				err := ts.Exec(args[1], args[2:]...)
				if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
		},
	})
}

// process is a running daemon.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	addrs  []string // of -p
	ended  chan struct{}
	mu     sync.Mutex
	stderr bytes.Buffer
}

// launch starts the daemon with its own spool directory and does not wait for it. change may change the command.
func launch(t *testing.T, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan struct{})}
	if !slices.Contains(args, "--spool-root") {
		args = append(args, "--spool-root", filepath.Join(t.TempDir(), "spool"))
	}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Stderr = p
	// A child process may still hold stderr when the daemon has ended.
	p.cmd.WaitDelay = time.Second
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if change != nil {
		change(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // its result is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if said := p.log(); checktest.ShowsBug(said) {
			t.Error("the daemon panicked or has a data race")
		}
		if t.Failed() {
			t.Logf("the daemon's stderr:\n%s", p.log())
		}
	})
	return p
}

// startDaemon starts the daemon on a free port of 127.0.0.1 and waits until it answers.
func startDaemon(t *testing.T, args ...string) *process {
	t.Helper()
	return startDaemonEnv(t, "", args...)
}

// startDaemonEnv is startDaemon with a variable of the environment, "" for none.
func startDaemonEnv(t *testing.T, env string, args ...string) *process {
	t.Helper()
	if !slices.Contains(args, "-p") {
		args = append(args, "-p", "0")
	}
	if !slices.Contains(args, "-B") {
		args = append(args, "-B", "127.0.0.1")
	}
	if !slices.Contains(args, "--control-socket") {
		args = append(args, "--control-socket", "")
	}
	p := launch(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, env) }, args...)
	p.waitReady()
	return p
}

var listens = regexp.MustCompile(`hacheck answers.* listen="?\[([^"]*)\]"? spool=`)

// waitReady waits until the daemon has logged its addresses.
func (p *process) waitReady() {
	p.t.Helper()
	p.addrs = strings.Fields(p.waitForLog(listens)[1])
}

// Write receives the stderr of the daemon.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// waitForLog waits until stderr matches what, and returns the match.
func (p *process) waitForLog(what *regexp.Regexp) (m []string) {
	p.t.Helper()
	waitUntil(p.t, "the log says "+what.String(), func() bool {
		m = what.FindStringSubmatch(p.log())
		if m == nil {
			p.wantRunning()
		}
		return m != nil
	})
	return m
}

func (p *process) wantRunning() {
	p.t.Helper()
	select {
	case <-p.ended:
		p.t.Fatalf("the daemon has ended: %v\n%s", p.cmd.ProcessState, p.log())
	default:
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %v: %v", s, err)
	}
}

// exit waits for the end and returns the exit code, -1 after a signal.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(testTimeout):
		_ = p.cmd.Process.Signal(syscall.SIGABRT) // which prints the stacks of all goroutines
		<-p.ended
		p.t.Fatalf("the daemon has not ended:\n%s", p.log())
		return 0
	}
}

func (p *process) wantExit(want int) {
	p.t.Helper()
	if got := p.exit(); got != want {
		p.t.Errorf("exit code %d (%v), want %d\n%s", got, p.cmd.ProcessState, want, p.log())
	}
}

// client opens a new connection for every request, as HAProxy does.
var client = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   testTimeout,
}

// get requests a path at the daemon's first address.
func (p *process) get(path string) (code int, body string, err error) {
	r, err := client.Get("http://" + p.addrs[0] + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

func (p *process) mustGet(path string, want int) string {
	p.t.Helper()
	code, body, err := p.get(path)
	if err != nil {
		p.t.Fatal(err)
	}
	if code != want {
		p.t.Fatalf("GET %s = %d %q, want %d", path, code, body, want)
	}
	return body
}

// waitUntil polls until ok returns true or testTimeout has passed.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// port returns the port of an address.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
