package admin

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"hacheck/internal/textfmt"
)

// The exit codes of every command.
const (
	ExitOK        = 0   // done; for hastatus: every service named is up
	ExitFailed    = 1   // hastatus: a service named is down; the others: refused, or something failed
	ExitUsage     = 2   // the command line makes no sense; nothing was touched
	ExitStillOpen = 3   // --wait: done, but not every balancer has followed in time
	ExitNotAsked  = 4   // --wait: done, but the daemon cannot be asked what balancers think; --safe: so nothing was done
	exitSignal    = 128 // --wait: done, and this and the signal's number when one has ended the waiting
)

// DefaultSpoolRoot is where overrides live unless --spool-root says otherwise.
const DefaultSpoolRoot = "/var/spool/hacheck"

// Env is the world a command runs in. Every field must be set; [System] sets them to the real ones.
type Env struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Version        string           // of the build, for --version
	UID            int              // effective user id
	Passwd         string           // path of the user database in passwd(5) format
	Nonhumans      string           // path of the list of shared accounts, one a line, # for comments
	daemon         daemon           // who is asked when there is no -p, --port
	Now            func() time.Time // what "in the past" and "how long ago" are measured against
}

// System is the world of a real process of that version.
func System(version string) Env {
	return Env{
		Version:   version,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		Getenv:    os.Getenv,
		UID:       os.Geteuid(),
		Passwd:    "/etc/passwd",
		daemon:    defaultDaemon,
		Nonhumans: "/etc/nonhumans",
		Now:       time.Now,
	}
}

// action is what a command does, in the words of the option -a.
type action string

const (
	actUp     action = "up"
	actDown   action = "down"
	actStatus action = "status"
	actDowned action = "status_downed"
	actList   action = "list"
)

// commands maps each name the program may be called by to what it then does.
var commands = map[string]action{
	"haup":         actUp,
	"hadown":       actDown,
	"hastatus":     actStatus,
	"hashowdowned": actDowned,
	"halist":       actList,
}

// command is one run of one command.
type command struct {
	Env
	name string // as the user called it, for messages
	opt  options
	out  *bufio.Writer
}

// Main runs a command and returns its exit code. args[0] is what the program was called as; when its
// last element is none of the five names, because the binary was renamed, the command is name.
func Main(name string, args []string, env Env) int {
	if len(args) > 0 {
		if base := filepath.Base(args[0]); commands[base] != "" {
			name = base
		}
		args = args[1:]
	}
	c := &command{Env: env, name: name, out: bufio.NewWriter(env.Stdout)}
	code := c.run(args)
	if err := c.out.Flush(); err != nil {
		// A report that did not arrive must not look like a good one.
		c.errorf("write output: %v", err)
		code = ExitFailed
	}
	return code
}

func (c *command) run(args []string) int {
	opt, err := parse(c.name, args)
	if err != nil {
		return c.usage(err)
	}
	if !opt.hasDaemon {
		opt.daemon = c.daemon
	}
	c.opt = opt
	switch {
	case opt.help:
		c.printf("%s", helpText(c.name))
		return ExitOK
	case opt.version:
		c.printf("%s %s\n", c.name, c.Version)
		return ExitOK
	}
	targets, err := c.opt.check(c.Now())
	if err != nil {
		return c.usage(err)
	}
	switch opt.action {
	case actUp, actDown:
		return c.change(targets)
	case actDowned:
		return c.showDowned()
	case actList:
		return c.list()
	default: // actStatus
		if len(targets) == 0 {
			return c.overview()
		}
		return c.status(targets)
	}
}

// usage reports a command line that makes no sense.
func (c *command) usage(err error) int {
	c.errorf("%v\nUsage: %s; see %s --help", err, synopsis(c.name), c.name)
	return ExitUsage
}

// printf prints lines of text to standard output. The writer remembers an error, and Main reports it.
func (c *command) printf(format string, args ...any) {
	_, _ = fmt.Fprint(c.out, textfmt.Lines(fmt.Sprintf(format, args...)))
}

// errorf prints one message to standard error, with the command's name in front. It never ends the
// command; when even this cannot be written, there is nowhere left to say so.
func (c *command) errorf(format string, args ...any) {
	_, _ = fmt.Fprintln(c.Stderr, textfmt.Lines(c.name+": "+fmt.Sprintf(format, args...)))
}
