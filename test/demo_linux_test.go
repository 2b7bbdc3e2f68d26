package test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pseudoTerminal returns a pseudo terminal of 60 columns and 20 rows. keyboard is its master side.
func pseudoTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 60}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return keyboard, tty
}

// TestDemoTerminal: on a terminal the demo redraws its view in place, with colours unless they are disabled. ^C ends
// all processes of the demo.
func TestDemoTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, env   string
		drawn, reds bool
	}{
		{"colours", "NO_COLOR=", true, true},
		{"no colours", "NO_COLOR=1", true, false},
		{"dumb", "TERM=dumb", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd, tmp := demoCommand(t, "-pace", "0")
			keyboard, tty := pseudoTerminal(t)
			cmd.Env = append(cmd.Env, tt.env)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = tty.Close() // so that the keyboard's end reads an error when the demo has ended
			kill := time.AfterFunc(waitLimit, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			var out bytes.Buffer
			for typed := false; ; {
				buf := make([]byte, 4096)
				n, err := keyboard.Read(buf)
				out.Write(buf[:n])
				if err != nil {
					break
				}
				if !typed && strings.Contains(out.String(), "web1 NOLB") {
					typed = true
					if len(demoProcesses(t, tmp)) < 3 {
						t.Error("not even hacheck, HAProxy and hadown --wait run")
					}
					if _, err := keyboard.WriteString("\x03"); err != nil {
						t.Error(err)
					}
				}
			}
			if err := cmd.Wait(); exitCode(err) != 130 {
				t.Errorf("%v, want exit 130", err)
			}
			expectNothingLeft(t, tmp)
			text := out.String()
			if !strings.HasSuffix(text, "demo: interrupt, all is cleaned up\r\n") {
				t.Errorf("ends with %q", text[max(0, len(text)-200):])
			}
			if got := strings.Contains(text, "\x1b[4A"); got != tt.drawn {
				t.Errorf("drawn in place: %v, want %v", got, tt.drawn)
			}
			if got := strings.Contains(text, "\x1b[31m"); got != tt.reds {
				t.Errorf("in colours: %v, want %v", got, tt.reds)
			}
		})
	}
}
