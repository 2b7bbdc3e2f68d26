package main

import "syscall"

// ownProcessGroup starts a process in a process group of its own, so that ^C on the terminal reaches only the demo,
// which ends the others in order. The kernel kills the process when the demo ends or is killed.
func ownProcessGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
