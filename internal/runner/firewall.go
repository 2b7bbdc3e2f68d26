package runner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hacheck/internal/check"
	"hacheck/internal/config"
)

const firewallHelp = `Usage: hacheck firewall export [options] FILE [PATTERN...]
       hacheck firewall convert -t TYPE [options] FILE...

export prints as YAML where the checks of FILE go: what the firewall has to let out. convert turns such
files, also those of several machines, into commands for a firewall. See "hacheck firewall export --help"
and "hacheck firewall convert --help".
`

const exportAbout = `Print as YAML where the checks of FILE go from this machine: what its firewall has to let out. Nothing
is checked. The options are those of "hacheck run"; the ones that choose checks count here too, and
--validate, the others change nothing.
`

const exportExit = `Exit status: 0 done, 3 the command line or FILE is wrong and nothing was printed.
`

// Firewall is "hacheck firewall": args are what follows these words. It returns the exit code.
func Firewall(args []string, env Env) int {
	const name = "hacheck firewall"
	word := ""
	if len(args) > 0 {
		word = args[0]
	}
	switch word {
	case "export":
		c := newCommand(name+" export", env)
		return c.finish(c.export(args[1:]))
	case "convert":
		c := newCommand(name+" convert", env)
		return c.finish(c.convert(args[1:]))
	}
	c := newCommand(name, env)
	switch word {
	case "-h", "--help":
		_, _ = c.out.WriteString(firewallHelp)
		return c.finish(ExitOK)
	case "--version":
		_, _ = fmt.Fprintf(c.out, "%s %s\n", name, c.Version)
		return c.finish(ExitOK)
	}
	return c.usageError(errors.New("say what to do, export or convert"), "export|convert [options] FILE...")
}

func (c *command) export(args []string) int {
	o, code, done := c.parseOptions(args, exportAbout, exportExit)
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
	if err := config.WriteRules(c.out, egressRules(selectJobs(checks, o), c.Hostname())); err != nil {
		c.errorf("write output: %v", err)
		return ExitUnknown
	}
	return ExitOK
}

// egressRules returns where the jobs go, one rule for each host and protocol, sorted.
func egressRules(jobs []*job, from string) []config.Rule {
	type place struct{ host, protocol string }
	ports := map[place]map[uint16]bool{}
	for _, j := range jobs {
		if j.Endpoint == (check.Endpoint{}) || j.Endpoint.Network == "" {
			continue
		}
		p := place{j.Endpoint.Host, j.Endpoint.Network}
		if ports[p] == nil {
			ports[p] = map[uint16]bool{}
		}
		ports[p][j.Endpoint.Port] = true
	}
	rules := make([]config.Rule, 0, len(ports))
	for p, set := range ports {
		rules = append(rules, config.Rule{FromHost: from, ToHost: p.host, Protocol: p.protocol, Ports: slices.Sorted(maps.Keys(set))})
	}
	slices.SortFunc(rules, func(a, b config.Rule) int {
		return cmp.Or(cmp.Compare(a.ToHost, b.ToHost), cmp.Compare(a.Protocol, b.Protocol))
	})
	return rules
}
