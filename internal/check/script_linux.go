package check

import (
	"os/exec"
	"syscall"
	"unsafe"
)

// scriptGroup makes a script the head of a group of its own, to be killed as a whole, and has the kernel
// kill it should hacheck die before it can.
func scriptGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitExit waits until a script has ended, and leaves it to be reaped: until then its number, which is its
// group's, is given to nobody else.
func waitExit(cmd *exec.Cmd) {
	const byPid, exited, leave = 1, 0x4, 0x01000000 // P_PID, WEXITED, WNOWAIT
	var info [128]byte                              // siginfo_t
	for {
		_, _, err := syscall.Syscall6(syscall.SYS_WAITID, byPid, uintptr(cmd.Process.Pid), uintptr(unsafe.Pointer(&info)), exited|leave, 0, 0) //nolint:gosec // as the system call has it
		if err != syscall.EINTR {
			return // ended, or not ours, which cannot be; reap says in either case
		}
	}
}

// reap takes the exit status of a script that has ended.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() } // the status is in cmd.ProcessState
