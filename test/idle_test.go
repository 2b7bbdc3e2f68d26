package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestScrapesLeakNothing: scrapes leak no goroutine and no descriptor.
func TestScrapesLeakNothing(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	names := []string{"go_goroutines", "process_open_fds"}
	before := map[string]float64{}
	// The first requests create goroutines and descriptors that stay, those of the runtime.
	for range 3 {
		for _, name := range names {
			before[name] = d.metric(name)
		}
	}
	parallel(4, func(int) {
		for range 250 {
			// The daemon answers four scrapes at a time and rejects a fifth.
			if a, err := get(d.url + "/metrics"); err != nil || a.code != 200 {
				t.Errorf("%v %d %.200s", err, a.code, a.body)
			}
		}
	})
	for _, name := range names {
		eventually(t, func() error {
			if now := d.metric(name); now > before[name] {
				return fmt.Errorf("%s was %v, and is %v after 1,000 scrapes", name, before[name], now)
			}
			return nil
		})
	}
}

// TestIdle: a daemon without requests sleeps. HACHECK_LONG=1 watches it for a minute.
func TestIdle(t *testing.T) {
	t.Parallel()
	// Once a minute the Go runtime looks after itself, with some 20 calls. Where the machine is busy its monitor
	// takes some naps of 20 µs more until all is quiet again, as many as that takes: the short look counts none.
	length, most, naps := 10*time.Second, 30, "nanosleep("
	if os.Getenv("HACHECK_LONG") != "" {
		length, most, naps = time.Minute, 60, "no naps"
	}
	d := startPlainDaemon(t)
	if a := d.get("/spool/web/0/"); a.code != 200 {
		t.Fatalf("got %d %s", a.code, a.body)
	}
	var log string
	// The first measurement covers work that is left after that answer.
	for _, l := range []time.Duration{2 * time.Second, length} {
		file := filepath.Join(t.TempDir(), "strace")
		s := exec.Command(findTool(t, "strace"), "-f", "-o", file, "-p", strconv.Itoa(d.cmd.Process.Pid))
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		// The test measures the system calls of this time.
		<-time.After(l)
		_ = s.Process.Signal(os.Interrupt)
		_ = s.Wait()
		log = readFile(t, file)
	}
	calls := 0
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "resumed>") && !strings.Contains(line, "<detached") && !strings.Contains(line, "restart_syscall(") && !strings.Contains(line, naps) {
			calls++
		}
	}
	t.Logf("%d calls in %v", calls, length)
	if log == "" || calls >= most {
		t.Errorf("%d calls in %v, want fewer than %d:\n%s", calls, length, most, log)
	}
}

// startPlainDaemon starts a daemon without the race detector, which has threads of its own.
func startPlainDaemon(t *testing.T) *daemon {
	t.Helper()
	dir := t.TempDir()
	plain := bin(t, "hacheck")
	if raceEnabled {
		plain = filepath.Join(dir, "hacheck")
		build := exec.Command("go", "build", "-tags", "grpcnotrace", "-buildvcs=false", "-o", plain, "./cmd/hacheck")
		build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	d := newDaemon(t, "127.0.0.1", freePort(t), filepath.Join(dir, "spool"))
	d.launch(plain)
	return d
}
