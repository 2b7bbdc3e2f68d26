package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running server.
type process struct {
	name string
	cmd  *exec.Cmd
	out  tail
	done chan struct{} // closed when it has ended
}

// start starts a server.
func (c *cluster) start(program string, args ...string) error {
	p := &process{name: filepath.Base(program), cmd: exec.Command(program, args...), done: make(chan struct{})} //nolint:gosec // named by the flags and the PATH of the user
	p.cmd.Dir = c.dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = ownProcessGroup()
	p.cmd.WaitDelay = stopTimeout
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // the exit code does not matter
		close(p.done)
	}()
	c.processes = append(c.processes, p)
	return nil
}

// output returns the end of the output of the process.
func (p *process) output() string {
	if text := strings.TrimSpace(p.out.String()); text != "" {
		return "it printed\n" + text
	}
	return "it printed nothing"
}

// stop ends the process with SIGTERM, after stopTimeout with SIGKILL.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// waitReady waits until ready returns nil. It returns an error if the process that was started last ends.
func (c *cluster) waitReady(ctx context.Context, ready func() error) error {
	p := c.processes[len(c.processes)-1]
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(startTimeout); ; {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at its start: %s", p.name, p.output())
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w; %s", p.name, err, p.output())
		}
	}
}

// logs returns the end of the output of each server.
func (c *cluster) logs() string {
	var b strings.Builder
	for _, p := range c.processes {
		fmt.Fprintf(&b, "\n%s: %s", p.name, p.output())
	}
	return b.String()
}

// command is a running command line.
type command struct {
	done chan struct{} // closed when it has ended and all of its output was received; then exit is set
	exit int           // its exit code, -1 if it was killed
}

// ended reports whether the command has ended.
func (c *command) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// runShell starts a command line in a shell with that PATH. It sends the lines of its output to lines, each after the
// prefix; the caller must receive them.
func (c *cluster) runShell(ctx context.Context, path, commandLine, prefix string, lines chan<- string) (*command, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", commandLine) //nolint:gosec // the lines are constants of this program, shown as they are typed
	cmd.Env = append(os.Environ(), "PATH="+path)
	cmd.Dir = c.dir
	cmd.SysProcAttr = ownProcessGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	run := &command{done: make(chan struct{})}
	go func() {
		defer close(run.done)
		printed := bufio.NewScanner(out)
		for printed.Scan() {
			select {
			case lines <- prefix + printed.Text():
			case <-ctx.Done():
			}
		}
		_, _ = io.Copy(io.Discard, out) // the scanner stops at a line that is too long
		_ = cmd.Wait()                  // exit has the result
		run.exit = cmd.ProcessState.ExitCode()
	}()
	return run, nil
}

// tail is a writer that keeps the last tailBytes bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailBytes; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
