package admin

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hacheck/internal/control"
	"hacheck/internal/spool"
	"hacheck/internal/systemd"
	"hacheck/internal/textfmt"
)

// The exit codes of every command.
const (
	ExitOK                = 0   // done; hastatus: every named service is up
	ExitFailed            = 1   // refused or failed; hastatus: a named service is down
	ExitUsage             = 2   // wrong command line; nothing was changed
	ExitWaitIncomplete    = 3   // done, but not every balancer (--wait) or host of the fleet has followed in time
	ExitDaemonUnavailable = 4   // the daemon, or for it etcd, cannot be asked; --wait: done; --safe: nothing was changed
	ExitUnknown           = 5   // --wait: done, but no balancer asks about a service
	exitSignal            = 128 // --wait: done, and a signal ended the wait; its number is added
)

// DefaultSpoolRoot is the directory of the overrides without --spool-root.
const DefaultSpoolRoot = "/var/spool/hacheck"

// Env is what a command uses of the system. The caller sets every field, with [System] to the real ones.
type Env struct {
	Stdin          io.Reader // a question is asked only if it is a terminal
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Version        string           // of the build, for --version
	UID            int              // effective user id
	LoginUID       int              // of the user who has logged in, see loginUID
	Passwd         string           // path of the user database in passwd(5) format
	Defaults       string           // path of the file with the options of the daemon; "" is none
	Nonhumans      string           // path of the list of shared accounts, one a line, # for comments
	daemon         daemonAddr       // without -p, --port
	controlSocket  string           // without --control-socket
	Now            func() time.Time // the clock for expirations and ages
}

// System returns the Env of a real process of that version.
func System(version string) Env {
	return Env{
		Version:       version,
		Stdin:         os.Stdin,
		Stdout:        os.Stdout,
		Stderr:        os.Stderr,
		Getenv:        os.Getenv,
		UID:           os.Geteuid(),
		LoginUID:      loginUID(loginUIDFile, os.Getuid(), os.Getenv("SUDO_UID")),
		Passwd:        "/etc/passwd",
		daemon:        defaultDaemon,
		controlSocket: control.DefaultSocket,
		Defaults:      "/etc/default/hacheck",
		Nonhumans:     "/etc/nonhumans",
		Now:           time.Now,
	}
}

// action is what a command does, with the values of the option -a.
type action string

const (
	actUp     action = "up"
	actDown   action = "down"
	actStatus action = "status"
	actDowned action = "status_downed"
	actList   action = "list"
)

// commands maps each name of the program to its action.
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
	name string // for messages
	opt  options
	out  *bufio.Writer
}

// Main runs a command and returns its exit code. The base name of args[0] selects the command. If that is none of the
// five names, because the binary was renamed, name selects it.
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
		// A reader that got half of the output must not see exit code 0.
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
	c.opt = opt
	switch {
	case opt.help:
		c.printf("%s", formatHelp(c.name))
		return ExitOK
	case opt.version:
		c.printf("%s %s\n", c.name, c.Version)
		return ExitOK
	}
	var targets []target
	if err = c.applyDefaults(&c.opt); err == nil {
		targets, err = c.opt.validate(c.Now())
	}
	if err != nil {
		return c.usage(err)
	}
	c.warnPorts()
	switch opt.action {
	case actUp, actDown:
		if c.opt.fleet.hasScope() {
			return c.changeScope(targets)
		}
		return c.change(targets)
	case actDowned:
		return c.showDowned()
	case actList:
		return c.listRecent()
	default: // actStatus
		show := func(c *command) int { return c.showStatus(targets) }
		if c.opt.watch != 0 {
			return c.watch(show)
		}
		return show(c)
	}
}

// warnPorts prints a warning about each name that is a number after a service, as in "hadown web 80": the operator
// probably means an instance, and the command is about the whole service.
func (c *command) warnPorts() {
	service := ""
	for _, name := range c.opt.names {
		port, err := parsePort(name)
		switch {
		case err != nil:
			service = name
		case service != "" && service != spool.All && c.opt.port == 0:
			c.errorf("warning: %s is a service here; one instance is written %s -P %d", name, service, port)
		}
	}
}

// showStatus is hastatus: the fleet, named services or the overview.
func (c *command) showStatus(targets []target) int {
	if c.opt.fleet.hasScope() {
		return c.showFleet(fleetFilter{c.opt.names, c.opt.fleet.groups, c.opt.fleet.hosts})
	}
	if len(targets) == 0 {
		return c.overview()
	}
	return c.status(targets)
}

// usage prints what is wrong with the command line and returns ExitUsage.
func (c *command) usage(err error) int {
	c.errorf("%v\nUsage: %s; see %s --help", err, synopsis(c.name), c.name)
	return ExitUsage
}

// printf prints text to standard output. The writer keeps an error, and Main reports it.
func (c *command) printf(format string, args ...any) {
	_, _ = fmt.Fprint(c.out, textfmt.Lines(fmt.Sprintf(format, args...)))
}

// errorf prints one message to standard error, after the command's name. In the journal it is an error, or a warning if it
// begins with that word.
func (c *command) errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if strings.HasPrefix(text, "warning: ") {
		c.printMessage(systemd.Warning, text)
		return
	}
	c.printMessage(systemd.Error, text)
}

// note is errorf for a message that is no error.
func (c *command) note(text string) { c.printMessage(systemd.Info, text) }

// printMessage prints one message to standard error. It ignores a write error, because there is no place left to report it.
func (c *command) printMessage(priority, text string) {
	_, _ = fmt.Fprintln(c.Stderr, systemd.WithPriority(c.Stderr, priority, textfmt.Lines(c.name+": "+text)))
}
