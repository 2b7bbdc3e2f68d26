//go:build !linux

package main

import "syscall"

// dieWithUs: only Linux can tie a child to its parent; elsewhere each row's end does it.
func dieWithUs() *syscall.SysProcAttr { return nil }
