//go:build unix && !linux

package check

import (
	"os/exec"
	"syscall"
)

// scriptGroup puts a script into a process group of its own, which killGroup kills as a whole. On these systems a
// script outlives a hacheck that is killed.
func scriptGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// waitExit blocks until a script has ended, and reaps it. The id of its group stays taken while a process is left in
// it. killGroup signals an empty group within microseconds, before the id can be given to another process.
func waitExit(cmd *exec.Cmd) { _ = cmd.Wait() } // the status is in cmd.ProcessState

// reap does nothing, because waitExit has reaped the script.
func reap(*exec.Cmd) {}
