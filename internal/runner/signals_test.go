package runner

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestInterrupt: a signal ends the run, and the results so far are printed.
func TestInterrupt(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sig  os.Signal
		code int
	}{{os.Interrupt, 130}, {syscall.SIGTERM, 143}} {
		cmd := exec.CommandContext(t.Context(), exe, "run", "-Uv", writeChecks(t, "60", openPort(t), hangingPort(t)))
		cmd.Args[0] = "hacheck"
		cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var lines []string
		started := 0
		for s := bufio.NewScanner(out); s.Scan(); {
			lines = append(lines, s.Text())
			if strings.HasPrefix(s.Text(), "Starting") || strings.HasSuffix(s.Text(), " OK") {
				if started++; started == 3 { // both checks have started and one has passed
					if err := cmd.Process.Signal(test.sig); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		var failed *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &failed) || failed.ExitCode() != test.code {
			t.Errorf("%v: %v, want exit %d\n%s", test.sig, err, test.code, strings.Join(lines, "\n"))
		}
		if last := lines[len(lines)-1]; !strings.HasSuffix(last, " FAILED - not finished: interrupted") {
			t.Errorf("last line %q", last)
		}
	}
}

// TestIgnoredSignalStaysIgnored runs as under nohup.
func TestIgnoredSignalStaysIgnored(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `trap "" HUP; exec -a hacheck "$0" run -U --max-timeout 0.5 "$1"`
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script, exe, writeChecks(t, "60", openPort(t), hangingPort(t)))
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.HasSuffix(s.Text(), " OK") {
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
	var failed *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &failed) || failed.ExitCode() != 2 {
		t.Errorf("%v, want exit 2", err)
	}
}
