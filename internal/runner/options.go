package runner

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/cmdline"
)

// The formats of --output.
const (
	outputText   = "text"
	outputJSON   = "json"
	outputJUnit  = "junit"
	outputNagios = "nagios"
)

// options are the options and arguments of "hacheck run" and "hacheck firewall export".
type options struct {
	file     string
	patterns patterns

	verbose, duration, tracebacks bool
	validate, dryRun, unbuffered  bool
	tlsCertsPath                  string
	maxTimeout, connectTimeout    time.Duration // 0 if not given
	watch                         time.Duration // the pause between two rounds; 0 for one round
	includeTags, excludeTags      []string
	output                        string
}

const runSynopsis = "[options] FILE [PATTERN...]"

const runAbout = `Run the checks of FILE side by side and print for each step whether it passed. FILE is a YAML list such as
conn-check's ("- {type: tcp, host: db, port: 5432}"). It may be a pipe; "-" is standard input. With PATTERNs,
run only the steps whose whole name matches one of them; "*" matches any text: 'tcp:*', '*:5432'.
Overrides (hadown) are ignored.
`

const runExit = `Exit status: 0 all passed, 2 some failed or did not finish in time, 3 the command line or FILE is wrong and
nothing was checked, 128 plus the signal number when interrupted.
`

// flags returns the options as flags that store into o.
func (o *options) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.BoolVarP(&o.verbose, "verbose", "v", false, "also print which steps were started")
	f.BoolVarP(&o.duration, "duration", "d", false, "also print the time, in seconds from the start, and how long each step took")
	f.BoolVarP(&o.tracebacks, "tracebacks", "t", false, "also print the errors behind each failure")
	f.BoolVar(&o.validate, "validate", false, "only report errors in FILE; check nothing")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be checked")
	f.StringVar(&o.tlsCertsPath, "tls-certs-path", "", "trust the certificate authorities in `PATH`, a file or a directory of *.pem\nand *.crt files (default: those of the system)")
	f.Func("max-timeout", "end after `SECONDS`; checks that have not finished have failed", secondsFlag(&o.maxTimeout, 7*24*3600))
	f.Func("connect-timeout", "`SECONDS` for each check without a timeout of its own (default 10)", secondsFlag(&o.connectTimeout, 3600))
	f.BoolVarP(&o.unbuffered, "unbuffered-output", "U", false, "print each line at once, not sorted with the failed ones first")
	f.Func("include-tags", "only checks that have one of these tags, `TAG,...`", tagsFlag(&o.includeTags))
	f.Func("exclude-tags", "only checks that have none of these tags, `TAG,...`", tagsFlag(&o.excludeTags))
	o.output = outputText
	f.Func("output", "`FORMAT` of the report: text (default), json, junit or nagios;\n-v, -d, -t and -U apply to text only", func(s string) error {
		if !slices.Contains([]string{outputText, outputJSON, outputJUnit, outputNagios}, s) {
			return errors.New("want text, json, junit or nagios")
		}
		o.output = s
		return nil
	})
	f.FuncP("watch", "f", "repeat all checks, `SECONDS` after the last round, until all pass in one round", secondsFlag(&o.watch, 24*3600))
	return f
}

// secondsFlag returns a setter for a number of seconds from 0.001 to limit.
func secondsFlag(d *time.Duration, limit float64) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(v) || v < 0.001 || v > limit {
			return fmt.Errorf("want a number of seconds from 0.001 to %.0f", limit)
		}
		*d = time.Duration(v * float64(time.Second))
		return nil
	}
}

// tagsFlag returns a setter for a comma-separated list of tags. An empty value counts as not given, as in
// conn-check: scripts write --include-tags="$TAGS".
func tagsFlag(tags *[]string) func(string) error {
	return func(s string) error {
		*tags = nil
		if s == "" {
			return nil
		}
		for _, t := range strings.Split(s, ",") {
			if t = strings.TrimSpace(t); t != "" {
				*tags = append(*tags, t)
			}
		}
		if *tags == nil {
			return errors.New("want a tag, or more with commas between")
		}
		return nil
	}
}

// usage is the text of a command around the list of its options.
type usage struct{ synopsis, about, exit string }

// parse reads args into f, to which it adds --help and --version. It handles these two and errors itself: then done
// is true and code is the exit code.
func (c *command) parse(f *pflag.FlagSet, args []string, u usage) (code int, done bool) {
	help := f.BoolP("help", "h", false, "print this help")
	version := f.Bool("version", false, "print the version")
	f.SortFlags = false
	if err := cmdline.Parse(f, args); err != nil {
		return c.usageError(err, u.synopsis), true
	}
	switch {
	case *help:
		_, _ = fmt.Fprintf(c.out, "Usage: %s %s\n\n%s\nOptions:\n%s\n%s", c.name, u.synopsis, u.about, f.FlagUsages(), u.exit)
	case *version:
		_, _ = fmt.Fprintf(c.out, "%s %s\n", c.name, c.Version)
	default:
		return ExitOK, false
	}
	return ExitOK, true
}

// parseOptions reads the command line of run and export. If done is true, code is the exit code.
func (c *command) parseOptions(args []string, about, exit string, hidden ...string) (o *options, code int, done bool) {
	o = &options{}
	f := o.flags()
	for _, name := range hidden {
		f.Lookup(name).Hidden = true
	}
	if code, done := c.parse(f, args, usage{runSynopsis, about, exit}); done {
		return nil, code, true
	}
	if err := o.parseArgs(f.Args()); err != nil {
		return nil, c.usageError(err, runSynopsis), true
	}
	return o, ExitOK, false
}

// parseArgs reads the positional arguments and checks the options.
func (o *options) parseArgs(args []string) error {
	if len(args) == 0 || args[0] == "" {
		return errors.New("name the file with the checks, or - for standard input")
	}
	o.file = args[0]
	for _, p := range args[1:] {
		o.patterns = append(o.patterns, pattern(p))
	}
	if o.includeTags != nil && o.excludeTags != nil {
		return errors.New("options --include-tags and --exclude-tags exclude each other")
	}
	return nil
}
