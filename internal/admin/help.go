package admin

import (
	"slices"
	"strings"
)

// helpText is the part of a help text that differs between the commands.
type helpText struct {
	synopsis string
	about    string
	examples string
	status   string // the exit codes
}

// synopsis returns the usage line of a command.
func synopsis(name string) string { return name + " " + helpTexts[commands[name]].synopsis }

// formatHelp returns what --help prints.
func formatHelp(name string) string {
	p := helpTexts[commands[name]]
	return "Usage: " + synopsis(name) + "\n\n" + p.about +
		"\nOptions:\n" + optionsHelp(commands[name]) +
		"\nExamples:\n" + strings.ReplaceAll(p.examples, "@", name) + "\nExit status:\n" + p.status
}

// optionsHelp describes the options that mean something for an action. The other options are for -a, or the command
// ignores them as the original did.
func optionsHelp(a action) string {
	var o options
	fs := flagSet(&o)
	for names, actions := range map[string][]action{
		"reason until-boot drain maint safe fall wait-turn replace yes": {actDown},
		"force-up weight":            {actUp},
		"wait timeout allow-unknown": {actDown, actUp},
		"connections":                {actDown},
		"expiration for":             {actDown, actUp},
		"service-port service-host":  {actDown, actUp, actStatus},
		"group host fleet":           {actDown, actUp, actStatus},
		"watch":                      {actStatus},
		"control-socket":             {actDown, actUp, actStatus, actDowned},
	} {
		for name := range strings.FieldsSeq(names) {
			fs.Lookup(name).Hidden = !slices.Contains(actions, a)
		}
	}
	if a != actDown && a != actUp {
		fs.Lookup("json").Usage = "print one JSON document"
	}
	if a == actStatus {
		fs.Lookup("json").Usage = "print one JSON document; with --watch one a line"
	}
	return fs.FlagUsages()
}

// aboutNames describes SERVICE.
const aboutNames = `A SERVICE is a name of letters, digits, dots, dashes and underscores; "all" covers every service on
this host. With -P it is only the instance on that port.
`

// aboutScopes describes --group, --host and --fleet.
const aboutScopes = `With --group, --host or --fleet the command is about many hosts, also about those that are switched off
now. It returns when every host that is present has applied the change. The daemon needs a fleet.
`

// waitStatus are the exit codes of the commands with --wait.
const waitStatus = `  0      done; with --wait, every balancer has followed
  1      refused or failed; with --safe or --weight, nothing was changed; haup: something else keeps it down
  2      wrong command line; nothing was changed
  3      done, but not every balancer (--wait) or present host (--group, --host, --fleet) has followed in time
  4      --wait: done, but the daemon cannot be asked about balancers; --safe, --weight, many hosts: the daemon or
         etcd cannot be asked, and nothing was changed unless the message says that it is not known
  5      --wait: done, but no balancer asks about a SERVICE: is its name right? See --allow-unknown
  128+N  --wait: done, but signal N has ended the wait; --safe: signal N has withdrawn the claim
`

var helpTexts = map[action]helpText{
	actUp: {
		synopsis: "[options] SERVICE...",
		about: `Lift the override of each SERVICE that hadown or --force-up has set, so that its own check decides
again. A SERVICE that is not down stays as it is. "haup web" does not lift "hadown all".

With --weight it gives the SERVICE a part of its traffic, for a canary or a slow return. The next haup
without --weight ends that. It changes nothing unless an agent check of a balancer asks about the SERVICE.

With --wait it returns when every balancer that asks has the SERVICE up again. A balancer has it up
if it reports the state UP or, if it reports none, after two healthy answers.

` + aboutScopes + `It lifts the override that hadown has set for exactly these hosts, and names the hosts that something
else keeps down.

` + aboutNames,
		examples: `  @ web
  @ all
  @ web -P 8080
  @ web --wait=1m
  @ --weight 25% web --for 30m
  @ --group rack7 web
`,
		status: waitStatus,
	},
	actDown: {
		synopsis: "[options] SERVICE...",
		about: `Take each SERVICE out of service: hacheck answers every load balancer that it is down, until haup
lifts that or it expires.

With --wait it returns when every balancer that asks has taken the SERVICE out and has no session
open on it. A signal ends the wait, and the SERVICE stays down. With --safe it changes nothing
unless every balancer that asks has another server left. Both need the state that HAProxy sends
with "http-check send-state". In a fleet, --safe also needs a permit, so that no more hosts are out
than the budget of the SERVICE allows; --wait-turn waits for it.

` + aboutScopes + `The command says how many hosts go out against each budget, and asks if that is too many.

` + aboutNames,
		examples: `  @ web -r 'kernel upgrade'
  @ all --for 30m -r 'new memory'
  @ web -P 8080
  @ all --until-boot --drain --wait -r 'new kernel' && reboot
  @ web --safe --drain --wait=10m -r 'version 2' && @ web -r 'version 2'
  @ all --safe --wait-turn --drain --wait -r 'new kernel'
  @ --group rack7 all --drain -r 'new switch'
`,
		status: waitStatus,
	},
	actStatus: {
		synopsis: "[options] [SERVICE...]",
		about: `Show for each SERVICE whether an operator has taken it down: UP and the name, or DOWN, the unix time
at which that ends by itself (or inf), the name and the reason, with tabs between. The results of
checks are not shown. A weight that haup --weight has set is a line on standard error, and the SERVICE is
up. Without a SERVICE: every override and weight, the services that hacheck was asked about
lately, and the state that each balancer has for them.

With --fleet: the overrides for many hosts, the services with members, budgets, permits and queue, the
members that are out, and the hosts that are absent. --group, --host and SERVICE show a part of it.

With --watch it shows all this every two seconds. A daemon that does not answer does not end it.

` + aboutNames,
		examples: `  @
  @ web
  @ --json all web
  @ --watch
  @ --fleet
  @ --group rack7 web
`,
		status: `  0  every SERVICE is up; without a SERVICE, the overrides were shown; with --fleet, the fleet was shown;
     with --watch, q or a signal has ended it
  1  a SERVICE is down, or the overrides cannot be read; with --fleet, there is no fleet
  2  wrong command line
  4  --fleet: the daemon or etcd cannot be asked; what the daemon knew last is shown
`,
	},
	actDowned: {
		synopsis: "[options]",
		about: `Show every override that takes something down on this host, one a line: DOWN, the unix time at which
it ends by itself (or inf), the name and the reason, with tabs between.
`,
		examples: `  @
  @ --json
`,
		status: `  0  shown
  1  the overrides cannot be read
  2  wrong command line
`,
	},
	actList: {
		synopsis: "[options]",
		about: `Show the services that load balancers asked hacheck about lately, with its last answer about each.
`,
		examples: `  @
  @ -p 10.0.0.7:3333
`,
		status: `  0  shown
  1  the daemon cannot be asked
  2  wrong command line
`,
	},
}
