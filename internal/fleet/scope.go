package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hacheck/internal/spool"
)

// scopeAll is the scope of every host. The other scopes are a prefix and a name.
const (
	scopeAll    = "all"
	groupPrefix = "group:"
	hostPrefix  = "host:"
)

// overridesPrefix is where overrides are, below Options.Prefix.
const overridesPrefix = "overrides/"

// checkScope returns an error if s is no scope.
func checkScope(s string) error {
	name, isGroup := strings.CutPrefix(s, groupPrefix)
	if !isGroup {
		var isHost bool
		if name, isHost = strings.CutPrefix(s, hostPrefix); !isHost {
			if s == scopeAll {
				return nil
			}
			return fmt.Errorf("%q is no scope: it is all, group:NAME or host:NAME", s)
		}
	}
	if !spool.ValidService(name) {
		return fmt.Errorf("%q is no scope: use letters, digits, '.', '_' and '-' in the name", s)
	}
	return nil
}

// covers reports whether scope is about a host.
func covers(scope, host string, groups []string) bool {
	if name, ok := strings.CutPrefix(scope, groupPrefix); ok {
		return slices.Contains(groups, name)
	}
	return scope == scopeAll || scope == hostPrefix+host
}

// splitOverrideKey splits a key below overrides/ into its scope and the key of the override.
func splitOverrideKey(key string) (string, spool.Key, error) {
	scope, name, _ := strings.Cut(key, "/")
	if err := checkScope(scope); err != nil {
		return "", spool.Key{}, err
	}
	k, err := spool.ParseKey(name)
	if err == nil {
		err = k.Check()
	}
	if err == nil && k.Name() != name {
		err = fmt.Errorf("%q is not the usual spelling of %q", name, k.Name())
	}
	return scope, k, err
}

// describe returns a key below overrides/ for people: "web [group:rack7]".
func describe(key string) string {
	scope, name, _ := strings.Cut(key, "/")
	return fmt.Sprintf("%q", name) + " [" + scope + "]"
}

// The bounds of an override's texts, in bytes.
const (
	maxID = 64
	maxBy = 256
)

// check returns an error if o cannot be obeyed: a newer version, or values that no hacheck writes.
func (o *override) check() error {
	switch {
	case o.V > version:
		return fmt.Errorf("its version %d is newer than this hacheck's (%d); update hacheck", o.V, version)
	case o.V < 1:
		return errors.New("it has no version")
	case o.ID == "" || len(o.ID) > maxID:
		return errors.New("it has no usable id")
	case o.state() == spool.Ready:
		return fmt.Errorf("its state %.20q is none of down, drain, maint and up", o.State)
	case len(o.Reason) > spool.MaxReason || len(o.By) > maxBy:
		return errors.New("its texts are too long")
	case o.Created.IsZero():
		return errors.New("it has no time of creation")
	case o.Expires != nil && !o.Expires.After(o.Created):
		return errors.New("it ends before it begins")
	}
	return nil
}

// state returns the state that o sets, Ready if it is none.
func (o *override) state() spool.State {
	for _, s := range []spool.State{spool.ForceUp, spool.Drain, spool.Down, spool.Maint} {
		if o.State == s.String() {
			return s
		}
	}
	return spool.Ready
}

// inForce reports whether o has neither been lifted nor expired.
func (o *override) inForce(now time.Time) bool {
	return o.Lifted == nil && (o.Expires == nil || now.Before(*o.Expires))
}
