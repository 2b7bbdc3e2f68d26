package daemon

import "hacheck/internal/runner"

// subcommands are the other tools that hacheck is, by the exact first word that asks for them. Any other
// word belongs to the daemon, which ignores positional arguments as the original did. Each is given what
// follows its name and returns the exit code.
var subcommands = map[string]func(args []string, env Env) int{
	"aggregate": runAggregate,
	"beacon":    runBeacon,
	"run":       func(args []string, env Env) int { return runner.Run(args, runner.System(env.Version)) },
	"firewall":  func(args []string, env Env) int { return runner.Firewall(args, runner.System(env.Version)) },
}

// serviceSignals prepares the process for a subcommand that runs as a service, as Main does for the daemon.
func serviceSignals() signals {
	s := catchSignals()
	crashBySignal()
	return s
}
