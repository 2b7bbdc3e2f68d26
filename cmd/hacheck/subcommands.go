package main

import (
	"os"

	"hacheck/internal/runner"
)

// subcommands are the other tools that hacheck is, by the exact first word that asks for them. Any other
// word belongs to the daemon, which ignores positional arguments as the original did. Each is given what
// follows its name and returns the exit code.
var subcommands = map[string]func(args []string) int{
	"aggregate": func(args []string) int { return runAggregate(args, serviceSignals(), os.Stdout, os.Stderr) },
	"beacon":    func(args []string) int { return runBeacon(args, serviceSignals(), os.Stdout, os.Stderr) },
	"run":       func(args []string) int { return runner.Run(args, runner.SystemEnv(version)) },
	"firewall":  func(args []string) int { return runner.Firewall(args, runner.SystemEnv(version)) },
}

// serviceSignals prepares the process for a subcommand that runs as a service, as main does for the daemon.
func serviceSignals() signals {
	s := catchSignals()
	crashBySignal()
	return s
}
