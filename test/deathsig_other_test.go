//go:build !linux

package test

import "syscall"

// killWithParent returns nil: only Linux can tie a child to its parent. Elsewhere the cleanup of each test stops it.
func killWithParent() *syscall.SysProcAttr { return nil }
