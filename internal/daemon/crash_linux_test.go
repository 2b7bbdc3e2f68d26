package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// crasher builds the daemon with testdata/crash, which has it crash on SIGUSR1.
var crasher = sync.OnceValues(func() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	command := filepath.Join(here, "../../cmd/hacheck")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(command, "crash_on_purpose.go"): filepath.Join(here, "testdata/crash/crash.go"),
	}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(binary), "crasher") // TestMain removes it
	if err := os.WriteFile(path+".json", overlay, 0o600); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", path+".json", "-o", path, command)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", &os.PathError{Op: "build", Path: string(out), Err: err}
	}
	return path, nil
})

// launchCrasher starts program, a build of the daemon, in a directory where a crash could write a core file.
func launchCrasher(t *testing.T, program string, args ...string) *process {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if files, err := filepath.Glob(filepath.Join(dir, "core*")); err != nil || len(files) > 0 {
			t.Errorf("a core file was written: %v, %v", files, err)
		}
	})
	return launch(t, func(c *exec.Cmd) {
		c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", `ulimit -S -c "$(ulimit -H -c)"; exec "$0" "$@"`, program}, c.Args[1:]...)
		c.Dir, c.Stdout = dir, c.Stderr
		c.Env = append(c.Env, "GOTRACEBACK=single", "CRASH="+filepath.Join(dir, "kind"))
	}, args...)
}

// wantSignal waits until the process has ended by that signal.
func (p *process) wantSignal(want syscall.Signal) {
	p.t.Helper()
	p.exit()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != want {
		p.t.Errorf("it ended with %v, want signal %v:\n%.2000s", p.cmd.ProcessState, want, p.log())
	}
	if status.CoreDump() {
		p.t.Error("the kernel says that it has dumped the core")
	}
}

// TestCrash: every kind of crash ends the daemon by a signal and not with the status of a wrong configuration, after
// which systemd does not restart it. The stack trace is in the log, and no core file is written.
func TestCrash(t *testing.T) {
	t.Parallel()
	program, err := crasher()
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{
		"panic":                 `panic: on purpose`,
		"nil pointer":           `panic: runtime error: invalid memory address or nil pointer dereference`,
		"concurrent map writes": `fatal error: concurrent map writes`,
		"stack overflow":        `exceeds 67108864-byte limit`,
		"out of memory":         `fatal error: (runtime: )?(out of memory|cannot allocate memory)`, // by what did not fit
	} {
		for name, args := range map[string][]string{
			"daemon":    {"-B", "127.0.0.1", "-p", "0"},
			"aggregate": {"aggregate", "--listener", "127.0.0.1:0", "--port", "1"},
			"beacon":    {"beacon", "1", port(t, freeAddr(t))},
		} {
			if name != "daemon" && kind != "panic" {
				continue
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				p := launchCrasher(t, program, args...)
				writeFile(t, filepath.Join(p.cmd.Dir, "kind"), kind)
				p.waitForLog(regexp.MustCompile(`hacheck answers|hacheck aggregate answers|Starting UDP Healther`))
				if limit := coreLimit(t, p.cmd.Process.Pid); limit != 0 {
					t.Errorf("core files may have %d bytes", limit)
				}
				p.signal(syscall.SIGUSR1)
				p.wantSignal(syscall.SIGABRT)
				if !regexp.MustCompile(want).MatchString(p.log()) || !strings.Contains(p.log(), "goroutine ") {
					t.Errorf("the log does not say %s:\n%.2000s", want, p.log())
				}
				p.mu.Lock()
				p.stderr.Reset() // or launch would report the panic
				p.mu.Unlock()
			})
		}
	}
}

// coreLimit is the limit of core files of a process.
func coreLimit(t *testing.T, pid int) uint64 {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	return limit.Cur
}

// TestSignalsNeverExitTwo: no signal ends the daemon with the status of a wrong configuration, not even SIGABRT of the
// watchdog.
func TestSignalsNeverExitTwo(t *testing.T) {
	t.Parallel()
	for signal, by := range map[syscall.Signal]syscall.Signal{
		syscall.SIGABRT: syscall.SIGABRT, syscall.SIGSEGV: syscall.SIGABRT, syscall.SIGBUS: syscall.SIGABRT,
		syscall.SIGFPE: syscall.SIGABRT, syscall.SIGILL: syscall.SIGABRT, syscall.SIGTRAP: syscall.SIGABRT,
		syscall.SIGSYS: syscall.SIGABRT, syscall.SIGKILL: syscall.SIGKILL,
		syscall.SIGTERM: 0, syscall.SIGINT: 0, syscall.SIGQUIT: 0, // 0: ends with status 0
	} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			p := launchCrasher(t, binary, "-B", "127.0.0.1", "-p", "0")
			p.waitReady()
			p.signal(signal)
			if by == 0 {
				p.wantExit(0)
				return
			}
			p.wantSignal(by)
		})
	}
}

// TestMemoryIsPrivate: the kernel passes the daemon's memory neither to a program that collects core files nor to another
// process of the same user. The daemon can still read its own files in /proc.
func TestMemoryIsPrivate(t *testing.T) {
	t.Parallel()
	// Not below t.TempDir, which other users cannot read.
	spool, err := os.MkdirTemp(filepath.Dir(binary), "spool")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(spool, 0o777); err != nil {
		t.Fatal(err)
	}
	p := launch(t, func(c *exec.Cmd) {
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		c.Dir = filepath.Dir(binary)
	}, "--spool-root", spool, "-B", "127.0.0.1", "-p", "0")
	p.waitReady()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The files in /proc of a process that must not be dumped belong to root, whatever its user is.
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("its memory belongs to user %d", owner)
	}
	_, body, err := p.get("/metrics")
	if err != nil || !strings.Contains(body, "\nprocess_open_fds ") || !strings.Contains(body, "\nprocess_resident_memory_bytes ") {
		t.Errorf("the metrics do not have its descriptors and memory: %v", err)
	}
}
