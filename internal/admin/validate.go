package admin

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/spool"
)

// validate checks the command line and returns its targets in the order given. It checks every name before the command
// changes anything.
func (o *options) validate(now time.Time) ([]target, error) {
	switch o.action {
	case actUp, actDown:
		if len(o.names) == 0 {
			return nil, fmt.Errorf("expected args for action %s: name a service, or all", o.action)
		}
	case actStatus:
		if len(o.names) == 0 && (o.port != 0 || o.host != "") {
			return nil, fmt.Errorf("expected args for action %s: name a service, or all", o.action)
		}
	case actDowned, actList:
		if len(o.names) > 0 {
			return nil, fmt.Errorf("unexpected args for action %s: %q", o.action, o.names)
		}
	}
	if o.spoolRoot == "" {
		return nil, errors.New("option --spool-root: a directory is needed")
	}
	o.spoolRoot = filepath.Clean(o.spoolRoot) // filepath.Dir of "spool/" would be "spool"
	if o.host != "" && o.port == 0 {
		return nil, fmt.Errorf("service port required if service host specified for action %s: add -P", o.action)
	}
	if o.hasDuration && o.action != actDown && (o.action != actUp || o.weight == 0) { // "haup web --for 30m" does not take web down again
		return nil, fmt.Errorf("option --for is for hadown and haup --weight, it means nothing for action %s", o.action)
	}
	if err := o.validateModes(); err != nil {
		return nil, err
	}
	if err := o.validateFleet(now); err != nil {
		return nil, err
	}
	if o.daemon.isNone() && (o.wait != 0 || o.safe || o.action == actList) {
		return nil, errors.New("option -p, --port: -p '' asks no daemon, but --wait, --safe and halist need one")
	}
	if o.action == actDown || o.setsWeight() {
		if o.hasExpiration && o.hasDuration {
			return nil, errors.New("-e and --for both say when it ends, give one of them")
		}
		if o.hasExpiration && o.expiration <= spool.UnixSeconds(now) {
			return nil, fmt.Errorf("option -e, --expiration: %s is in the past; to end in half an hour write --for 30m",
				strconv.FormatFloat(o.expiration, 'f', -1, 64))
		}
	}
	targets, listed := make([]target, 0, len(o.names)), map[spool.Key]bool{}
	for _, name := range o.names {
		t, err := newTarget(o.writesOverride() || o.setsWeight(), name, o.host, o.port)
		if err != nil {
			return nil, err
		}
		if (o.action == actUp || o.action == actDown) && listed[t.key] {
			continue // a repeated name
		}
		listed[t.key] = true
		targets = append(targets, t)
	}
	return targets, nil
}

// validateModes checks the options for how to go up or down and for --wait against the action and each other.
func (o *options) validateModes() error {
	for _, option := range []struct {
		isSet   bool
		name    string
		command string
		actions []action
	}{
		{o.untilBoot, "--until-boot", "hadown", []action{actDown}},
		{o.drain, "--drain", "hadown", []action{actDown}},
		{o.maint, "--maint", "hadown", []action{actDown}},
		{o.safe, "--safe", "hadown", []action{actDown}},
		{o.hasFall, "--fall", "hadown", []action{actDown}},
		{o.forceUp, "--force-up", "haup", []action{actUp}},
		{o.weight != 0, "--weight", "haup", []action{actUp}},
		{o.allowUnknown, "--allow-unknown", "hadown and haup", []action{actDown, actUp}},
		{o.connections, "--connections", "hadown", []action{actDown}},
		{o.wait != 0, "--wait", "hadown and haup", []action{actDown, actUp}},
		{o.watch != 0, "--watch", "hastatus", []action{actStatus}},
	} {
		if option.isSet && !slices.Contains(option.actions, o.action) {
			return fmt.Errorf("option %s is for %s, it means nothing for action %s", option.name, option.command, o.action)
		}
	}
	switch {
	case o.untilBoot && (o.hasExpiration || o.hasDuration):
		return errors.New("--until-boot says when it ends, and so do -e and --for; give one of them")
	case o.untilBoot && o.fleet.hasScope():
		return errors.New("--until-boot is about this machine, so it excludes --group, --host and --fleet")
	case o.drain && o.maint:
		return errors.New("--drain and --maint exclude each other; --maint --wait drains first")
	case o.hasFall && o.wait == 0:
		return errors.New("--fall needs --wait")
	case o.connections && o.wait == 0:
		return errors.New("--connections needs --wait")
	case o.allowUnknown && o.wait == 0:
		return errors.New("--allow-unknown needs --wait")
	case o.forceUp && o.hasReason: // otherwise haup ignores -r, as the original does
		return errors.New("option -r, --reason is for hadown; --force-up records the user by itself")
	case o.forceUp && o.hasExpiration:
		return errors.New("option -e, --expiration is for hadown; --force-up ends with haup")
	}
	if err := o.validateWeight(); err != nil {
		return err
	}
	if name, long := findDuration(o.names); o.isWaitBare && name != "" {
		return fmt.Errorf("%q would be a service; write the duration as --wait=%s", name, long)
	}
	if name, long := findDuration(o.names); o.isWatchBare && name != "" {
		return fmt.Errorf("%q would be a service; write the duration as --watch=%s", name, long)
	}
	return nil
}

// findDuration returns the first name that is a duration and how an option has to spell it, or "".
func findDuration(names []string) (name, long string) {
	for _, name := range names {
		long := name
		if name != "" && strings.Trim(name, "0123456789") == "" {
			long += "s"
		}
		if _, err := parseDuration(long); err == nil {
			return name, long
		}
	}
	return "", ""
}
