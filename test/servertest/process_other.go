//go:build unix && !linux

package servertest

import "syscall"

// processGroup starts a server in a process group of its own, so that it is stopped with all its children. If the tests
// are killed, the server goes on.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
