//go:build !linux

package daemon

// forbidDump is for Linux only: elsewhere the limit of core files is enough.
func forbidDump() {}
