// Package runner implements "hacheck run" and "hacheck firewall", which replace conn-check and its two firewall
// commands. It runs the checks of a file once, or until all pass, or turns them into firewall rules. It asks the
// services themselves and ignores overrides.
package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/config"
	"hacheck/internal/systemd"
	"hacheck/internal/textfmt"
)

// The exit codes, as Nagios reads them. An interrupted run exits with 128 plus the signal number.
const (
	ExitOK      = 0 // every check passed
	ExitFailed  = 2 // a check failed or did not finish in time
	ExitUnknown = 3 // the command line or a file is invalid or unreadable, or the output cannot be written
)

// Env is what a command takes from its process. Every field must be set; see [System].
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string        // of the build, for --version and the User-Agent of checks
	Hostname       func() string // returns this machine's full name, for firewall rules
	Lookup         func(ctx context.Context, host string) ([]netip.Addr, error)
}

// System returns the Env of the real process.
func System(version string) Env {
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Version:  version,
		Hostname: hostname,
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
}

// hostname returns this machine's name, with its domain if a name server returns it within 2 s.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	if strings.Contains(name, ".") {
		return name
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// The errors are ignored: without a name server the short name is used.
	addrs, _ := net.DefaultResolver.LookupHost(ctx, name)
	for _, a := range addrs {
		full, _ := net.DefaultResolver.LookupAddr(ctx, a)
		for _, f := range full {
			if strings.HasPrefix(f, name+".") && strings.Trim(f[len(name):], ".") != "" {
				return strings.TrimSuffix(f, ".")
			}
		}
	}
	return name
}

// command is one invocation of a command.
type command struct {
	Env
	name string // for messages, "hacheck run"
	out  *bufio.Writer
}

func newCommand(name string, env Env) *command {
	return &command{Env: env, name: name, out: bufio.NewWriter(env.Stdout)}
}

// finish flushes standard output. It returns code, or ExitUnknown if the output cannot be written.
func (c *command) finish(code int) int {
	if err := c.out.Flush(); err != nil {
		// A lost report must not look like a passed one.
		c.errorf("write output: %v", err)
		return max(code, ExitUnknown)
	}
	return code
}

// errorf prints one message to standard error. It ignores a write error, which could not be reported anyway.
func (c *command) errorf(format string, args ...any) {
	c.printMessage(systemd.Error, c.name+": "+fmt.Sprintf(format, args...))
}

// usageError prints err with the synopsis and returns ExitUnknown.
func (c *command) usageError(err error, synopsis string) int {
	c.errorf("%v\nUsage: %s %s; see %s --help", err, c.name, synopsis, c.name)
	return ExitUnknown
}

// fileError prints err, whose lines begin with the name of the file, and returns ExitUnknown.
func (c *command) fileError(err error) int {
	c.printMessage(systemd.Error, err.Error())
	return ExitUnknown
}

// printMessage prints text to standard error, and in the journal with that priority.
func (c *command) printMessage(priority, text string) {
	_, _ = fmt.Fprintln(c.Stderr, systemd.WithPriority(c.Stderr, priority, textfmt.Lines(text)))
}

// Run executes "hacheck run" with the given arguments and returns the exit code.
func Run(args []string, env Env) int {
	c := newCommand("hacheck run", env)
	return c.finish(c.run(args))
}

func (c *command) run(args []string) int {
	o, code, done := c.parseOptions(args, runAbout, runExit)
	if done {
		return code
	}
	checks, err := c.load(o)
	if err != nil {
		if o.output == outputNagios {
			// Nagios shows only standard output.
			first, _, _ := strings.Cut(err.Error(), "\n")
			_, _ = fmt.Fprintf(c.out, "HACHECK UNKNOWN - %s\n", nagiosText(first))
		}
		return c.fileError(err)
	}
	if o.validate {
		return ExitOK
	}
	return c.runChecks(o, checks)
}

// load reads the file and builds its checks. Options that no check has are warnings, and with --validate an error.
func (c *command) load(o *options) ([]*check.ConfiguredCheck, error) {
	d := check.Defaults{Timeout: o.connectTimeout, Options: check.Options{Version: c.Version}}
	if o.tlsCertsPath != "" {
		roots, err := check.LoadRoots(o.tlsCertsPath)
		if err != nil {
			return nil, fmt.Errorf("%s: --tls-certs-path: %w", c.name, err)
		}
		d.TLSRoots = roots
	}
	checks, warnings, err := config.LoadChecks(o.file, c.Stdin, d)
	lines := make([]string, len(warnings))
	for i, w := range warnings {
		lines[i] = w.String()
		if !o.validate {
			lines[i] += " (ignored, as conn-check does)"
		}
	}
	text := strings.Join(lines, "\n")
	switch {
	case text == "":
	case err == nil && o.validate:
		return nil, errors.New(text)
	default:
		c.printMessage(systemd.Warning, text)
	}
	return checks, err
}

// runChecks runs the checks that the options select, prints the report and returns the exit code.
func (c *command) runChecks(o *options, checks []*check.ConfiguredCheck) int {
	jobs := selectJobs(checks, o)
	if len(jobs) == 0 {
		c.errorf("nothing to check: no check in %s has the tags and matches the patterns", o.file)
	}
	p := &printer{options: o, out: c.out}
	if o.dryRun {
		return c.report(p, dryRunReport(jobs))
	}
	ctx, stop := signalContext()
	defer stop()
	if o.maxTimeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, o.maxTimeout, errMaxTimeout)
		defer cancel()
		ctx = limited
	}
	w := watcher{command: c, options: o, printer: p, progress: newProgressLine(c.Stderr)}
	rep := w.run(ctx, jobs)
	var interrupted interruptError
	if errors.As(rep.stopCause, &interrupted) {
		c.errorf("interrupted")
		return max(c.report(p, rep), 128+int(interrupted))
	}
	return c.report(p, rep)
}

// report prints rep and returns the exit code for it.
func (c *command) report(p *printer, rep *report) int {
	if err := p.print(rep); err != nil {
		c.errorf("write output: %v", err)
		return ExitUnknown
	}
	if rep.count(failed) > 0 || errors.Is(rep.stopCause, errMaxTimeout) {
		return ExitFailed
	}
	return ExitOK
}
