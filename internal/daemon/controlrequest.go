package daemon

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"hacheck/internal/control"
	"hacheck/internal/fleet"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// controlRequest is a request of the control socket that was validated.
type controlRequest struct {
	control.Request
	keys     []spool.Key
	override spool.Entry // without its Key; By is the caller
	waitTurn time.Duration
	timeout  time.Duration
	progress fleet.Progress
	caller   control.Caller
	self     string // name of this host in the fleet
}

// scoped returns r as an override for many hosts.
func (r *controlRequest) scoped() fleet.ScopedOverride {
	return fleet.ScopedOverride{Scopes: r.Scopes, Keys: r.keys, Override: r.override, Replace: r.Replace}
}

// logArgs returns what every log line about an override for many hosts has.
func (r *controlRequest) logArgs() []any {
	return []any{"scope", strings.Join(r.Scopes, " "), "service", strings.Join(r.Services, " "), "by", r.override.By}
}

// maxNamed bounds the scopes, and the services, of one request.
const maxNamed = 1000

// parseRequest validates r. The error says what is wrong in it.
func parseRequest(r control.Request, caller control.Caller, now time.Time) (*controlRequest, error) {
	p := &controlRequest{Request: r, caller: caller, override: spool.Entry{By: caller.By, Reason: r.Reason, Created: now}}
	var err error
	if p.waitTurn, err = durationOf(r.WaitTurn, maxWaitTurn); err != nil {
		return nil, fmt.Errorf("wait_turn: %w", err)
	}
	if p.timeout, err = durationOf(r.Timeout, maxApplyTime); err != nil {
		return nil, fmt.Errorf("timeout: %w", err)
	}
	if r.Timeout == 0 {
		p.timeout = defaultApplyTime
	}
	switch r.Op {
	case control.OpTakeDown:
		err = errors.Join(p.parseKeys(), p.parseState(false))
		if r.UntilBoot && err == nil {
			p.override.Boot, err = spool.BootID()
		}
	case control.OpImpact, control.OpSet:
		err = errors.Join(p.checkScopes(), p.parseKeys(), p.parseState(true))
	case control.OpLift:
		err = errors.Join(p.checkScopes(), p.parseKeys())
	case control.OpHeldDown:
		if len(r.Services) > 0 {
			err = p.parseKeys()
		}
	case control.OpBudget:
		err = errors.Join(p.checkOneService("*"), checkBudget(r.Budget))
	case control.OpForget:
		err = checkHost(r.Host)
	case control.OpForgetBalancer:
		if r.Balancer == "" || len(r.Balancer) > maxBalancerName {
			err = fmt.Errorf("want the address or the node name of a balancer, of at most %d bytes", maxBalancerName)
		}
	case control.OpRelease:
		if err = p.checkOneService(""); err == nil && r.Host != "" {
			err = checkHost(r.Host)
		}
	}
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return p, nil
}

// durationOf converts a number of seconds. An odd number is an error.
func durationOf(seconds float64, most time.Duration) (time.Duration, error) {
	if math.IsNaN(seconds) || seconds < 0 || seconds > most.Seconds() {
		return 0, fmt.Errorf("want a number of seconds from 0 to %.0f, got %g", most.Seconds(), seconds)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func (r *controlRequest) parseKeys() error {
	if len(r.Services) == 0 || len(r.Services) > maxNamed {
		return fmt.Errorf("want 1 to %d services, got %d", maxNamed, len(r.Services))
	}
	for _, name := range r.Services {
		k, err := spool.ParseKey(name)
		if err == nil {
			err = k.Check()
		}
		if err != nil {
			return fmt.Errorf("service %s: %w", textfmt.Truncate(textfmt.OneLine(name), spool.MaxName), err)
		}
		r.keys = append(r.keys, k)
	}
	return nil
}

// parseState reads what the override sets: state, reason and end.
func (r *controlRequest) parseState(mayBeUp bool) error {
	for _, s := range []spool.State{spool.Drain, spool.Down, spool.Maint, spool.ForceUp} {
		if s.String() == r.State && (mayBeUp || s.TakesOut()) {
			r.override.State = s
		}
	}
	switch {
	case r.override.State == spool.Ready:
		return fmt.Errorf("state %q: want down, drain or maint, and for many hosts also up", textfmt.Truncate(r.State, 40))
	case len(r.Reason) > spool.MaxReason:
		return fmt.Errorf("the reason has %d bytes, more than %d", len(r.Reason), spool.MaxReason)
	case r.Expires == nil:
		return nil
	case !r.Expires.After(r.override.Created):
		return errors.New("the override would be over already")
	}
	r.override.Expires = *r.Expires
	return nil
}

func (r *controlRequest) checkScopes() error {
	if len(r.Scopes) == 0 || len(r.Scopes) > maxNamed {
		return fmt.Errorf("want 1 to %d scopes, got %d", maxNamed, len(r.Scopes))
	}
	for _, s := range r.Scopes {
		kind, name, named := strings.Cut(s, ":")
		if s != spool.All && (!named || kind != "group" && kind != "host" || !spool.ValidService(name)) {
			return fmt.Errorf("scope %q: want all, group:NAME or host:NAME", textfmt.Truncate(s, spool.MaxName))
		}
	}
	return nil
}

// checkOneService returns an error unless there is one service, or the wildcard.
func (r *controlRequest) checkOneService(wildcard string) error {
	if len(r.Services) != 1 {
		return fmt.Errorf("want one service, got %d", len(r.Services))
	}
	if name := r.Services[0]; !spool.ValidService(name) && (name != wildcard || wildcard == "") {
		return fmt.Errorf("%q is no service name", textfmt.Truncate(name, spool.MaxName))
	}
	return nil
}

// maxBalancerName is the longest name of a balancer in bytes, as in the table of balancers.
const maxBalancerName = 256

func checkHost(name string) error {
	if !spool.ValidService(name) {
		return fmt.Errorf("%q is no name of a host", textfmt.Truncate(name, spool.MaxName))
	}
	return nil
}

func checkBudget(text string) error {
	if !regexp.MustCompile(`^([0-9]{1,6}%?)?$`).MatchString(text) {
		return fmt.Errorf("budget %q: want a number of hosts such as 2, or a part of all such as 25%%", textfmt.Truncate(text, 40))
	}
	return nil
}
