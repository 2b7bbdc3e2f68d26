// Package daemon is the command hacheck. It assembles the daemon from the other packages: command line, configuration,
// listeners, log, signals, reload, stop and systemd. It answers no request itself; the packages proxy, agent, aggregate
// and beacon do.
package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"hacheck/internal/systemd"
	"hacheck/internal/textfmt"
)

// Env is what the command gets from outside.
type Env struct {
	Version        string
	Stdout, Stderr io.Writer
}

// System returns the Env of this process.
func System(version string) Env {
	return Env{Version: version, Stdout: os.Stdout, Stderr: os.Stderr}
}

// Main runs the daemon, or the subcommand that the first argument names, and returns the exit code. args are the
// arguments without the name of the program.
func Main(args []string, env Env) int {
	if len(args) > 0 {
		if subcommand, ok := subcommands[args[0]]; ok {
			return subcommand(args[1:], env)
		}
		if err := checkSubcommand(args[0]); err != nil {
			printError(env.Stderr, "hacheck: %v\nTry \"hacheck --help\".", err)
			return 2
		}
	}
	// Signals come first: one that arrives during the start must be handled. The original lost signals to stop in its
	// first milliseconds, and never stopped.
	sig := prepareProcess()
	o, err := parseOptions(args, env)
	switch {
	case err != nil:
	case o == nil: // --help or --version
		return 0
	case o.checkConfig:
		err = checkConfig(o, env.Stdout)
	case o.checkReload:
		err = checkReload(o, env.Stderr)
	default:
		err = serve(o, env.Version, sig)
	}
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*configError](err); ok {
		printError(env.Stderr, "%v", err) // each line begins with the name of the file
		return 2
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		printError(env.Stderr, "hacheck: %v\nTry \"hacheck --help\".", err)
		return 2
	}
	printError(env.Stderr, "hacheck: %v", err)
	return 1
}

// printError prints a message to the operator. It may quote the command line or a file, so control characters are
// removed. In the journal each line has the priority of an error.
func printError(stderr io.Writer, format string, args ...any) {
	printAt(slog.LevelError, stderr, fmt.Sprintf(format, args...))
}

// printWarning is printError with the priority of a warning.
func printWarning(stderr io.Writer, text string) { printAt(slog.LevelWarn, stderr, text) }

func printAt(level slog.Level, stderr io.Writer, text string) {
	_, _ = fmt.Fprintln(stderr, systemd.WithPriority(stderr, journalPriority(level), textfmt.Lines(text)))
}

// usageError means that the command line is wrong, configError that the configuration file is wrong.
type (
	usageError  struct{ error }
	configError struct{ error }
)

// signals are the signals that the daemon handles. Each kind has its own channel: in a channel that is full of one kind,
// the other would be lost.
type signals struct {
	stop   <-chan os.Signal // SIGTERM, SIGINT, SIGQUIT; the second one cuts off the requests that the first one waits for
	reload <-chan os.Signal // SIGHUP
}

func catchSignals() signals {
	stop, reload, ignored := make(chan os.Signal, 2), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Notify(reload, syscall.SIGHUP)
	// These would end the process; SIGPIPE comes when the reader of the log has gone. They are caught and not ignored,
	// because the programs of script checks would inherit "ignored".
	signal.Notify(ignored, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	return signals{stop, reload}
}

// prepareProcess catches signals, and makes crashes end the process by a signal. The daemon and the subcommands that
// run as a service call it first.
func prepareProcess() signals {
	sig := catchSignals()
	configureCrashes()
	return sig
}
