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

var pages = map[action]page{
	actUp: {
		synopsis: "[options] SERVICE...",
		about: `Lift what hadown has said about each SERVICE, so that its own check decides again. What was not
down stays as it is. "haup web" does not lift "hadown all".

` + names,
		examples: `Examples:
  @ web
  @ all
  @ web -P 8080

Exit status: 0 done, 1 refused or failed, 2 the command line makes no sense and nothing was touched.
`,
	},
	actDown: {
		synopsis: "[options] SERVICE...",
		about: `Take each SERVICE out of service: from now on hacheck tells every load balancer that it is down,
until haup lifts it or its time is over.

` + names,
		examples: `Examples:
  @ web -r 'kernel upgrade'
  @ all --for 30m -r 'new memory'
  @ web -P 8080

Exit status: 0 done, 1 refused or failed, 2 the command line makes no sense and nothing was touched.
`,
	},
	actStatus: {
		synopsis: "[options] [SERVICE...]",
		about: `Show for each SERVICE whether it was taken down: UP and the name, or DOWN, the unix time at which
that ends by itself (or inf), the name and the reason, with tabs between. It tells what operators
have said, not what checks find. Without a SERVICE: every override, and the services that hacheck
was asked about lately.

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
