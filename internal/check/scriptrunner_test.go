package check_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/check"
)

// fifo makes a named pipe. A script that reads it blocks until release is called, and release blocks until the script
// reads.
func fifo(t testing.TB) (path string, release func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		_ = f.Close()
	}
}

// 50 callers share one run.
func TestScriptShared(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runs")
	path, release := fifo(t)
	scripts := check.NewScripts(8)
	c := shell(t, scripts, 20, `echo run >>$1; cat $2; exit 3`, file, path)
	var all sync.WaitGroup
	var answers sync.Map
	for i := range 50 {
		all.Go(func() {
			r := c.Check(t.Context(), check.Target{Service: "web", Port: 80})
			if r.Code != 503 || !strings.Contains(string(r.Body), "exited with 3") {
				t.Errorf("%d %s", r.Code, r.Body)
			}
			answers.Store(i, string(r.Body))
		})
	}
	for scripts.Callers() < 50 {
		runtime.Gosched()
	}
	release()
	all.Wait()
	if runs, _ := os.ReadFile(file); string(runs) != "run\n" {
		t.Errorf("runs: %q", runs)
	}
	first, _ := answers.Load(0)
	answers.Range(func(_, body any) bool {
		if body != first {
			t.Errorf("%s and %s", first, body)
		}
		return true
	})
}

// Callers for other services get a run of their own, but one command never runs twice at a time.
func TestScriptNeverTwice(t *testing.T) {
	dir := t.TempDir()
	scripts := check.NewScripts(8)
	var all sync.WaitGroup
	for i := range 6 {
		c := shell(t, scripts, 20, `mkdir $1/lock || exit 9; echo $HACHECK_SERVICE >>$1/runs; rmdir $1/lock`, dir)
		all.Go(func() {
			if r := c.Check(t.Context(), check.Target{Service: fmt.Sprint("web", i)}); r.Code != 200 {
				t.Errorf("%d %s", r.Code, r.Body)
			}
		})
	}
	all.Wait()
	runs, _ := os.ReadFile(filepath.Join(dir, "runs"))
	for i := range 6 {
		if strings.Count(string(runs), fmt.Sprintf("web%d\n", i)) != 1 {
			t.Errorf("runs: %q", runs)
		}
	}
}

// Callers that cannot share the current run share the next one for their service, in order of arrival.
func TestScriptNextRunIsShared(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runs")
	path, release := fifo(t)
	scripts := check.NewScripts(8)
	c := shell(t, scripts, 20, `echo $HACHECK_SERVICE >>$1; test $HACHECK_SERVICE != a || cat $2`, file, path)
	var all sync.WaitGroup
	asked := 0
	ask := func(service string, n int) {
		for range n {
			all.Go(func() {
				if r := c.Check(t.Context(), check.Target{Service: service}); r.Code != 200 {
					t.Errorf("%s: %d %s", service, r.Code, r.Body)
				}
			})
		}
		for asked += n; scripts.Callers() < asked; {
			runtime.Gosched()
		}
	}
	ask("a", 1)
	ask("b", 20)
	ask("c", 20)
	ask("b", 20)
	// One who leaves before its run has begun takes nothing with it.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if r := c.Check(ctx, check.Target{Service: "d"}); r.Reason != check.ReasonBusy {
		t.Errorf("%s %s", r.Reason, r.Body)
	}
	release()
	all.Wait()
	if runs, _ := os.ReadFile(file); string(runs) != "a\nb\nc\n" {
		t.Errorf("runs %q, want one for each of a, b and c", runs)
	}
	deadline := time.Now().Add(10 * time.Second)
	for scripts.Callers() != 0 { // a run is forgotten after its callers have its result
		if time.Now().After(deadline) {
			t.Fatalf("%d still wait", scripts.Callers())
		}
		runtime.Gosched()
	}
}

// A caller whose timeout passes gets an answer, and the run goes on for the others.
func TestScriptStillRunning(t *testing.T) {
	path, release := fifo(t)
	scripts := check.NewScripts(8)
	c := shell(t, scripts, 20, `cat $1`, path)
	first := make(chan check.Result, 1)
	go func() { first <- c.Check(t.Context(), check.Target{Service: "web"}) }()
	for scripts.Callers() < 1 {
		runtime.Gosched()
	}
	for service, want := range map[string]struct {
		reason check.Reason
		text   string
	}{
		"web":   {check.ReasonTimeout, "sh has not ended and runs on for another request after 0."},
		"other": {check.ReasonBusy, "sh was not run: another run of it has not ended after 0."},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		r := c.Check(ctx, check.Target{Service: service})
		cancel()
		if r.Code != 503 || r.Reason != want.reason || !strings.HasPrefix(string(r.Body), want.text) {
			t.Errorf("%s: %d %s %s", service, r.Code, r.Reason, r.Body)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if r := c.Check(ctx, check.Target{Service: "web"}); r.Reason != check.ReasonCancelled {
		t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
	}
	release()
	if r := <-first; r.Code != 200 {
		t.Errorf("the first: %d %s", r.Code, r.Body)
	}
}

// A script without a caller is killed, and its slot is free.
func TestScriptCancelled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	path, _ := fifo(t)
	scripts := check.NewScripts(1)
	c := shell(t, scripts, 20, `echo $$ >$1; echo go >$2; sleep 60`, file, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan check.Result, 1)
	go func() { done <- c.Check(ctx, check.Target{}) }()
	if _, err := os.ReadFile(path); err != nil { // blocks until the script writes
		t.Fatal(err)
	}
	cancel()
	r := <-done
	if r.Code != 503 || r.Reason != check.ReasonCancelled || r.Took > 10*time.Second {
		t.Errorf("%d %s %s after %v", r.Code, r.Reason, r.Body, r.Took)
	}
	wantDead(t, pidIn(t, file))
	if r := shell(t, scripts, 20, "true").Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("afterwards: %d %s", r.Code, r.Body)
	}
	if r := c.Check(ctx, check.Target{}); r.Reason != check.ReasonCancelled {
		t.Errorf("run for a caller that has left: %s", r.Body)
	}
}

func TestScriptLimit(t *testing.T) {
	path, release := fifo(t)
	scripts := check.NewScripts(1)
	first := make(chan check.Result, 1)
	holding := shell(t, scripts, 20, `cat $1`, path)
	go func() { first <- holding.Check(t.Context(), check.Target{}) }()
	for scripts.Running() < 1 {
		runtime.Gosched()
	}
	r := shell(t, scripts, 0.05, "echo never").Check(t.Context(), check.Target{})
	if r.Code != 503 || r.Reason != check.ReasonBusy || !strings.HasPrefix(string(r.Body), "sh was not run: 1 scripts, as many as may, run already") {
		t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
	}
	release()
	if r := <-first; r.Code != 200 {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	defer func() {
		if recover() == nil {
			t.Error("a limit of 0 and no panic")
		}
	}()
	check.NewScripts(0)
}

// Many runs leave no process, descriptor or goroutine. HACHECK_LONG=1 makes ten thousand runs.
func TestScriptsLeaveNothing(t *testing.T) {
	runs := 300
	if os.Getenv("HACHECK_LONG") != "" {
		runs = 10_000
	}
	// The first script opens descriptors that stay open: the runtime's poller.
	if r := build(t, check.Defaults{}, "script", map[string]any{"command": "true"}).Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	here := goleak.IgnoreCurrent()
	before := descriptors(t)
	const side = 6
	scripts := check.NewScripts(side)
	var workers sync.WaitGroup
	for w := range side {
		// Commands of its own, so that every run is one: equal ones would share.
		own := fmt.Sprintf(" # %d", w)
		checks := []*check.ConfiguredCheck{
			shell(t, scripts, 20, "exit 0"+own),
			shell(t, scripts, 20, "echo no; exit 1"+own),
			shell(t, scripts, 20, "sleep 60 & exit 0"+own),
			shell(t, scripts, 0.02, "sleep 60"+own),
			build(t, check.Defaults{Scripts: scripts}, "script", map[string]any{"command": "/no/such/file" + own}),
			shell(t, scripts, 20, "kill -9 $$"+own),
		}
		workers.Go(func() {
			for i := range runs/side + 1 {
				if r := checks[(w+i)%len(checks)].Check(t.Context(), check.Target{Service: "web"}); len(r.Body) == 0 {
					t.Error("no answer")
				}
			}
		})
	}
	workers.Wait()
	if err := goleak.Find(here); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
	if n := scripts.Running() + scripts.Callers(); n != 0 {
		t.Errorf("%d count as running", n)
	}
}

// descriptors returns how many descriptors this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
