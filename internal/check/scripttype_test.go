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
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/check"
)

// shell returns a script check of a few lines of sh, whose arguments are $1 and so on.
func shell(t testing.TB, scripts *check.Scripts, timeout float64, lines string, args ...string) *check.ConfiguredCheck {
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
		"healthy":             {"true", 200, check.ReasonAnswered, "true exited with 0 after 0."},
		"says so":             {`sh -c "echo all is well"`, 200, check.ReasonAnswered, ": all is well"},
		"not":                 {"false", 503, check.ReasonFailed, "false exited with 1 after 0."},
		"a list":              {[]any{"sh", "-c", "exit $1", "x", 3}, 503, check.ReasonFailed, "sh exited with 3"},
		"why, on both":        {`sh -c "echo one; echo two >&2; exit 2"`, 503, check.ReasonFailed, ": one two"},
		"ended by a signal":   {`sh -c "kill -TERM $$"`, 503, check.ReasonFailed, "was ended by signal 15 (terminated)"},
		"control characters":  {`printf "\033[31mred\r\nnext\0\377é\n"`, 200, check.ReasonAnswered, ": [31mred  next  é"},
		"no shell":            {`echo a|cat $HOME *`, 200, check.ReasonAnswered, ": a|cat $HOME *"},
		"no such program":     {"no-such-program-here", 500, check.ReasonConfig, "Cannot start no-such-program-here: it is in no directory of PATH"},
		"no such file":        {"/no/such/file", 500, check.ReasonConfig, "Cannot start /no/such/file: no such file, or its interpreter is missing"},
		"not a program":       {"/dev/null", 500, check.ReasonConfig, "Cannot start /dev/null: permission denied"},
		"arguments not shown": {"sh -c 'exit 1' --password s3cret", 503, check.ReasonFailed, "sh exited with 1"},
		"nothing on stdin":    {"cat", 200, check.ReasonAnswered, "cat exited with 0"},
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

// A script inherits no descriptor of hacheck, neither its listeners nor the connections of other checks.
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
		// 3 is the directory that ls reads. The parent of the test process may pass on others.
		flags, _, no := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if fd > 3 && (no != 0 || flags&syscall.FD_CLOEXEC != 0) {
			t.Errorf("descriptor %d is open in a script: %s", fd, r.Body)
		}
	}
}

// A script that writes a lot is not blocked, and the output that is kept is bounded.
func TestScriptOutput(t *testing.T) {
	r := shell(t, nil, 20, "head -c 1000000 /dev/zero | tr '\\0' x; exit 1").Check(t.Context(), check.Target{})
	if r.Code != 503 || r.Reason != check.ReasonFailed || bytes.Count(r.Body, []byte("x")) < 4<<10 || len(r.Body) > 5<<10 {
		t.Errorf("%d %s, %d bytes", r.Code, r.Reason, len(r.Body))
	}
	// Output just before the end is not lost.
	for range 50 {
		r := build(t, check.Defaults{}, "script", map[string]any{"command": "echo last words"}).Check(t.Context(), check.Target{})
		if !strings.HasSuffix(string(r.Body), ": last words") {
			t.Fatalf("%s", r.Body)
		}
	}
}

// pidIn returns the process id that a script has written to a file.
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

// wantDead waits for a process to end. A zombie counts as ended.
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

// At the timeout the whole process group is killed. The check waits neither for a child that ignores SIGTERM, nor for
// one that holds the output, nor for one that has left the group.
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
			if want := strings.TrimSuffix(string(r.Body), ": why"); r.Err.Error() != want {
				t.Errorf("the log says %q, want %q", r.Err, want)
			}
			if !errors.Is(r.Err, context.DeadlineExceeded) {
				t.Errorf("the cause of %v is not the deadline", r.Err)
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

// When a script exits, the rest of its group is killed. The check does not wait for it, although it holds the output.
func TestScriptLeavesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	r := shell(t, nil, 20, `sleep 60 & echo $! >$1; echo fine`, file).Check(t.Context(), check.Target{})
	if r.Code != 200 || !strings.HasSuffix(string(r.Body), ": fine") || r.Took > 10*time.Second {
		t.Errorf("%d %s after %v", r.Code, r.Body, r.Took)
	}
	wantDead(t, pidIn(t, file))
}
