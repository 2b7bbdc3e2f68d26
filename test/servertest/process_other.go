//go:build unix && !linux

package servertest

import "syscall"

// processGroup makes a server the head of a group of its own, to be stopped with all its children. Here it
// outlives tests that are killed.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
