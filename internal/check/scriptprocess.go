package check

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// reapTimeout is how long callers wait for a killed script to end. A script in a system call on a dead disk only ends
// when the call returns. It keeps its slot until then.
const reapTimeout = time.Second

// exec runs the command. It calls publish with the result once the script has exited or was killed, and returns when
// the process is reaped, which may be later.
func (run *scriptRun) exec(ctx context.Context, publish func(Result)) {
	cmd, output, err := run.startProcess()
	if err != nil {
		publish(run.notStarted(err))
		return
	}
	exited := make(chan struct{})
	go func() {
		waitExit(cmd)
		close(exited)
	}()
	killed := false
	select {
	case <-exited:
	case <-ctx.Done():
		killed = true
		killGroup(cmd)
		late := time.NewTimer(reapTimeout)
		defer late.Stop()
		select {
		case <-exited:
		case <-late.C:
			// The callers get the result now. The command cannot start again before this process has ended.
			publish(run.killed(ctx, output.finish(), ", and does not die"))
			<-exited
			killGroup(cmd)
			reap(cmd)
			return
		}
	}
	// What the script left behind in its group ends with it: a script is started to check, not to serve.
	killGroup(cmd)
	reap(cmd)
	if killed {
		publish(run.killed(ctx, output.finish(), ""))
		return
	}
	publish(run.exited(cmd.ProcessState, output.finish()))
}

// startProcess starts the script with stdout and stderr going to the returned reader.
func (run *scriptRun) startProcess() (*exec.Cmd, *outputReader, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(run.argv[0], run.argv[1:]...) //nolint:gosec // only the configuration names commands
	cmd.Env, cmd.Stdout, cmd.Stderr = run.environ(), write, write
	cmd.SysProcAttr = scriptGroup()
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		_ = read.Close()
		return nil, nil, err
	}
	return cmd, readOutput(read), nil
}

// killGroup kills the script and everything in its process group. The kernel gives the group's number to no other
// process until the script is reaped.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// outputReader reads what a script writes, so that the script never blocks, and keeps the first maxOutput bytes.
type outputReader struct {
	pipe   *os.File
	output []byte
	done   chan struct{} // closed when the goroutine has ended
}

func readOutput(pipe *os.File) *outputReader {
	r := &outputReader{pipe: pipe, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		var b [maxOutput]byte
		for {
			n, err := pipe.Read(b[:])
			r.keep(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return r
}

func (r *outputReader) keep(b []byte) {
	r.output = append(r.output, b[:min(len(b), maxOutput-len(r.output))]...)
}

// finish returns the output so far and closes the pipe. It does not wait for the end of the output, because a process
// that the script started may hold the other end.
func (r *outputReader) finish() []byte {
	defer func() { _ = r.pipe.Close() }()
	_ = r.pipe.SetReadDeadline(time.Unix(1, 0))
	<-r.done
	// What the script wrote just before its end may still be in the pipe.
	_ = r.pipe.SetReadDeadline(time.Time{})
	raw, err := r.pipe.SyscallConn()
	if err != nil {
		return r.output
	}
	var b [maxOutput]byte
	for len(r.output) < maxOutput {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = syscall.Read(int(fd), b[:]) // the descriptor does not block
			return true
		})
		if err != nil || n <= 0 {
			break
		}
		r.keep(b[:n])
	}
	return r.output
}
