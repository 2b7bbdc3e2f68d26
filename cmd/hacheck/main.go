// Command hacheck answers the health checks of load balancers: what operators say about a service comes
// first (see haup, hadown and hastatus), then what the service itself says.
//
// It exits with 0 after SIGTERM, SIGINT or SIGQUIT, once the requests in flight are answered; with 1 when
// the machine does not let it start (a port that is taken, a spool that cannot be read) or when a second
// signal cuts requests off; with 2 when the command line or the configuration file is wrong. A crash ends it by a
// signal, SIGABRT (see crashBySignal).
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"hacheck/internal/textfmt"
)

// version is set by the linker: -ldflags '-X main.version=1.2.3'.
var version = "dev"

func main() {
	if len(os.Args) > 1 {
		if sub, ok := subcommands[os.Args[1]]; ok {
			os.Exit(sub(os.Args[2:]))
		}
	}
	// First of all: a signal that comes while the daemon still starts must find somebody who knows what
	// it means. The original could be told to stop in its first milliseconds and never did.
	s := catchSignals()
	crashBySignal()
	os.Exit(run(os.Args[1:], s, os.Stdout, os.Stderr))
}

// run is main with everything that it gets from outside.
func run(args []string, s signals, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stdout, stderr)
	switch {
	case err != nil:
	case o == nil: // --help or --version
		return 0
	case o.checkConfig:
		err = checkConfig(o, stdout)
	default:
		err = serve(o, s)
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
		complain(stderr, "%v", err) // a line for each error, which begins with the file's name
		return 2
	case errors.As(err, &usage):
		complain(stderr, "hacheck: %v\nTry \"hacheck --help\".", err)
		return 2
	}
	complain(stderr, "hacheck: %v", err)
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
