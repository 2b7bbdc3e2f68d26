package check_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/check"
)

// shell is a script check of a few lines of sh, which find their arguments in $1 and so on.
func shell(t testing.TB, scripts *check.Scripts, timeout float64, lines string, args ...string) *check.Configured {
	t.Helper()
	command := []any{"sh", "-c", lines, "script"}
	for _, a := range args {
		command = append(command, a)
	}
	return build(t, check.Defaults{Scripts: scripts}, "script", map[string]any{"command": command, "timeout": timeout})
}

func TestScript(t *testing.T) {
	for name, c := range map[string]struct {
		command any
		code    int
		reason  check.Reason
		want    string // part of the text
	}{
		"healthy":             {"true", 200, check.ReasonOK, "true exited with 0 after 0."},
		"says so":             {`sh -c "echo all is well"`, 200, check.ReasonOK, ": all is well"},
		"not":                 {"false", 503, check.ReasonFailed, "false exited with 1 after 0."},
		"a list":              {[]any{"sh", "-c", "exit $1", "x", 3}, 503, check.ReasonFailed, "sh exited with 3"},
		"why, on both":        {`sh -c "echo one; echo two >&2; exit 2"`, 503, check.ReasonFailed, ": one two"},
		"ended by a signal":   {`sh -c "kill -TERM $$"`, 503, check.ReasonFailed, "was ended by signal 15 (terminated)"},
		"control characters":  {`printf "\033[31mred\r\nnext\0\377é\n"`, 200, check.ReasonOK, ": [31mred  next  é"},
		"no shell":            {`echo a|cat $HOME *`, 200, check.ReasonOK, ": a|cat $HOME *"},
		"no such program":     {"no-such-program-here", 500, check.ReasonConfig, "Cannot start no-such-program-here: it is in no directory of PATH"},
		"no such file":        {"/no/such/file", 500, check.ReasonConfig, "Cannot start /no/such/file: no such file, or its interpreter is missing"},
		"not a program":       {"/dev/null", 500, check.ReasonConfig, "Cannot start /dev/null: permission denied"},
		"arguments not shown": {"sh -c 'exit 1' --password s3cret", 503, check.ReasonFailed, "sh exited with 1"},
		"nothing on stdin":    {"cat", 200, check.ReasonOK, "cat exited with 0"},
	} {
		t.Run(name, func(t *testing.T) {
			here := goleak.IgnoreCurrent()
			configured := build(t, check.Defaults{}, "script", map[string]any{"command": c.command})
			r := configured.Check(t.Context(), check.Target{Service: "web"})
			if r.Code != c.code || r.Reason != c.reason || !strings.Contains(string(r.Body), c.want) || (r.Err == nil) != (r.Code == 200) || r.Took <= 0 {
				t.Errorf("%d %s %q (%v) after %v", r.Code, r.Reason, r.Body, r.Err, r.Took)
			}
			if strings.Contains(fmt.Sprint(r, r.Err, configured.Name, configured.Steps[0].Name), "s3cret") {
				t.Errorf("shows an argument: %s %s", configured.Name, r.Body)
			}
			if err := goleak.Find(here); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestScriptDefaults(t *testing.T) {
	for want, d := range map[time.Duration]check.Defaults{
		5 * time.Second: {},
		3 * time.Second: {Timeout: 3 * time.Second},
	} {
		if got := build(t, d, "script", map[string]any{"command": "true"}).Timeout; got != want {
			t.Errorf("timeout %v, want %v", got, want)
		}
	}
	if got := build(t, check.Defaults{}, "script", map[string]any{"command": "true", "timeout": 0.5}).Timeout; got != 500*time.Millisecond {
		t.Errorf("timeout %v of its own", got)
	}
	for _, command := range []any{nil, "", "a 'b", true, []any{}, []any{""}, []any{"a", true}, []any{"a\x00"}, map[string]any{}, 1} {
		c, err := check.Build(check.Spec{Type: "script", Options: map[string]any{"command": command}}, check.Defaults{})
		var option *check.OptionError
		if !errors.As(err, &option) || option.Option != "command" {
			t.Errorf("%#v: %v, %v", command, c, err)
		}
	}
}

func TestScriptEnvironment(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	t.Setenv("HACHECK_TEST_SECRET", "s3cret")
	c := build(t, check.Defaults{}, "script", map[string]any{"command": "env"})
	r := c.Check(t.Context(), check.Target{Service: "web", Host: "127.0.0.1", Port: 8080})
	if want := ": PATH=/usr/bin:/bin LANG=C.UTF-8 HACHECK_SERVICE=web HACHECK_PORT=8080"; !strings.HasSuffix(string(r.Body), want) {
		t.Errorf("environment %s, want %s", r.Body, want)
	}
	t.Setenv("PATH", "")
	c = build(t, check.Defaults{}, "script", map[string]any{"command": "/usr/bin/env"})
	r = c.Check(t.Context(), check.Target{})
	if want := ": PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HACHECK_SERVICE= HACHECK_PORT=0"; !strings.HasSuffix(string(r.Body), want) {
		t.Errorf("environment %s, want %s", r.Body, want)
	}
}

// Scripts get no descriptor of hacheck's: not its listeners, not the connections of other checks.
func TestScriptDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := build(t, check.Defaults{}, "script", map[string]any{"command": "ls /dev/fd/"}).Check(t.Context(), check.Target{})
	_, list, _ := strings.Cut(string(r.Body), ": ")
	seen := strings.Fields(list)
	if len(seen) < 4 {
		t.Fatalf("%s", r.Body)
	}
	for _, text := range seen {
		fd, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s", r.Body)
		}
		// 3 is the directory that ls reads. Whoever started the tests may have left them others, to be handed on.
		flags, _, no := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if fd > 3 && (no != 0 || flags&syscall.FD_CLOEXEC != 0) {
			t.Errorf("descriptor %d is open in a script: %s", fd, r.Body)
		}
	}
}

// A script that writes without end is not held up, and what is kept of it is bounded.
func TestScriptOutput(t *testing.T) {
	r := shell(t, nil, 20, "head -c 1000000 /dev/zero | tr '\\0' x; exit 1").Check(t.Context(), check.Target{})
	if r.Code != 503 || r.Reason != check.ReasonFailed || bytes.Count(r.Body, []byte("x")) < 4<<10 || len(r.Body) > 5<<10 {
		t.Errorf("%d %s, %d bytes", r.Code, r.Reason, len(r.Body))
	}
	// The last words of a script are not lost, however soon it ends after them.
	for range 50 {
		r := build(t, check.Defaults{}, "script", map[string]any{"command": "echo last words"}).Check(t.Context(), check.Target{})
		if !strings.HasSuffix(string(r.Body), ": last words") {
			t.Fatalf("%s", r.Body)
		}
	}
}

// pidIn is the process number that a script has written to a file.
func pidIn(t testing.TB, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		t.Fatalf("%q is no process: %v", text, err)
	}
	return pid
}

// wantDead waits for a process to end; nobody may ever have read its status.
func wantDead(t testing.TB, pid int) {
	t.Helper()
	late, again := time.After(5*time.Second), time.NewTicker(time.Millisecond)
	defer again.Stop()
	for alive(pid) {
		select {
		case <-late:
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Errorf("process %d was left running", pid)
			return
		case <-again.C:
		}
	}
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return runtime.GOOS != "linux"
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z"))
}

// At the timeout the whole group dies, and nothing is waited for: not a child that ignores SIGTERM, nor one
// that holds the output, nor one that has left the group.
func TestScriptTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		lines  string
		leaves bool // the child has left the group, so it lives on
	}{
		"itself":             {`echo $$ >$1; echo why; sleep 60`, false},
		"ignores SIGTERM":    {`trap "" TERM HUP INT; echo $$ >$1; echo why; sleep 60; sleep 60`, false},
		"holds the output":   {`sleep 60 & echo $! >$1; echo why; wait`, false},
		"leaves the group":   {`setsid sh -c 'echo $$ >'$1'.new; mv '$1'.new '$1'; exec sleep 60' & while ! [ -e $1 ]; do :; done; echo why; wait`, true},
		"forks without wait": {`(sleep 60 & echo $! >$1; sleep 60) & echo why; wait`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.leaves && runtime.GOOS != "linux" {
				t.Log("other systems have no setsid command")
				return
			}
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			// Time enough for the shell to get there on a machine that stalls.
			start := time.Now()
			r := shell(t, nil, 3, c.lines, file).Check(t.Context(), check.Target{})
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if r.Code != 503 || r.Reason != check.ReasonTimeout || !strings.HasPrefix(string(r.Body), "sh was killed after 3.") || !strings.HasSuffix(string(r.Body), ": why") {
				t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
			}
			pid := pidIn(t, file)
			if c.leaves {
				if !alive(pid) {
					t.Error("the child that left has died, so this proves nothing")
				}
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			wantDead(t, pid)
		})
	}
}

// What a script leaves behind in its group ends with it, and is not waited for though it holds the output.
func TestScriptLeavesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	r := shell(t, nil, 20, `sleep 60 & echo $! >$1; echo fine`, file).Check(t.Context(), check.Target{})
	if r.Code != 200 || !strings.HasSuffix(string(r.Body), ": fine") || r.Took > 10*time.Second {
		t.Errorf("%d %s after %v", r.Code, r.Body, r.Took)
	}
	wantDead(t, pidIn(t, file))
}

// fifo is a pipe in the file system: a script that reads it waits until release is called, which waits for
// the script in turn.
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

// 50 askers, one run.
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

// For other services it is another question, but still never two of one command at once.
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

// Those who wait for a run that they cannot share are served by the next one, all of them, in order of arrival.
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
	if scripts.Callers() != 0 {
		t.Errorf("%d still wait", scripts.Callers())
	}
}

// One who cannot wait so long is told, and the run goes on for the others.
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

// A script that nobody waits for dies, and its place is free.
func TestScriptCancelled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	path, _ := fifo(t)
	scripts := check.NewScripts(1)
	c := shell(t, scripts, 20, `echo $$ >$1; echo go >$2; sleep 60`, file, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan check.Result, 1)
	go func() { done <- c.Check(ctx, check.Target{}) }()
	if _, err := os.ReadFile(path); err != nil { // until it has come that far
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
		t.Errorf("run for somebody who has left: %s", r.Body)
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

// However many have run: no process, no descriptor, no goroutine. HACHECK_LONG=1 runs ten thousand.
func TestScriptsLeaveNothing(t *testing.T) {
	runs := 300
	if os.Getenv("HACHECK_LONG") != "" {
		runs = 10_000
	}
	// The first script of a process makes what stays: the descriptors by which the runtime waits for the others.
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
		checks := []*check.Configured{
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

// descriptors is how many files this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
