package admin

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/spool"
)

// simulate starts a simulation with a new spool directory.
func simulate(t *testing.T, specs ...string) (s *simulation, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "spool")
	dir, err := spool.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = newSim(dir, specs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s, root
}

// transcript is an output that a test reads while a command writes it.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// waitFor returns when the transcript has text. It polls up to a deadline.
func (w *transcript) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(w.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", text, w)
		}
	}
}

// run starts a command line in this process. code receives its exit code.
func run(s *simulation, root string, env Env, line string) (out *transcript, code chan int) {
	out, code = &transcript{}, make(chan int, 1)
	env.Stdout, env.Stderr = out, out
	env.controlSocket = "" // the machine may have a daemon
	args := append(strings.Fields(line), "--spool-root", root, "-p", s.addr)
	go func() { code <- Main("", args, env) }()
	return out, code
}

func wantExit(t *testing.T, out *transcript, code chan int, want int) {
	t.Helper()
	select {
	case got := <-code:
		if got != want {
			t.Errorf("exit %d, want %d; it said:\n%s", got, want, out)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("it does not end; it said:\n%s", out)
	}
}

// A signal ends the wait with 128 and its number. The override stays.
func TestSignal(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		for _, how := range []string{"", "--maint", "--json"} {
			t.Run(fmt.Sprint(sig, how), func(t *testing.T) {
				t.Parallel()
				s, root := simulate(t, "node=lb1 open=2 hold")
				cmd := exec.CommandContext(t.Context(), "hadown", "--spool-root", root, "-p", s.addr, "-r", "why", "web", "--wait=1m")
				if how != "" {
					cmd.Args = append(cmd.Args, how)
				}
				out := &transcript{}
				cmd.Stdout, cmd.Stderr = out, out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				out.waitFor(t, "2 sessions open")
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != want {
					t.Errorf("%v, want exit %d; it said:\n%s", err, want, out)
				}
				stays := "web is down now: why"
				if how == "--maint" {
					stays = "web is drain now: why; maint was not written"
				}
				if !strings.Contains(out.String(), sig.String()+": lb1 (be/lb1): ") || !strings.Contains(out.String(), stays) {
					t.Errorf("that does not say %q:\n%s", stays, out)
				}
				if how == "--json" && !strings.Contains(out.String(), fmt.Sprintf(`"result":"interrupted","exit":%d,"open":["lb1 (be/lb1)"]`, want)) {
					t.Errorf("no such event:\n%s", out)
				}
				if _, err := os.Stat(filepath.Join(root, "web")); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A restart of the daemon does not end the wait. A daemon that stays away does.
func TestDaemonAway(t *testing.T) {
	t.Parallel()
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		s, root := simulate(t, "node=lb1 open=100")
		out, code := run(s, root, System("1"), "hadown web -r why --wait=1m")
		out.waitFor(t, "lb1")
		s.server.Close()
		out.waitFor(t, "keeps trying")
		if err := s.restart(); err != nil {
			t.Fatal(err)
		}
		wantExit(t, out, code, ExitOK)
		for _, want := range []string{
			"the daemon on " + s.addr + " cannot be asked: connect: connection refused; the command keeps trying\n",
			"the daemon has restarted and is learning again which balancers ask\n", "web: out with 1 balancer",
		} {
			if strings.Count(out.String(), want) != 1 {
				t.Errorf("not once %q in:\n%s", want, out)
			}
		}
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		s, root := simulate(t, "node=lb1 open=1 hold")
		began := time.Now()
		out, code := run(s, root, System("1"), "hadown web -r why --wait=1m")
		out.waitFor(t, "lb1")
		s.server.Close()
		wantExit(t, out, code, ExitDaemonUnavailable)
		if took := time.Since(began); took < maxDaemonAway {
			t.Errorf("it gave up after %v", took)
		}
		if !strings.Contains(out.String(), "cannot read the balancers' server states: the daemon on "+s.addr) || !strings.Contains(out.String(), "web is down now: why") {
			t.Errorf("it said:\n%s", out)
		}
	})
	// A daemon that accepts connections and never answers does not delay the time limit.
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		s, root := simulate(t, "node=lb1 open=1 hold")
		out, code := run(s, root, System("1"), "hadown web -r why --wait=2s")
		out.waitFor(t, "lb1")
		syscall.ForkLock.RLock() // a child process that starts now would inherit the port
		s.server.Close()
		l, err := net.Listen("tcp", s.addr)
		syscall.ForkLock.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		wantExit(t, out, code, ExitWaitIncomplete)
		if !strings.Contains(out.String(), "time is up after 2s: lb1 (be/lb1): ") {
			t.Errorf("it said:\n%s", out)
		}
	})
}

// A daemon that accepts connections and never answers ends the command with 4, within the time of --wait.
func TestDaemonHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, line := range []string{"hadown web -r why --wait=2s", "haup web --wait=2s", "hadown web -r why --maint --wait=2s"} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			s, root := simulate(t, "node=lb1")
			s.addr = l.Addr().String()
			began := time.Now()
			out, code := run(s, root, System("1"), line)
			wantExit(t, out, code, ExitDaemonUnavailable)
			if took := time.Since(began); took > 3500*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			if !strings.Contains(out.String(), "cannot read the balancers' server states: the daemon on "+s.addr+" cannot be asked: no whole answer within 2s") {
				t.Errorf("it said:\n%s", out)
			}
		})
	}
}

// Another command changes the override during the wait.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	s, root := simulate(t, "node=lb1 open=1 hold")
	out, code := run(s, root, System("1"), "hadown web -r why --wait=1m")
	out.waitFor(t, "DOWN, 1 session open")
	if err := s.dir.Remove(spool.Key{Service: "web"}); err != nil {
		t.Fatal(err)
	}
	wantExit(t, out, code, ExitFailed)
	if want := "web was lifted meanwhile, or its time is over; web is up now"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in:\n%s", want, out)
	}

	s, root = simulate(t, "node=lb1 down every=1h")
	out, code = run(s, root, System("1"), "haup web --wait=1m")
	out.waitFor(t, "lb1")
	if err := s.dir.Write(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Drain, Reason: "another"}); err != nil {
		t.Fatal(err)
	}
	wantExit(t, out, code, ExitFailed)
	if want := "web was taken down again meanwhile; web is drain now: another"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in:\n%s", want, out)
	}
	out, code = run(s, root, System("1"), "hadown web --wait=1m --for 1s -r why")
	wantExit(t, out, code, ExitFailed)
	if want := "its time is over; web is up now"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in:\n%s", want, out)
	}
}

// Jumps of the wall clock do not affect the wait.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	s, root := simulate(t, "node=lb1 open=20", "node=lb2 silent")
	env := System("1")
	calls := 0
	env.Now = func() time.Time {
		calls++
		return time.Unix(int64(calls%2)*4e9, 0)
	}
	out, code := run(s, root, env, "hadown web -r why --wait=20s")
	wantExit(t, out, code, ExitOK)
	if !strings.Contains(out.String(), "web: out with 1 balancer after ") {
		t.Errorf("it said:\n%s", out)
	}
}

// The wait ends after the last of a hundred balancers.
func TestHundredBalancers(t *testing.T) {
	t.Parallel()
	specs := make([]string, 100)
	for i := range specs {
		specs[i] = fmt.Sprintf("node=lb%d every=500ms", i)
	}
	specs[70] += " open=8" // one ends with each request: 4 s, longer than a delay of a busy machine
	s, root := simulate(t, specs...)
	out, code := run(s, root, System("1"), "hadown web -r why --drain --wait=30s")
	wantExit(t, out, code, ExitOK)
	if !strings.HasSuffix(out.String(), "\n") || !strings.Contains(out.String(), "web: out with 100 balancers after ") {
		t.Errorf("it said:\n%s", out)
	}
	last := out.String()[strings.LastIndex(strings.TrimSuffix(out.String()[:strings.LastIndex(out.String(), "web: out with")], "\n"), "\n")+1:]
	if !strings.HasPrefix(last, "web: lb70 (be/lb70): NOLB, 0 sessions open: out\n") {
		t.Errorf("the last to follow was not lb70: %q", last)
	}
}

// --until-boot --maint --wait writes its override twice. Both times an override of an operator stays.
func TestMaintUntilBootReplacesNoOverride(t *testing.T) {
	t.Parallel()
	if _, err := spool.BootID(); err != nil {
		t.Logf("%v: --until-boot fails", err)
		return
	}
	s, root := simulate(t, "node=lb1 open=100", "node=lb1 service=db open=100", "node=lb1 service=cache open=100")
	down := func(service string) {
		t.Helper()
		out, code := run(s, root, System("1"), "hadown -r mine "+service)
		wantExit(t, out, code, ExitOK)
	}
	down("web")
	out, code := run(s, root, System("1"), "hadown web db cache --until-boot --maint -r kernel --wait=1m")
	out.waitFor(t, "sessions open")
	down("db")
	wantExit(t, out, code, ExitOK)
	for service, want := range map[string]string{"web": `"reason": "mine"`, "db": `"reason": "mine"`, "cache": `"state": "maint"`} {
		b, err := os.ReadFile(filepath.Join(root, service))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s is %s, %v; want %s", service, b, err, want)
		}
	}
	if n := strings.Count(out.String(), "web is down already, and stays so: mine"); n != 1 {
		t.Errorf("%d lines about web in:\n%s", n, out)
	}
}
