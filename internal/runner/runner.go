// Package runner is conn-check: it runs the checks of a file once, or until all pass, and turns them into
// firewall rules. It asks the services themselves; overrides mean nothing to it.
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
	"hacheck/internal/textfmt"
)

// The exit codes, as Nagios reads them. An interrupted run ends with 128 and the number of the signal.
const (
	ExitOK      = 0 // every check passed
	ExitFailed  = 2 // a check failed, or did not end in time
	ExitUnknown = 3 // the command line or a file is wrong, or a file cannot be read; nothing was checked
)

// Env is the world a command runs in. Every field must be set; [System] sets them to the real ones.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string                                                       // of the build, for --version and the checks
	Hostname       func() string                                                // this machine's full name, for firewall rules
	Lookup         func(ctx context.Context, host string) ([]netip.Addr, error) // addresses of a host name
}

// SystemEnv is the world of a real process of that version.
func SystemEnv(version string) Env {
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Version:  version,
		Hostname: hostname,
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
}

// hostname is this machine's name with its domain, if that can be found out.
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
	// Without a name server that answers, the short name has to do.
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

// command is one run of one command.
type command struct {
	Env
	name string // "hacheck run", for messages
	out  *bufio.Writer
}

func newCommand(name string, env Env) *command {
	return &command{Env: env, name: name, out: bufio.NewWriter(env.Stdout)}
}

// finish writes out what is still buffered.
func (c *command) finish(code int) int {
	if err := c.out.Flush(); err != nil {
		// A report that did not arrive must not look like a good one.
		c.errorf("write output: %v", err)
		return max(code, ExitUnknown)
	}
	return code
}

// errorf prints one message to standard error. When even that cannot be written, there is nowhere left to say so.
func (c *command) errorf(format string, args ...any) {
	_, _ = fmt.Fprintln(c.Stderr, textfmt.Lines(c.name+": "+fmt.Sprintf(format, args...)))
}

func (c *command) usageError(err error, synopsis string) int {
	c.errorf("%v\nUsage: %s %s; see %s --help", err, c.name, synopsis, c.name)
	return ExitUnknown
}

// fileError says what is wrong with a file: lines that begin with its name.
func (c *command) fileError(err error) int {
	_, _ = fmt.Fprintln(c.Stderr, textfmt.Lines(err.Error()))
	return ExitUnknown
}

// Run is "hacheck run": args are what follows these words. It returns the exit code.
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
			// Nagios shows standard output alone.
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

// load reads and builds the checks of the file.
func (c *command) load(o *options) ([]*check.Configured, error) {
	d := check.Defaults{Timeout: o.connectTimeout, Options: check.Options{Version: c.Version}}
	if o.tlsCertsPath != "" {
		roots, err := check.LoadRoots(o.tlsCertsPath)
		if err != nil {
			return nil, fmt.Errorf("%s: --tls-certs-path: %w", c.name, err)
		}
		d.TLSRoots = roots
	}
	return config.LoadChecks(o.file, c.Stdin, d)
}

// runChecks runs the checks that the options choose and reports on them.
func (c *command) runChecks(o *options, checks []*check.Configured) int {
	jobs := selectJobs(checks, o)
	if len(jobs) == 0 {
		c.errorf("nothing to check: no check in %s has the tags and matches the patterns", o.file)
	}
	p := &printer{o: o, out: c.out}
	if o.dryRun {
		return c.report(p, dryRunReport(jobs))
	}
	stop := catchSignals()
	defer stop.release()
	ctx := stop.ctx
	if o.maxTimeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, o.maxTimeout, errMaxTimeout)
		defer cancel()
		ctx = limited
	}
	w := watcher{command: c, o: o, printer: p, progress: newProgressLine(c.Stderr)}
	rep := w.watch(ctx, jobs)
	if sig := stop.signal(rep.stopCause); sig > 0 {
		c.errorf("interrupted")
		return max(c.report(p, rep), 128+sig)
	}
	return c.report(p, rep)
}

// report prints what a run has found and returns the exit code that it stands for.
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
