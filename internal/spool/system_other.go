//go:build unix && !linux

package spool

// remoteFS cannot tell here; every lookup looks at the directory anyway.
func remoteFS(string) string { return "" }

// renameNew renames from to to unless there is something called to: then it fails with EEXIST.
func (h *handle) renameNew(from, to string) error { return h.linkNew(from, to) }

// alone cannot tell here.
func alone(int) bool { return true }
