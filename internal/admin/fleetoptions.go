package admin

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// The defaults of --wait-turn and --timeout.
const (
	defaultWaitTurn     = time.Hour
	defaultFleetTimeout = 10 * time.Second
)

// fleetOptions are the options that need a daemon with a fleet.
type fleetOptions struct {
	socket        string // of the daemon; "": no daemon is asked through a socket
	groups, hosts []string
	all           bool // --fleet
	replace       bool
	yes           bool
	timeout       time.Duration // until the hosts of a scope have applied a change
	waitTurn      time.Duration // 0 without --wait-turn

	hasSocket, hasTimeout bool
	isWaitTurnBare        bool // --wait-turn without "=DURATION"
}

// addFlags adds the options to fs.
func (f *fleetOptions) addFlags(fs *pflag.FlagSet) {
	fs.Var((*waitTurnValue)(f), "wait-turn", "with --safe in a fleet, wait for a permit until the hosts\nbefore this one are back; give up after DURATION (default 1h)")
	fs.Lookup("wait-turn").NoOptDefVal = noDuration
	f.addScopeFlags(fs)
	fs.BoolVar(&f.replace, "replace", false, "replace the override that another person has set for the\nsame hosts; with --group, --host or --fleet")
	f.addYes(fs, "do not ask when more hosts go out than the budget allows")
	f.timeout = defaultFleetTimeout
	fs.Func("timeout", "give the hosts of --group, --host or --fleet this `TIME` to\napply the change (default 10s)", func(s string) (err error) {
		f.timeout, err = parseDuration(s)
		f.hasTimeout = true
		return err
	})
	f.addSocket(fs)
}

// addScopeFlags adds the options that name hosts.
func (f *fleetOptions) addScopeFlags(fs *pflag.FlagSet) {
	f.addHosts(fs)
	fs.BoolVar(&f.all, "fleet", false, "every host of the fleet")
}

// addHosts adds the options that name some hosts.
func (f *fleetOptions) addHosts(fs *pflag.FlagSet) {
	fs.Func("group", "the hosts of group `NAME`; repeat for more", func(s string) error { return addName(&f.groups, s) })
	fs.Func("host", "the host `NAME`; repeat for more", func(s string) error { return addName(&f.hosts, s) })
}

func (f *fleetOptions) addYes(fs *pflag.FlagSet, usage string) {
	fs.BoolVar(&f.yes, "yes", false, usage)
}

func (f *fleetOptions) addSocket(fs *pflag.FlagSet) {
	fs.StringVar(&f.socket, "control-socket", "", "the daemon's control socket is `PATH` (default\n/run/hacheck/control.sock); '': use none")
}

// addName adds the name of a group or a host. A name that is given twice counts once.
func addName(names *[]string, name string) error {
	if !spool.ValidService(name) {
		return errors.New("want a name of letters, digits, '.', '_' and '-'")
	}
	if !slices.Contains(*names, name) {
		*names = append(*names, name)
	}
	return nil
}

// hasScope reports whether the command is about hosts of the fleet, rather than about this host.
func (f *fleetOptions) hasScope() bool { return f.all || len(f.groups)+len(f.hosts) > 0 }

// scopes returns the scopes as the control socket takes them.
func (f *fleetOptions) scopes() []string {
	var list []string
	if f.all {
		list = append(list, scopeAll)
	}
	for _, name := range f.groups {
		list = append(list, groupPrefix+name)
	}
	for _, name := range f.hosts {
		list = append(list, hostPrefix+name)
	}
	return list
}

// waitTurnValue is the optional value of --wait-turn.
type waitTurnValue fleetOptions

// String returns "", because the help has the default in words.
func (w *waitTurnValue) String() string { return "" }

// Type returns the type for which pflag does not require a value.
func (w *waitTurnValue) Type() string { return "bool" }

// Set reads a duration.
func (w *waitTurnValue) Set(s string) error {
	if w.isWaitTurnBare = s == noDuration; w.isWaitTurnBare {
		w.waitTurn = defaultWaitTurn
		return nil
	}
	d, err := parseDuration(s)
	if errors.Is(err, errTooLong) {
		err = errors.New("that is more than a hundred years")
	}
	w.waitTurn = d
	return err
}

// validateFleet checks the options of the fleet against the action and each other.
func (o *options) validateFleet(now time.Time) error {
	f := &o.fleet
	for _, option := range []struct {
		isSet   bool
		name    string
		command string
		actions []action
	}{
		{f.hasScope(), f.scopeOption(), "hadown, haup and hastatus", []action{actDown, actUp, actStatus}},
		{f.replace, "--replace", "hadown", []action{actDown}},
		{f.yes, "--yes", "hadown", []action{actDown}},
		{f.waitTurn != 0, "--wait-turn", "hadown", []action{actDown}},
		{f.hasTimeout, "--timeout", "hadown and haup", []action{actDown, actUp}},
	} {
		if option.isSet && !slices.Contains(option.actions, o.action) {
			return fmt.Errorf("option %s is for %s, it means nothing for action %s", option.name, option.command, o.action)
		}
	}
	name, long := findDuration(o.names)
	switch {
	case f.waitTurn != 0 && !o.safe:
		return errors.New("--wait-turn needs --safe")
	case f.waitTurn != 0 && o.action == actDown && endsBefore(o.expiresAt(now), now.Add(f.waitTurn)):
		return fmt.Errorf("--wait-turn may wait for %s, but the override ends before; give it more time, or a shorter --wait-turn=DURATION", textfmt.Duration(f.waitTurn))
	case f.isWaitTurnBare && name != "":
		return fmt.Errorf("%q would be a service; write the duration as --wait-turn=%s", name, long)
	case !f.hasScope():
		for _, option := range []struct {
			isSet bool
			name  string
		}{{f.replace, "--replace"}, {f.yes, "--yes"}, {f.hasTimeout, "--timeout"}} {
			if option.isSet {
				return fmt.Errorf("%s needs --group, --host or --fleet", option.name)
			}
		}
		return nil
	}
	return o.validateScope()
}

// endsBefore reports whether an override with that end ends before t. A zero end is never.
func endsBefore(end, t time.Time) bool { return !end.IsZero() && end.Before(t) }

// validateScope checks the options that a scope excludes.
func (o *options) validateScope() error {
	f := &o.fleet
	switch {
	case o.action != actStatus && f.all && len(f.groups)+len(f.hosts) > 0:
		return errors.New("--fleet covers every host; leave --group and --host away")
	case f.socket == "":
		return fmt.Errorf("%s needs the daemon, but --control-socket '' asks none", f.scopeOption())
	case o.safe:
		return fmt.Errorf("--safe is for one host; with %s the command says how many hosts go out against each budget", f.scopeOption())
	case o.forceUp:
		return fmt.Errorf("--force-up is for one host, leave %s away", f.scopeOption())
	case o.maint && o.wait != 0:
		return fmt.Errorf("--maint --wait drains one host first, leave %s or --wait away", f.scopeOption())
	case o.action == actStatus && (o.port != 0 || o.host != ""):
		return errors.New("the view of the fleet has no instances, leave -P and -H away")
	}
	return nil
}

// scopeOption returns the option that has given a scope, for messages.
func (f *fleetOptions) scopeOption() string {
	switch {
	case f.all:
		return "--fleet"
	case len(f.groups) > 0:
		return "--group"
	}
	return "--host"
}
