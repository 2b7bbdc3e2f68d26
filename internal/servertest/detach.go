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
// Service managers: tests that run as a systemd service have the variables by which a daemon takes its sockets and
// answers its watchdog.
func Detach() {
	// From now on a handler takes the signal, and nobody reads its channel. A child does not inherit handlers.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		_ = os.Unsetenv(name) // it fails for no such name
	}
}
