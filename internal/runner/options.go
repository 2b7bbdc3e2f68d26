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

// The forms of --output.
const (
	outputText   = "text"
	outputJSON   = "json"
	outputJUnit  = "junit"
	outputNagios = "nagios"
)

// options are the command line of run and firewall export.
type options struct {
	file     string
	patterns patterns

	verbose, duration, tracebacks bool
	validate, dryRun, unbuffered  bool
	help, version                 bool
	tlsCertsPath                  string
	maxTimeout, connectTimeout    time.Duration // 0: not given
	watch                         time.Duration // between two rounds; 0: one round
	includeTags, excludeTags      []string
	output                        string
}

const runSynopsis = "[options] FILE [PATTERN...]"

const runAbout = `Run the checks of FILE, a YAML list such as conn-check's ("- {type: tcp, host: db, port: 5432}"), side by
side, and say of each part whether it is well. FILE may be a pipe; "-" is standard input. With PATTERNs
only the parts whose whole name one of them matches; "*" stands for any text: 'tcp:*', '*:5432'.
Overrides (hadown) mean nothing here.
`

const runExit = `Exit status: 0 all passed, 2 some failed or did not end in time, 3 the command line or FILE is wrong and
nothing was checked; 128 and the number of the signal that interrupted it.
`

func (o *options) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	f.BoolVarP(&o.verbose, "verbose", "v", false, "also say which parts were started")
	f.BoolVarP(&o.duration, "duration", "d", false, "also say when, in seconds from the start, and how long each took")
	f.BoolVarP(&o.tracebacks, "tracebacks", "t", false, "also say what lies behind each failure")
	f.BoolVar(&o.validate, "validate", false, "only say what is wrong with FILE; check nothing")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be checked")
	f.StringVar(&o.tlsCertsPath, "tls-certs-path", "", "trust the authorities in `PATH`, a file or a directory of *.pem\nand *.crt files (default: those of the system)")
	f.Func("max-timeout", "end after `SECONDS`, whatever is still under way has failed", secondsFlag(&o.maxTimeout, 7*24*3600))
	f.Func("connect-timeout", "`SECONDS` for each check that names no timeout (default 10)", secondsFlag(&o.connectTimeout, 3600))
	f.BoolVarP(&o.unbuffered, "unbuffered-output", "U", false, "print each line at once instead of in order, failed ones first")
	f.Func("include-tags", "only checks that have one of these tags, `TAG,...`", tagsFlag(&o.includeTags))
	f.Func("exclude-tags", "only checks that have none of these tags, `TAG,...`", tagsFlag(&o.excludeTags))
	o.output = outputText
	f.Func("output", "`FORM` of the report: text (default), json, junit or nagios;\n-v, -d, -t and -U are about text alone", func(s string) error {
		if !slices.Contains([]string{outputText, outputJSON, outputJUnit, outputNagios}, s) {
			return errors.New("want text, json, junit or nagios")
		}
		o.output = s
		return nil
	})
	f.FuncP("watch", "f", "repeat `SECONDS` after each end until all pass in one round", secondsFlag(&o.watch, 24*3600))
	f.BoolVarP(&o.help, "help", "h", false, "print this help")
	f.BoolVar(&o.version, "version", false, "print the version")
	return f
}

// secondsFlag returns a setter for a number of seconds above 0.
func secondsFlag(d *time.Duration, most float64) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(v) || v < 0.001 || v > most {
			return fmt.Errorf("want a number of seconds from 0.001 to %.0f", most)
		}
		*d = time.Duration(v * float64(time.Second))
		return nil
	}
}

// tagsFlag returns a setter for a list of tags. An empty text is as good as none, as in conn-check: scripts
// have --include-tags="$TAGS".
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

// parseOptions reads the command line. done means that it has been dealt with and code is the exit code.
func (c *command) parseOptions(args []string, about, exit string) (o *options, code int, done bool) {
	o = &options{}
	f := o.flags()
	if err := cmdline.Parse(f, args); err != nil {
		return nil, c.usageError(err, runSynopsis), true
	}
	switch {
	case o.help:
		_, _ = fmt.Fprintf(c.out, "Usage: %s %s\n\n%s\nOptions:\n%s\n%s", c.name, runSynopsis, about, f.FlagUsages(), exit)
		return nil, ExitOK, true
	case o.version:
		_, _ = fmt.Fprintf(c.out, "%s %s\n", c.name, c.Version)
		return nil, ExitOK, true
	}
	if err := o.parseArgs(f.Args()); err != nil {
		return nil, c.usageError(err, runSynopsis), true
	}
	return o, ExitOK, false
}

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
