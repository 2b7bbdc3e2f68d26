package test

import "syscall"

// killWithParent makes the kernel kill a child when the test process ends in whatever way, a timeout's panic
// included: no server stays behind.
func killWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
