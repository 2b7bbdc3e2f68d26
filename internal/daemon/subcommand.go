package daemon

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"hacheck/internal/admin"
	"hacheck/internal/cmdline"
	"hacheck/internal/runner"
)

// subcommands are the other tools of the command hacheck, by the exact first argument. Any other first argument belongs
// to the daemon, which ignores positional arguments as the original did. A subcommand gets the arguments after its name
// and returns the exit code.
var subcommands = map[string]func(args []string, env Env) int{
	"aggregate": runAggregate,
	"beacon":    runBeacon,
	"fleet":     runFleet,
	"run":       func(args []string, env Env) int { return runner.Run(args, runner.System(env.Version)) },
	"firewall":  func(args []string, env Env) int { return runner.Firewall(args, runner.System(env.Version)) },
}

// runFleet is hacheck fleet. It is part of the operators' commands, which ask the daemon through the control socket.
func runFleet(args []string, env Env) int {
	e := admin.System(env.Version)
	e.Stdout, e.Stderr = env.Stdout, env.Stderr
	return admin.Fleet(args, e)
}

// parseSubcommand parses the command line of a subcommand. done means that the subcommand ends with code: the command
// line is wrong, or it has --help or --version.
func parseSubcommand(f *pflag.FlagSet, about string, args []string, env Env) (done bool, code int) {
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	showVersion := f.Bool("version", false, "print the version")
	switch err := cmdline.Parse(f, args); {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = fmt.Fprint(env.Stdout, about+"Options:\n"+f.FlagUsages())
		return true, 0
	case err != nil:
		return true, usage(f, env, err)
	case *showVersion:
		_, _ = fmt.Fprintf(env.Stdout, "%s %s\n", f.Name(), env.Version)
		return true, 0
	}
	return false, 0
}

// usage prints an error of the command line and returns the exit code 2.
func usage(f *pflag.FlagSet, env Env, err error) int {
	printError(env.Stderr, "%s: %v\nTry \"%s --help\".", f.Name(), err, f.Name())
	return 2
}
