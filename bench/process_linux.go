package main

import "syscall"

// killWithParent makes the kernel kill a contestant when the bench ends in whatever way.
func killWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
