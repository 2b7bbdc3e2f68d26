package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hastatusCommand returns hastatus with these arguments and no daemon that answers. The test binary acts as hastatus.
func hastatusCommand(t *testing.T, root string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Args = append([]string{"hastatus", "--spool-root", root, "-p", refusingPort(t)}, args...)
	cmd.Env = append(os.Environ(), "TEST_NOW=", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// ptyOutput is what a command writes to a pseudoterminal.
type ptyOutput struct {
	mu   sync.Mutex
	text string
}

func (o *ptyOutput) read(f *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := f.Read(b)
		o.mu.Lock()
		o.text += string(b[:n])
		o.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// await waits until the output since the last call of await contains want, and forgets what came before it.
func (o *ptyOutput) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		o.mu.Lock()
		_, rest, isThere := strings.Cut(o.text, want)
		text := o.text
		if isThere {
			o.text = rest
		}
		o.mu.Unlock()
		if isThere {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the terminal does not show %q:\n%q", want, text)
		}
	}
}

// openPTY returns both ends of a pseudoterminal of 80 columns and 24 rows.
func openPTY(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	resize(t, keyboard, 80, 24)
	return keyboard, tty
}

func resize(t *testing.T, keyboard *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// TestWatchTerminal: the overview is drawn in place, follows changes and the size of the window, and the terminal is as
// before at the end, by q and by ^C. No shell could continue it, as with "ssh -t", so it ignores ^Z.
func TestWatchTerminal(t *testing.T) {
	t.Parallel()
	for end, key := range map[string]string{"q": "q", "^C": "\x03"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			keyboard, tty := openPTY(t)
			before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			cmd := hastatusCommand(t, root, "--watch=0.2s")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out := &ptyOutput{}
			go out.read(keyboard)
			out.await(t, "\x1b[?1049h\x1b[?25l\x1b[Hhastatus every 200ms, ")
			out.await(t, "\r\n  No overrides in "+root)
			out.await(t, "\r\n  Cannot read which services were requested lately: ")
			if _, err := keyboard.WriteString("\x1a"); err != nil {
				t.Fatal(err)
			}
			out.await(t, "\x1b[Hhastatus every ")
			if err := os.WriteFile(filepath.Join(root, "web"), []byte("kernel upgrade"), 0o644); err != nil {
				t.Fatal(err)
			}
			out.await(t, "\r\n\x1b[7m* Overrides in "+root)
			out.await(t, "\r\n\x1b[7m* down   web")
			out.await(t, "kernel upgrade\x1b[0m\x1b[K")
			resize(t, keyboard, 60, 3)
			out.await(t, "\r\nand ")
			out.await(t, " more lines\x1b[K\x1b[J")
			if _, err := keyboard.WriteString("x" + key); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s ends it with %v", end, err)
			}
			out.await(t, "\x1b[?25h\x1b[?1049l")
			after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if *after != *before {
				t.Errorf("the terminal is %+v afterwards, it was %+v", after, before)
			}
		})
	}
}

// TestWatchSuspend: after ^Z the shell has the terminal as it was before, and after fg hastatus has the screen and the
// keys.
func TestWatchSuspend(t *testing.T) {
	t.Parallel()
	keyboard, tty := openPTY(t)
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := hastatusCommand(t, t.TempDir(), "--watch=0.2s")
	const script = `set -m; (exec -a hastatus "$0" "$@"); for i in {1..10}; do echo; read -r; fg %1; done`
	args := append([]string{"bash", "-c", script, cmd.Path}, cmd.Args[1:]...)
	if cmd.Path, err = exec.LookPath("bash"); err != nil {
		t.Fatal(err)
	}
	cmd.Args = args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := &ptyOutput{}
	go out.read(keyboard)
	for range 10 {
		out.await(t, "No overrides in ")
		if _, err := keyboard.WriteString("\x1a"); err != nil {
			t.Fatal(err)
		}
		out.await(t, "\x1b[?25h\x1b[?1049l\r\n[1]+  Stopped")
		if now, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil || *now != *before {
			t.Fatalf("the shell gets the terminal as %+v, %v; it was %+v", now, err, before)
		}
		if _, err := keyboard.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
		out.await(t, "\x1b[?1049h\x1b[?25l\x1b[Hhastatus every 200ms, ")
	}
	if _, err := keyboard.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("q after fg: %v", err)
	}
}

// TestWatchPipe: without a terminal there is one block, or with --json one document, after the other.
func TestWatchPipe(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	start := func(args ...string) (*exec.Cmd, *bufio.Scanner) {
		t.Helper()
		cmd := hastatusCommand(t, root, args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, bufio.NewScanner(out)
	}
	end := func(cmd *exec.Cmd) {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("SIGINT ends it with %v", err)
		}
	}

	cmd, lines := start("--watch=0.2s")
	blocks := 0
	for blocks < 3 && lines.Scan() {
		if _, err := time.Parse(time.DateTime, lines.Text()); err == nil {
			blocks++
		}
		if strings.Contains(lines.Text(), "\x1b") {
			t.Errorf("a pipe gets %q", lines.Text())
		}
	}
	if blocks != 3 {
		t.Errorf("it ends after %d blocks: %v", blocks, lines.Err())
	}
	end(cmd)

	for _, args := range [][]string{{"--watch=0.2s", "--json"}, {"--watch=0.2s", "--json", "--fleet", "--control-socket", filepath.Join(root, "none")}} {
		cmd, lines := start(args...)
		for range 3 {
			var doc struct {
				DaemonErr string `json:"daemon_error"`
				Error     string `json:"error"`
			}
			if !lines.Scan() || json.Unmarshal(lines.Bytes(), &doc) != nil || doc.DaemonErr+doc.Error == "" {
				t.Fatalf("%v: %q is no document that says that the daemon is away", args, lines.Text())
			}
		}
		end(cmd)
	}
}
