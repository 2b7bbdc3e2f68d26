package daemon

import (
	"runtime/debug"
	"syscall"
)

// maxStack is how far the stack of one goroutine may grow. A recursion without end shall crash with its stack trace
// before it has taken the memory of the machine; Go's own limit is 1 GB.
const maxStack = 64 << 20

// crashBySignal makes every crash end the process by a signal, SIGABRT, and without a core file.
//
// Go exits with status 2 after a panic, a fatal error of the runtime or a signal such as SIGSEGV. Status 2 is also
// that of a wrong configuration, which a service manager must not start again; a crash it must. The unit sets the same
// by GOTRACEBACK=crash and LimitCORE=0; this is for units that do not, and for "hacheck aggregate" and "hacheck beacon".
// Process 1 of a container cannot end itself by a signal: there the status stays 2.
//
// Call it after catchSignals: until then SIGQUIT is a crash.
func crashBySignal() {
	debug.SetTraceback("crash")
	debug.SetMaxStack(maxStack)
	var core syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &core) == nil {
		core.Cur = 0
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &core) // a limit may always be lowered
	}
	forbidDump()
}
