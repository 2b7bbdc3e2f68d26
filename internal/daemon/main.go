// Package daemon assembles the command hacheck from the other packages: command line, configuration, listeners, log,
// signals, reload, stop and systemd. It answers no request itself; the endpoints do (proxy, agent, aggregate, beacon).
package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"hacheck/internal/textfmt"
)

// Env is what the command gets from outside.
type Env struct {
	Version        string
	Stdout, Stderr io.Writer
}

// System returns the environment of a real process.
func System(version string) Env {
	return Env{Version: version, Stdout: os.Stdout, Stderr: os.Stderr}
}

// Main runs the command hacheck, or the subcommand that the first argument names, and returns the exit code.
func Main(args []string, env Env) int {
	if len(args) > 0 {
		if sub, ok := subcommands[args[0]]; ok {
			return sub(args[1:], env)
		}
	}
	// The signals come first: one that arrives during the start must be handled. The original could lose a signal
	// to stop in its first milliseconds, and never stopped.
	s := catchSignals()
	crashBySignal()
	o, err := parseOptions(args, env)
	switch {
	case err != nil:
	case o == nil: // --help or --version
		return 0
	case o.checkConfig:
		err = checkConfig(o, env.Stdout)
	default:
		err = serve(o, env.Version, s)
	}
	if err == nil {
		return 0
	}
	var (
		usage *usageError
		conf  *configError
	)
	switch {
	case errors.As(err, &conf):
		complain(env.Stderr, "%v", err) // a line for each error, which begins with the file's name
		return 2
	case errors.As(err, &usage):
		complain(env.Stderr, "hacheck: %v\nTry \"hacheck --help\".", err)
		return 2
	}
	complain(env.Stderr, "hacheck: %v", err)
	return 1
}

// complain prints a message to the operator, which may repeat what the command line or a file says.
func complain(stderr io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintln(stderr, textfmt.Lines(fmt.Sprintf(format, args...)))
}

// usageError means that the command line is wrong, configError that the configuration file is.
type (
	usageError  struct{ error }
	configError struct{ error }
)

// signals are the signals that mean something. Each kind has its own channel, because a channel that is
// full of one kind would lose the other.
type signals struct {
	stop   <-chan os.Signal // SIGTERM, SIGINT, SIGQUIT; the second one cuts off what the first one waits for
	reload <-chan os.Signal // SIGHUP
}

func catchSignals() signals {
	stop, reload, none := make(chan os.Signal, 2), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Notify(reload, syscall.SIGHUP)
	// These would end the process: SIGPIPE when whoever reads the log has gone. They are caught rather
	// than ignored, because programs started by this one would inherit "ignored".
	signal.Notify(none, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	return signals{stop, reload}
}
