package servertest

import (
	"os"
	"os/signal"
	"syscall"
)

// Detach resets what child processes inherit from the parent of the tests. A test binary calls it in TestMain.
//
// Signals: tests under nohup, or in the background of a script, ignore SIGHUP or SIGINT, and a child inherits that.
// Commands that respect it (see [signal.Ignored]) would not end at a signal. The tests themselves still ignore it.
//
// The environment: tests in a systemd service have the variables of socket activation and of the watchdog. Other
// variables make shells and tools read other files, print other languages and parse options differently.
//
// The umask: some processes run as another user and read files that the tests have written.
func Detach() {
	// A handler receives the signal and drops it. A child does not inherit handlers.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	for _, name := range []string{
		"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
		"BASH_ENV", "CDPATH", "ENV", "LANGUAGE", "POSIXLY_CORRECT",
	} {
		_ = os.Unsetenv(name) // has no error for these names
	}
	_ = os.Setenv("LC_ALL", "C.UTF-8") // likewise
	syscall.Umask(0o022)
}
