package main

import "syscall"

// killWithParent makes the kernel kill a contestant when bench ends or is killed.
func killWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
