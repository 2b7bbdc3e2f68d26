//go:build !linux

package test

import "syscall"

// killWithParent: only Linux can tie a child to its parent; elsewhere the cleanup of each test does it.
func killWithParent() *syscall.SysProcAttr { return nil }
