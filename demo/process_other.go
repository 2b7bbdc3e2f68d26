//go:build !linux

package main

import "syscall"

// ownProcessGroup starts a process in a process group of its own, so that ^C on the terminal reaches only the demo,
// which ends the others in order. If the demo is killed, the process goes on.
func ownProcessGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
