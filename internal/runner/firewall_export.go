package runner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hacheck/internal/check"
	"hacheck/internal/cmdline"
	"hacheck/internal/config"
)

const firewallHelp = `Usage: hacheck firewall export [options] FILE [PATTERN...]
       hacheck firewall convert -t TYPE [options] FILE...

export prints as YAML the destinations of the checks of FILE, which the firewall has to allow. convert turns such
files, also those of several machines, into commands for a firewall. See "hacheck firewall export --help"
and "hacheck firewall convert --help".

Options:
  -h, --help      print this help
      --version   print the version
`

const exportAbout = `Print as YAML the destinations of the checks of FILE, which the firewall of this machine has to allow. Nothing
is checked. The other options of "hacheck run" have no effect.
`

// noExportOptions are the options without an effect. conn-check-export-fw takes them.
var noExportOptions = []string{
	"verbose", "duration", "tracebacks", "dry-run", "tls-certs-path", "max-timeout", "connect-timeout", "unbuffered-output", "output", "watch",
}

const exportExit = `Exit status: 0 done, 3 the command line or FILE is wrong and nothing was printed.
`

// Firewall executes "hacheck firewall" with the given arguments and returns the exit code.
func Firewall(args []string, env Env) int {
	const name = "hacheck firewall"
	subcommand := ""
	if len(args) > 0 {
		subcommand = args[0]
	}
	switch subcommand {
	case "export":
		c := newCommand(name+" export", env)
		return c.finish(c.export(args[1:]))
	case "convert":
		c := newCommand(name+" convert", env)
		return c.finish(c.convert(args[1:]))
	}
	c := newCommand(name, env)
	switch subcommand {
	case "-h", "--help":
		_, _ = c.out.WriteString(firewallHelp)
		return c.finish(ExitOK)
	case "--version":
		_, _ = fmt.Fprintf(c.out, "%s %s\n", name, c.Version)
		return c.finish(ExitOK)
	}
	err := errors.New("say what to do, export or convert")
	if subcommand != "" && !strings.HasPrefix(subcommand, "-") {
		text := fmt.Sprintf("no such subcommand: %q", subcommand)
		if near := cmdline.Closest(subcommand[:min(len(subcommand), maxSubcommand)], []string{"export", "convert"}, 2); near != "" {
			text += ", did you mean " + near + "?"
		}
		err = errors.New(text)
	}
	return c.usageError(err, "export|convert [options] FILE...")
}

// maxSubcommand is how many bytes of a wrong subcommand are compared. No subcommand is as long.
const maxSubcommand = 20

// export prints the destinations of the selected checks.
func (c *command) export(args []string) int {
	o, code, done := c.parseOptions(args, exportAbout, exportExit, noExportOptions...)
	if done {
		return code
	}
	checks, err := c.load(o)
	if err != nil {
		return c.fileError(err)
	}
	if o.validate {
		return ExitOK
	}
	if err := config.WriteFirewallRules(c.out, egressRules(selectJobs(checks, o), c.Hostname())); err != nil {
		c.errorf("write output: %v", err)
		return ExitUnknown
	}
	return ExitOK
}

// egressRules returns the destinations of jobs, one rule for each host and protocol, sorted.
func egressRules(jobs []*job, from string) []config.FirewallRule {
	ports := map[check.Endpoint]map[uint16]bool{} // the keys have no port
	for _, j := range jobs {
		e := j.Endpoint
		if e.Network == "" { // the check sends nothing
			continue
		}
		e.Port = 0
		if ports[e] == nil {
			ports[e] = map[uint16]bool{}
		}
		ports[e][j.Endpoint.Port] = true
	}
	rules := make([]config.FirewallRule, 0, len(ports))
	for e, set := range ports {
		rules = append(rules, config.FirewallRule{FromHost: from, ToHost: e.Host, Protocol: e.Network, Ports: slices.Sorted(maps.Keys(set))})
	}
	slices.SortFunc(rules, func(a, b config.FirewallRule) int {
		return cmp.Or(cmp.Compare(a.ToHost, b.ToHost), cmp.Compare(a.Protocol, b.Protocol))
	})
	return rules
}
