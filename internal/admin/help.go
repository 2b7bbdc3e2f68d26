package admin

import "strings"

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
	var o options
	p := helpTexts[commands[name]]
	return "Usage: " + synopsis(name) + "\n\n" + p.about +
		"\nOptions:\n" + flagSet(&o).FlagUsages() +
		"\nExamples:\n" + strings.ReplaceAll(p.examples, "@", name) + "\nExit status:\n" + p.status
}

// aboutNames describes SERVICE.
const aboutNames = `A SERVICE is a name of letters, digits, dots, dashes and underscores; "all" covers every service on
this host. With -P it is only the instance on that port.
`

// waitStatus are the exit codes of the commands with --wait.
const waitStatus = `  0      done; with --wait, every balancer has followed
  1      refused or failed; with --safe, nothing was changed
  2      wrong command line; nothing was changed
  3      --wait: done, but not every balancer has followed in time
  4      --wait: done, but the daemon cannot be asked about balancers; --safe: nothing was changed
  128+N  --wait: done, but signal N has ended the wait
`

var helpTexts = map[action]helpText{
	actUp: {
		synopsis: "[options] SERVICE...",
		about: `Lift the override of each SERVICE that hadown or --force-up has set, so that its own check decides
again. A SERVICE that is not down stays as it is. "haup web" does not lift "hadown all".

With --wait it returns when every balancer that asks has the SERVICE up again. A balancer has it up
if it reports the state UP or, if it reports none, after two healthy answers.

` + aboutNames,
		examples: `  @ web
  @ all
  @ web -P 8080
  @ web --wait=1m
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
with "http-check send-state".

` + aboutNames,
		examples: `  @ web -r 'kernel upgrade'
  @ all --for 30m -r 'new memory'
  @ web -P 8080
  @ web --safe --drain --wait=10m -r 'version 2' && @ web -r 'version 2'
`,
		status: waitStatus,
	},
	actStatus: {
		synopsis: "[options] [SERVICE...]",
		about: `Show for each SERVICE whether an operator has taken it down: UP and the name, or DOWN, the unix time
at which that ends by itself (or inf), the name and the reason, with tabs between. The results of
checks are not shown. Without a SERVICE: every override, the services that hacheck was asked about
lately, and the state that each balancer has for them.

` + aboutNames,
		examples: `  @
  @ web
  @ --json all web
`,
		status: `  0  every SERVICE is up; without a SERVICE, the overrides were shown
  1  a SERVICE is down, or the overrides cannot be read
  2  wrong command line
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
