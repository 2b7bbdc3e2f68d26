package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"hacheck/internal/cmdline"
	"hacheck/internal/control"
)

// fleetVerb is one subcommand of hacheck fleet.
type fleetVerb struct {
	name  string
	usage string // after the name
	about string
	flags func(f *fleetFlags, fs *pflag.FlagSet) // more than --control-socket, --help and --version
	run   func(c *command, f *fleetFlags, args []string) int
}

// fleetFlags are the options of the subcommands that haup and hadown do not have.
type fleetFlags struct {
	host   string // of release
	remove bool   // of budget
}

// fleetName is the command of which the subcommands are.
const fleetName = "hacheck fleet"

// fleetVerbs returns the subcommands.
func fleetVerbs() []fleetVerb {
	return []fleetVerb{
		{
			name: "status", usage: "[options] [SERVICE...]",
			about: `Show the fleet as "hastatus --fleet" does: overrides for many hosts, services with their members and
budgets, permits and queue, absent hosts and hosts that have left.
`,
			run: func(c *command, _ *fleetFlags, args []string) int {
				return c.showFleet(fleetFilter{args, c.opt.fleet.groups, c.opt.fleet.hosts})
			},
		},
		{
			name: "budget", usage: "[options] [SERVICE [N | N%]]",
			about: `Set how many members of SERVICE may be out at the same moment for "hadown --safe": N hosts, or N
percent of all members. The SERVICE '*' is every service without a budget of its own. Without a
number the command shows the budgets. A lower budget ends no permit.
`,
			flags: func(f *fleetFlags, fs *pflag.FlagSet) {
				fs.BoolVar(&f.remove, "remove", false, "remove the budget of SERVICE")
			},
			run: (*command).budget,
		},
		{
			name: "forget", usage: "[options] HOST",
			about: `Remove an absent host that is gone for good: it is a member of no service any more, and its permit and
its place in the queue go. A present host is refused.
`,
			run: (*command).forget,
		},
		{
			name: "release", usage: "[options] SERVICE",
			about: `Give back the permit of a host for SERVICE, although the host is not back yet. Another host may then go
out. The command asks first.
`,
			flags: func(f *fleetFlags, fs *pflag.FlagSet) {
				fs.StringVar(&f.host, "host", "", "the permit of host `NAME` instead of this one")
			},
			run: (*command).release,
		},
		{
			name: "leave", usage: "[options]",
			about: `Make this host ignore overrides for many hosts until "hacheck fleet join", also after a restart. It works
without etcd. Every page and command shows that the host has left.
`,
			run: (*command).leave,
		},
		{
			name: "join", usage: "[options]",
			about: `Make this host obey overrides for many hosts again, after "hacheck fleet leave".
`,
			run: (*command).join,
		},
	}
}

const fleetAbout = `Show and change what the hosts of a fleet share. The daemon on this host does it through etcd; its
configuration needs the section fleet.
`

const fleetExamples = `
Examples:
  hacheck fleet status
  hacheck fleet budget web 25%
  hacheck fleet budget '*' 1
  hacheck fleet forget web5
  hacheck fleet release web --host web3
`

const fleetStatus = `
Exit status:
  0  done or shown
  1  refused or failed; nothing was changed
  2  wrong command line; nothing was changed
  4  the daemon or etcd cannot be asked, or it is not known whether the change was made
`

// Fleet runs hacheck fleet. args are the arguments after that name. It returns the exit code.
func Fleet(args []string, env Env) int {
	c := &command{Env: env, name: fleetName, out: bufio.NewWriter(env.Stdout)}
	code := c.fleet(args)
	if err := c.out.Flush(); err != nil {
		c.errorf("write output: %v", err)
		code = ExitFailed
	}
	return code
}

// fleet runs the subcommand that args begins with.
func (c *command) fleet(args []string) int {
	verbs := fleetVerbs()
	if len(args) > 0 {
		for _, v := range verbs {
			if v.name == args[0] {
				return c.runVerb(v, args[1:])
			}
		}
	}
	names := make([]string, len(verbs))
	for i, v := range verbs {
		names[i] = v.name
	}
	fs := newFlagSet(fleetName)
	isHelp, isVersion := addHelp(fs)
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		text := fmt.Sprintf("no such subcommand: %q", args[0])
		if near := cmdline.Closest(args[0][:min(len(args[0]), maxVerb)], names, 2); near != "" {
			text += ", did you mean " + near + "?"
		}
		return c.fleetUsage(errors.New(text))
	}
	if err := cmdline.Parse(fs, args); err != nil {
		return c.fleetUsage(err)
	}
	switch {
	case *isHelp:
		c.printf("Usage: %s %s ...\n\n%s\nSubcommands:\n", fleetName, strings.Join(names, "|"), fleetAbout)
		for _, v := range verbs {
			c.printf("  %s %s\n", v.name, v.usage)
		}
		c.printf("\nOptions:\n%s%s%s", fs.FlagUsages(), fleetExamples, fleetStatus)
		return ExitOK
	case *isVersion:
		c.printf("%s %s\n", c.name, c.Version)
		return ExitOK
	}
	return c.fleetUsage(fmt.Errorf("name a subcommand: %s", strings.Join(names, ", ")))
}

// maxVerb is how many bytes of a wrong subcommand are compared. No subcommand is as long.
const maxVerb = 20

// runVerb parses the command line of a subcommand and runs it.
func (c *command) runVerb(v fleetVerb, args []string) int {
	c.name = fleetName + " " + v.name
	f := &fleetFlags{}
	fs := newFlagSet(c.name)
	switch v.name {
	case "status":
		c.opt.fleet.addHosts(fs)
	case "release":
		c.opt.fleet.addYes(fs, "do not ask")
	}
	if v.flags != nil {
		v.flags(f, fs)
	}
	if v.name == "status" || v.name == "budget" {
		fs.BoolVar(&c.opt.json, "json", false, "print one JSON document")
	}
	c.opt.fleet.addSocket(fs)
	isHelp, isVersion := addHelp(fs)
	if err := cmdline.Parse(fs, args); err != nil {
		return c.fleetUsage(err)
	}
	switch {
	case *isHelp:
		c.printf("Usage: %s %s\n\n%s\nOptions:\n%s%s", c.name, v.usage, v.about, fs.FlagUsages(), fleetStatus)
		return ExitOK
	case *isVersion:
		c.printf("%s %s\n", c.name, c.Version)
		return ExitOK
	}
	c.opt.fleet.hasSocket = fs.Changed("control-socket")
	c.opt.hasDaemon, c.opt.hasSpoolRoot = true, true // not used here
	if err := c.applyDefaults(&c.opt); err != nil {
		return c.fleetUsage(err)
	}
	return v.run(c, f, fs.Args())
}

func newFlagSet(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

func addHelp(fs *pflag.FlagSet) (isHelp, isVersion *bool) {
	return fs.BoolP("help", "h", false, "print this help"), fs.Bool("version", false, "print the version")
}

// fleetUsage prints an error of the command line and returns ExitUsage.
func (c *command) fleetUsage(err error) int {
	c.errorf("%v\nTry \"%s --help\".", err, c.name)
	return ExitUsage
}

// do sends a request and returns the exit code. It prints done unless it is empty, or why the request failed.
func (c *command) do(r control.Request, done string) int {
	signals, stop := notifySignals()
	defer stop()
	e, err := c.askUntilSignal(signals, r, answerTime, c.note)
	f := c.newFailure(e, err)
	switch {
	case f == nil:
		if done != "" {
			c.printf("%s\n", done)
		}
		return ExitOK
	case f.unknown:
		c.errorf("it is not known whether the change was made: %s", f.text)
	default: // its text says whether anything was changed
		c.errorf("%s", f.text)
	}
	return f.code
}
