//go:build !linux

package main

// forbidDump is for Linux only: elsewhere the limit of core files is enough.
func forbidDump() {}
