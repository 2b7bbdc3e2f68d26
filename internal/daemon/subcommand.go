package daemon

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"hacheck/internal/admin"
	"hacheck/internal/cmdline"
	"hacheck/internal/runner"
)

// subcommands are the other tools of the command hacheck, by the exact first argument. Any other first argument belongs
// to the daemon, which ignores positional arguments as the original did, except those of checkSubcommand. A subcommand
// gets the arguments after its name and returns the exit code.
var subcommands = map[string]func(args []string, env Env) int{
	"aggregate": runAggregate,
	"balancer":  runBalancer,
	"beacon":    runBeacon,
	"fleet":     runFleet,
	"run":       func(args []string, env Env) int { return runner.Run(args, runner.System(env.Version)) },
	"firewall":  func(args []string, env Env) int { return runner.Firewall(args, runner.System(env.Version)) },
}

// otherCommands are words that an operator types after hacheck, by the command that does it.
var otherCommands = map[string]string{
	"help": "hacheck --help", "version": "hacheck --version",
	"haup": "haup", "up": "haup", "hadown": "hadown", "down": "hadown", "hastatus": "hastatus", "status": "hastatus",
	"halist": "halist", "list": "halist", "hashowdowned": "hashowdowned",
	"stop": "systemctl stop hacheck.socket", "restart": "systemctl restart hacheck", "reload": "systemctl reload hacheck",
}

// checkSubcommand returns an error if arg, the first argument, is a misspelled subcommand or the word for another command.
// The daemon must not start instead of the tool that was meant.
func checkSubcommand(arg string) error {
	if command, ok := otherCommands[arg]; ok {
		return fmt.Errorf("no such subcommand: %q, did you mean the command %s?", arg, command)
	}
	isLetter := func(c rune) bool { return 'a' <= c && c <= 'z' || c == '-' || c == '_' }
	word := strings.ToLower(arg)
	if len(word) > maxSubcommand || strings.HasPrefix(word, "-") || strings.ContainsFunc(word, func(c rune) bool { return !isLetter(c) }) {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(subcommands)) {
		if isMisspelled(word, name) {
			return fmt.Errorf("no such subcommand: %q, did you mean %s?", arg, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(otherCommands)) {
		// "start" is similar to "restart", and the daemon does start.
		if len(name) >= minOtherCommand && word != "start" && isMisspelled(word, name) {
			return fmt.Errorf("no such subcommand: %q, did you mean the command %s?", arg, otherCommands[name])
		}
	}
	return nil
}

// minOtherCommand is the length of the shortest key of otherCommands that may be misspelled. "list" is similar to many
// words.
const minOtherCommand = 6

// isMisspelled reports whether word is similar to name. Short names are similar to many words, so they allow fewer errors.
func isMisspelled(word, name string) bool {
	return cmdline.Closest(word, []string{name}, min(2, len(name)/3)) != ""
}

// maxSubcommand is the length of the longest argument that can be a misspelled subcommand.
const maxSubcommand = 12

// runFleet is hacheck fleet. It is part of the operators' commands, which ask the daemon through the control socket.
func runFleet(args []string, env Env) int {
	e := admin.System(env.Version)
	e.Stdout, e.Stderr = env.Stdout, env.Stderr
	return admin.Fleet(args, e)
}

// runBalancer is hacheck balancer, which asks the daemon like hacheck fleet.
func runBalancer(args []string, env Env) int {
	e := admin.System(env.Version)
	e.Stdout, e.Stderr = env.Stdout, env.Stderr
	return admin.Balancer(args, e)
}

// parseSubcommand parses the command line of a subcommand. done means that the subcommand ends with code: the command
// line is wrong, or it has --help or --version.
func parseSubcommand(f *pflag.FlagSet, about string, args []string, env Env) (done bool, code int) {
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	showHelp := f.BoolP("help", "h", false, "print this help")
	showVersion := f.Bool("version", false, "print the version")
	switch err := cmdline.Parse(f, args); {
	case err != nil:
		return true, usage(f, env, err)
	case *showHelp:
		_, _ = fmt.Fprint(env.Stdout, about+"Options:\n"+f.FlagUsages())
		return true, 0
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
