//go:build !linux

package main

import "syscall"

// ofItsOwn gives a process a group of its own, so that ^C on the terminal reaches the demo alone and it
// decides what ends when. Here it outlives a demo that is killed.
func ofItsOwn() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
