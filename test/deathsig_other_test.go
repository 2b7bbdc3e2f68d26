//go:build !linux

package test

import "syscall"

// dieWithUs: only Linux can tie a child to its parent; elsewhere the cleanup of each test does it.
func dieWithUs() *syscall.SysProcAttr { return nil }
