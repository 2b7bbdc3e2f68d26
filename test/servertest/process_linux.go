package servertest

import "syscall"

// processGroup makes a server the head of a group of its own, to be stopped with all its children, and has
// the kernel kill it when the tests die before they can.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
