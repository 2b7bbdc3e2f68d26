package admin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"hacheck/internal/control"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// everyService is the budget of every service that has none of its own.
const everyService = "*"

// maxBudget is the largest number of hosts of a budget.
const maxBudget = 1000000

// budget is hacheck fleet budget.
func (c *command) budget(f *fleetFlags, args []string) int {
	if len(args) > 0 && args[0] != everyService && !spool.ValidService(args[0]) {
		return c.fleetUsage(fmt.Errorf("%q is no service name: use letters, digits, '.', '_' and '-', or '*' for every other service", args[0]))
	}
	switch {
	case f.remove && len(args) != 1:
		return c.fleetUsage(errors.New("--remove needs one service and no number"))
	case f.remove:
		return c.setBudget(args[0], "", args[0]+": the budget is removed")
	case len(args) > 2:
		return c.fleetUsage(errors.New("expected a service and a number"))
	case len(args) == 2:
		text, err := parseBudget(args[1])
		if err != nil {
			return c.fleetUsage(err)
		}
		return c.setBudget(args[0], text, args[0]+": the budget is "+text)
	}
	return c.listBudgets(args)
}

// setBudget sets a budget, or removes it if the text is empty. It then prints done, or with --json the budget.
func (c *command) setBudget(service, text, done string) int {
	r := control.Request{Op: control.OpBudget, Services: []string{service}, Budget: text}
	if !c.opt.json {
		return c.do(r, done)
	}
	if code := c.do(r, ""); code != ExitOK {
		return code
	}
	return c.listBudgets(r.Services)
}

// parseBudget reads a number of hosts or a percentage and returns it in the form of control.Request.
func parseBudget(s string) (string, error) {
	number, isPercent := strings.CutSuffix(s, "%")
	n, err := strconv.ParseUint(number, 10, 32)
	switch {
	case err != nil || n == 0:
		return "", fmt.Errorf("%q is no budget: want a number of hosts from 1, such as 2, or a percentage, such as 25%%; --remove removes the budget", s)
	case isPercent && n > 100:
		return "", fmt.Errorf("%q is more than all members", s)
	case n > maxBudget:
		return "", fmt.Errorf("%q is more than %d hosts", s, maxBudget)
	case isPercent:
		return strconv.FormatUint(n, 10) + "%", nil
	}
	return strconv.FormatUint(n, 10), nil
}

// serviceBudget is the budget of a service, for --json.
type serviceBudget struct {
	Service string `json:"service"`
	Rule    string `json:"rule"`
	Budget  int    `json:"budget"`
	Members int    `json:"members"`
	Out     int    `json:"out"`
}

// listBudgets prints the budgets of services, or of all. Those of services without members, such as *, come last.
func (c *command) listBudgets(services []string) int {
	r, f := c.fleetReport()
	if r == nil {
		c.errorf("%s", f.text)
		return f.code
	}
	list := []serviceBudget{}
	rows := [][]string{{"SERVICE", "RULE", "MAY BE OUT", "OUT", "MEMBERS"}}
	for _, s := range r.Services {
		if len(services) > 0 && !slices.Contains(services, s.Name) {
			continue
		}
		list = append(list, serviceBudget{s.Name, s.Rule, s.Budget, len(s.Members), s.Out})
		rows = append(rows, []string{
			textfmt.OneLine(s.Name), cell(s.Rule), strconv.Itoa(s.Budget), strconv.Itoa(s.Out), strconv.Itoa(len(s.Members)),
		})
	}
	for _, b := range r.Budgets {
		hasMembers := slices.ContainsFunc(r.Services, func(s report.Service) bool { return s.Name == b.Service })
		if hasMembers || len(services) > 0 && !slices.Contains(services, b.Service) {
			continue
		}
		list = append(list, serviceBudget{Service: b.Service, Rule: b.Rule})
		rows = append(rows, []string{textfmt.OneLine(b.Service), cell(b.Rule), "-", "-", "0"})
	}
	switch {
	case c.opt.json:
		c.printJSON(map[string]any{"budgets": list})
	case len(list) == 0:
		c.printf("No such service has members or a budget.\n")
	default:
		c.printf("%s", textfmt.Table(rows))
	}
	if f != nil {
		_ = c.out.Flush() // the writer keeps an error, see printf
		c.errorf("%s", f.text)
		return f.code
	}
	return ExitOK
}

// forget is hacheck fleet forget.
func (c *command) forget(_ *fleetFlags, args []string) int {
	if len(args) != 1 {
		return c.fleetUsage(errors.New("name one host"))
	}
	if !spool.ValidService(args[0]) {
		return c.fleetUsage(fmt.Errorf("%q is no name of a host", args[0]))
	}
	return c.do(control.Request{Op: control.OpForget, Host: args[0]}, args[0]+" is forgotten")
}

// release is hacheck fleet release. It asks before it gives the permit back.
func (c *command) release(f *fleetFlags, args []string) int {
	switch {
	case len(args) != 1:
		return c.fleetUsage(errors.New("name one service"))
	case !spool.ValidService(args[0]):
		return c.fleetUsage(fmt.Errorf("%q is no service name", args[0]))
	case f.host != "" && !spool.ValidService(f.host):
		return c.fleetUsage(fmt.Errorf("%q is no name of a host", f.host))
	}
	service, host := args[0], f.host
	r, failed := c.fleetReport()
	if failed != nil {
		c.errorf("nothing was changed: %s", failed.text)
		return failed.code
	}
	host = cmp.Or(host, r.Self)
	i := slices.IndexFunc(r.Permits, func(p report.Permit) bool {
		return p.Host == host && (service == spool.All || isAmong(p.Services, service))
	})
	if i < 0 {
		c.errorf("nothing was changed: %s has no permit for %s", textfmt.OneLine(host), service)
		return ExitFailed
	}
	if !c.opt.fleet.yes {
		isConfirmed, err := c.confirm(releaseQuestion(r.Permits[i]), host)
		switch {
		case err != nil:
			return c.fleetUsage(fmt.Errorf("the command asks first; add --yes to do it without a question (%w)", err))
		case !isConfirmed:
			c.errorf("nothing was changed: that is not the name of the host")
			return ExitFailed
		}
	}
	return c.do(control.Request{Op: control.OpRelease, Services: args, Host: f.host}, textfmt.OneLine(host)+": the permit for "+service+" is given back")
}

// releaseQuestion describes a permit and asks for the name of its host.
func releaseQuestion(p report.Permit) string {
	text := fmt.Sprintf("%s has a permit for %s%s", p.Host, strings.Join(p.Services, ", "), causeText(p.By, p.Reason))
	if p.Waiting != "" {
		text += " and is not back yet: " + textfmt.Excerpt(p.Waiting, maxReasonText)
	}
	return text + "; to give it back, type the name of the host"
}

// leave is hacheck fleet leave.
func (c *command) leave(_ *fleetFlags, args []string) int {
	if len(args) > 0 {
		return c.fleetUsage(errors.New("leave is about this host and takes no arguments"))
	}
	return c.do(control.Request{Op: control.OpLeave}, "this host ignores overrides for many hosts until hacheck fleet join")
}

// join is hacheck fleet join.
func (c *command) join(_ *fleetFlags, args []string) int {
	if len(args) > 0 {
		return c.fleetUsage(errors.New("join is about this host and takes no arguments"))
	}
	return c.do(control.Request{Op: control.OpJoin}, "this host obeys overrides for many hosts again")
}
