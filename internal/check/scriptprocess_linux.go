package check

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// scriptGroup puts a script into a process group of its own, which killGroup kills as a whole. The kernel kills the
// script if hacheck dies first.
func scriptGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitExit blocks until a script has ended, and does not reap it. So no other process can get its process id, which is
// the id of its group. Any other error than EINTR is ignored: reap is right after it as well.
func waitExit(cmd *exec.Cmd) {
	for unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// reap takes the exit status of a script that has ended.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() } // the status is in cmd.ProcessState
