package daemon

import (
	"runtime/debug"
	"syscall"
)

// maxStack is the largest stack of one goroutine, in bytes. An endless recursion crashes at it, before it has used up
// the memory of the machine; Go's own limit is 1 GB.
const maxStack = 64 << 20

// configureCrashes makes every crash end the process by a signal, SIGABRT, and without a core file.
//
// Go exits with status 2 after a panic, a fatal error of the runtime or a signal such as SIGSEGV. Status 2 also means a
// wrong configuration, after which a service manager must not restart the daemon; after a crash it must. The systemd
// unit sets the same with GOTRACEBACK=crash and LimitCORE=0; this is for other units, and for "hacheck aggregate" and
// "hacheck beacon". Process 1 of a container cannot end itself by a signal: there the status stays 2.
//
// Call it after catchSignals: until then SIGQUIT is a crash.
func configureCrashes() {
	debug.SetTraceback("crash")
	debug.SetMaxStack(maxStack)
	var core syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &core) == nil {
		core.Cur = 0
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &core) // a limit may always be lowered
	}
	forbidDump()
}
