package daemon

import "golang.org/x/sys/unix"

// forbidDump has the kernel never write the memory of this process, which holds passwords, to a core file. The limit
// of core files does not do so where core_pattern(5) names a program: that gets the memory whatever the limit is. Other
// processes of the same user, such as scripts, may no longer read the memory either.
func forbidDump() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it fails for other values only
}
