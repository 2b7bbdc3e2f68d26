package test

import "syscall"

// killWithParent makes the kernel kill a child when the test process ends, also by the panic of a test timeout. No
// server stays behind.
func killWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
