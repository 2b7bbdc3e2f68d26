package servertest

import (
	"os"
	"os/signal"
	"syscall"
)

// Detach frees the processes that the tests start from what the tests' own parent process has left them. A test binary
// calls it in TestMain.
//
// Signals: tests that run behind nohup, or in the background of a script, ignore SIGHUP or SIGINT, and a child inherits
// that. Commands that obey it (see [signal.Ignored]) would not end at a signal. The tests go on ignoring it themselves.
//
// The environment: tests that run as a systemd service have the variables by which a daemon takes its sockets and
// answers its watchdog. Some variables have shells and tools read other files, print other languages and read options
// in another way.
//
// The umask: some processes run as another user, and read files that the tests have written.
func Detach() {
	// From now on a handler takes the signal, and nobody reads its channel. A child does not inherit handlers.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	for _, name := range []string{
		"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
		"BASH_ENV", "CDPATH", "ENV", "LANGUAGE", "POSIXLY_CORRECT",
	} {
		_ = os.Unsetenv(name) // it fails for no such name
	}
	_ = os.Setenv("LC_ALL", "C.UTF-8") // nor this
	syscall.Umask(0o022)
}
