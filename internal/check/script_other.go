//go:build unix && !linux

package check

import (
	"os/exec"
	"syscall"
)

// scriptGroup makes a script the head of a group of its own, to be killed as a whole. Here it outlives a
// hacheck that is killed.
func scriptGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// waitExit waits until a script has ended and reaps it. Its group, if anything is left of it, keeps the
// number from being given away; an empty one is signalled within microseconds, before that can happen.
func waitExit(cmd *exec.Cmd) { _ = cmd.Wait() } // the status is in cmd.ProcessState

// reap has nothing left to do.
func reap(*exec.Cmd) {}
