package servertest

import "syscall"

// processGroup starts a server in a process group of its own, so that it is stopped with all its children. The kernel
// kills the server when the tests are killed.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
