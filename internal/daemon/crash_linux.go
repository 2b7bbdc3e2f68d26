package daemon

import "golang.org/x/sys/unix"

// forbidDump keeps the kernel from dumping the memory of this process, which holds passwords. The limit of core files
// is not enough: a program that core_pattern(5) names gets the memory whatever the limit is. Other processes of the same
// user, such as scripts, can no longer read the memory either.
func forbidDump() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it fails for other values only
}
