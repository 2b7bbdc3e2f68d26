package main

import "syscall"

// ownProcessGroup gives a process a group of its own, so that ^C on the terminal reaches the demo alone and it
// decides what ends when, and has the kernel kill it when the demo ends in whatever way.
func ownProcessGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
