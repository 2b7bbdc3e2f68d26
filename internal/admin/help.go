package admin

import "strings"

// page is the part of a help text that differs from command to command.
type page struct {
	synopsis string
	about    string
	examples string
}

// synopsis is the one line that says how a command is called.
func synopsis(name string) string { return name + " " + pages[commands[name]].synopsis }

// helpText is what --help prints.
func helpText(name string) string {
	var o options
	p := pages[commands[name]]
	return "Usage: " + synopsis(name) + "\n\n" + p.about +
		"\nOptions:\n" + flagSet(&o).FlagUsages() +
		"\n" + strings.ReplaceAll(p.examples, "@", name)
}

// names says what can be given as SERVICE; the commands that take one share it.
const names = `A SERVICE is a name of letters, digits, dots, dashes and underscores; "all" stands for every
service on this host. With -P it is only the instance on that port.
`

// waitStatus are the exit codes of the commands that can wait.
const waitStatus = `Exit status: 0 done, 1 refused or failed, 2 the command line makes no sense and nothing was touched.
With --wait, 0 means that the balancers have followed, 3 that not all have in time, 4 that the daemon
cannot be asked what they think, 128 and its number that a signal came; what was to be done is done
in all of them. With --safe, 1 and 4 mean that nothing was done.
`

var pages = map[action]page{
	actUp: {
		synopsis: "[options] SERVICE...",
		about: `Lift what was said about each SERVICE with hadown or --force-up, so that its own check decides
again. What was not down stays as it is. "haup web" does not lift "hadown all".

With --wait it returns when every balancer that asks has the SERVICE up again: its state is UP, or,
where it sends none, its last two answers were good.

` + names,
		examples: `Examples:
  @ web
  @ all
  @ web -P 8080
  @ web --wait=1m

` + waitStatus,
	},
	actDown: {
		synopsis: "[options] SERVICE...",
		about: `Take each SERVICE out of service: from now on hacheck tells every load balancer that it is down,
until haup lifts it or its time is over.

With --wait it returns when every balancer that asks has taken the SERVICE out and has no session
open on it any more; the first signal ends the waiting, and the SERVICE stays down. With --safe
nothing is done unless every balancer has another server left for the work. Both go by what HAProxy
says with "http-check send-state".

` + names,
		examples: `Examples:
  @ web -r 'kernel upgrade'
  @ all --for 30m -r 'new memory'
  @ web -P 8080
  @ web --safe --drain --wait=10m -r 'version 2' && @ web -r 'version 2'

` + waitStatus,
	},
	actStatus: {
		synopsis: "[options] [SERVICE...]",
		about: `Show for each SERVICE whether it was taken down: UP and the name, or DOWN, the unix time at which
that ends by itself (or inf), the name and the reason, with tabs between. It tells what operators
have said, not what checks find. Without a SERVICE: every override, the services that hacheck
was asked about lately, and what each balancer thinks of them.

` + names,
		examples: `Examples:
  @
  @ web
  @ --json all web

Exit status: 0 every SERVICE is up, 1 one is down or cannot be read, 2 the command line makes no sense.
Without a SERVICE: 0 unless the overrides cannot be read.
`,
	},
	actDowned: {
		synopsis: "[options]",
		about: `Show everything that was taken down on this host, one a line: DOWN, the unix time at which it ends
by itself (or inf), the name and the reason, with tabs between.
`,
		examples: `Examples:
  @
  @ --json

Exit status: 0 shown, 1 the overrides cannot be read, 2 the command line makes no sense.
`,
	},
	actList: {
		synopsis: "[options]",
		about: `Show the services that load balancers asked hacheck about lately, with its last answer about each.
`,
		examples: `Examples:
  @
  @ -p 10.0.0.7:3333

Exit status: 0 shown, 1 the daemon cannot be asked, 2 the command line makes no sense.
`,
	},
}
