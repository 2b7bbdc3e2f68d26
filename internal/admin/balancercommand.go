package admin

import (
	"bufio"
	"errors"
	"fmt"

	"hacheck/internal/cmdline"
	"hacheck/internal/control"
	"hacheck/internal/textfmt"
)

// balancerName is the command that Balancer runs. Its one verb is forget.
const balancerName = "hacheck balancer"

const balancerAbout = `Make the daemon of this host forget a balancer that is gone, by its address or the node name that it sends.
hastatus, the pages and --wait then do not name it any more. The daemon forgets a silent balancer by itself
after 10 minutes. A balancer that still asks is refused, because its next request would bring it back.
`

const balancerExamples = `
Examples:
  hacheck balancer forget 10.0.0.7
  hacheck balancer forget lb1
`

const balancerStatus = `
Exit status:
  0  forgotten
  1  refused: it still asks, or there is no such balancer
  2  wrong command line; nothing was changed
  4  the daemon cannot be asked
`

// Balancer runs hacheck balancer. args are the arguments after that name. It returns the exit code.
func Balancer(args []string, env Env) int {
	c := &command{Env: env, name: balancerName, out: bufio.NewWriter(env.Stdout)}
	code := c.balancer(args)
	if err := c.out.Flush(); err != nil {
		c.errorf("write output: %v", err)
		code = ExitFailed
	}
	return code
}

func (c *command) balancer(args []string) int {
	fs := newFlagSet(balancerName)
	c.opt.fleet.addSocket(fs)
	isHelp, isVersion := addHelp(fs)
	if err := cmdline.Parse(fs, args); err != nil {
		return c.fleetUsage(err)
	}
	args = fs.Args()
	switch {
	case *isHelp:
		c.printf("Usage: %s forget [options] ADDRESS|NODE\n\n%s\nOptions:\n%s%s%s", balancerName, balancerAbout, fs.FlagUsages(), balancerExamples, balancerStatus)
		return ExitOK
	case *isVersion:
		c.printf("%s %s\n", c.name, c.Version)
		return ExitOK
	case len(args) == 0:
		return c.fleetUsage(errors.New("name a subcommand: forget"))
	case args[0] != "forget":
		return c.fleetUsage(fmt.Errorf("no such subcommand: %q, there is forget", args[0]))
	case len(args) != 2 || args[1] == "":
		return c.fleetUsage(errors.New("forget: name one balancer by its address or node name"))
	}
	c.opt.fleet.hasSocket = fs.Changed("control-socket")
	c.opt.hasDaemon, c.opt.hasSpoolRoot = true, true // not used here
	if err := c.applyDefaults(&c.opt); err != nil {
		return c.fleetUsage(err)
	}
	return c.do(control.Request{Op: control.OpForgetBalancer, Balancer: args[1]}, textfmt.OneLine(args[1])+" is forgotten")
}
