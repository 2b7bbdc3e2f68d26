//go:build !linux

package main

import "syscall"

// killWithParent returns nil: only Linux kills a child with its parent. Elsewhere each row stops its servers itself.
func killWithParent() *syscall.SysProcAttr { return nil }
