package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxSideBySide is how many checks of one service run at once.
const maxSideBySide = 64

// NamedResult is what one of a service's checks found.
type NamedResult struct {
	Name   string // the Configured's
	Result Result
}

// RunAll runs the checks of a service side by side, 64 at a time, and returns their outcomes in the order
// of the checks. Each has its own timeout, and ctx bounds them all. t.Port is what scripts are told.
func RunAll(ctx context.Context, service string, checks []*Configured, t Target) []NamedResult {
	t.Service = service
	outcomes := make([]NamedResult, len(checks))
	slots := make(chan struct{}, maxSideBySide)
	var all sync.WaitGroup
	for i, c := range checks {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			outcomes[i] = NamedResult{c.Name, c.Check(ctx, t)}
		})
	}
	all.Wait()
	return outcomes
}

// Combine makes one result of a service's outcomes: 200 "OK" if all are 200, else 503 and a line
// "<name>: <why>" for each that is not. Its reason is that of the first which says something about the
// service: a result is only as little worth as a busy or cancelled check if no other has failed.
func Combine(outcomes []NamedResult) Result {
	var body strings.Builder
	var errs []error
	r := Result{Code: 200, Body: []byte("OK"), Parts: outcomes}
	decided := false
	for i, o := range outcomes {
		r.Took = max(r.Took, o.Result.Took)
		if o.Result.Code == 200 {
			continue
		}
		r.Code = 503
		reason := o.Result.Reason
		if reason == ReasonOK {
			reason = ReasonFailed // it has answered, and not 200
		}
		if ours := reason == ReasonBusy || reason == ReasonCancelled; r.Reason == ReasonOK || !decided && !ours {
			r.Reason, decided = reason, !ours
		}
		err := o.Result.Err
		if err == nil {
			err = fmt.Errorf("answered %d", o.Result.Code)
		}
		errs = append(errs, fmt.Errorf("%s: %w", o.Name, err))
		line := oneLine(o.Name, 300) + ": " + oneLine(o.Result.Body, maxOutput)
		if body.Len()+len(line) > MaxBody-100 {
			fmt.Fprintf(&body, "\nnot shown: what %d more checks found", len(outcomes)-i)
			break
		}
		if body.Len() > 0 {
			body.WriteByte('\n')
		}
		body.WriteString(line)
	}
	if r.Code != 200 {
		r.Body, r.Err = []byte(body.String()), errors.Join(errs...)
	}
	return r
}

// newChecks returns the check of everything that is configured for a service.
func newChecks(o Options) Func {
	return func(ctx context.Context, t Target) Result {
		start := time.Now()
		checks := o.Services[t.Service]
		if len(checks) == 0 {
			r := notConfigured(t.Service, "No checks are", "{type: tcp, port: 8080}")
			r.Took = time.Since(start)
			return r
		}
		r := Combine(RunAll(ctx, t.Service, checks, t))
		r.Took = time.Since(start)
		return r
	}
}

// reach is what of a request reaches the configured checks of a service.
type reach struct {
	ports []uint16 // that its scripts are told; any other port counts as none
	hops  bool     // one of the checks passes Target.Hops on
}

// reachOf returns what reaches these checks. Only scripts are told a port, as HACHECK_PORT: one that the configuration
// names, as the port of another check of the service or in the option ports. Otherwise a client would have a script run
// once for each of 65,536 ports.
func reachOf(checks []*Configured) (r reach) {
	script := false
	for _, c := range checks {
		r.ports = append(r.ports, c.ports...)
		if c.Endpoint.Port != 0 {
			r.ports = append(r.ports, c.Endpoint.Port)
		}
		script = script || c.Type == scriptType.Name
		r.hops = r.hops || passesHops(c.Type)
	}
	if !script {
		r.ports = nil
	}
	return r
}

// passesHops reports whether the checks of a type pass Target.Hops on.
func passesHops(typ string) bool {
	return typ == httpType.Name || typ == grpcType.Name || typ == haproxyType.Name
}

// newReduceChecks returns Protocol.Reduce of the protocol checks: whom to ask is in the configuration, so that the
// host does not matter, and the port and the hops only as far as reach says.
func newReduceChecks(o Options) func(Target) Target {
	services := make(map[string]reach, len(o.Services))
	for name, checks := range o.Services {
		services[name] = reachOf(checks)
	}
	return func(t Target) Target {
		r := services[t.Service]
		t.Host = ""
		if !slices.Contains(r.ports, t.Port) {
			t.Port = 0
		}
		if !r.hops {
			t.Hops = 0
		}
		return t
	}
}

// notConfigured says what to write to have a service checked, in one line, as YAML allows.
func notConfigured(service, what, example string) Result {
	service = oneLine(service, 200)
	err := fmt.Errorf("no check of this kind under services: %s", service)
	return result(500, ReasonConfig, err, "%s configured for %s; add to the configuration file: services: {%s: {checks: [%s]}}", what, service, service, example)
}

// typed are the protocols of check URLs that are configured types, and whether they mean something without
// a configured check, with the defaults alone.
var typed = []struct {
	name string
	bare bool
}{
	{"tls", true},
	{"memcached", true},
	{"grpc", true},
	{"postgres", false},
	{"mongodb", false},
	{"amqp", false},
	{"udp", false},
}

// typeProtocols returns the protocols whose options come from the first check of that type under services:
// <service>, with host and port from the request.
func typeProtocols(o Options) []Protocol {
	var list []Protocol
	for _, p := range typed {
		if t := typeNamed(p.name); t != nil {
			list = append(list, Protocol{
				Name: p.name, Check: newTyped(o, p.name, t, p.bare), PerService: true, ForwardsHops: passesHops(t.Name),
				Canonical: newReduceTyped(o, t, p.bare),
			})
		}
	}
	return list
}

func newTyped(o Options, name string, typ *Type, bare bool) Func {
	// Where nothing is configured certificates are looked at as https does.
	bareOptions := map[string]any{}
	if !o.TLSVerify && typ.has(noVerifyOption.Name) {
		bareOptions[noVerifyOption.Name] = true
	}
	unconfigured := &Configured{
		typ: typ, spec: Spec{Type: typ.Name, Options: bareOptions},
		defaults: Defaults{Timeout: maxTimeout, Options: o}, // whoever asks has a shorter one
	}
	return func(ctx context.Context, t Target) Result {
		start := time.Now()
		r := func() Result {
			c := firstOf(o.Services[t.Service], typ)
			switch {
			case c == nil && !bare:
				return notConfigured(t.Service, "No check of type "+name+" is", typ.example(name, t.Port))
			case c == nil:
				c = unconfigured
			}
			at, err := c.At(t.Host, t.Port)
			if err != nil {
				return result(500, ReasonConfig, err, "The check of type %s that is configured for %s cannot be asked here: %s", name, oneLine(t.Service, 200), oneLine(err.Error(), 300))
			}
			return at.checkLast(ctx, t)
		}()
		r.Took = time.Since(start)
		return r
	}
}

// firstOf returns the first check of a type, nil if there is none.
func firstOf(checks []*Configured, typ *Type) *Configured {
	for _, c := range checks {
		if c.Type == typ.Name {
			return c
		}
	}
	return nil
}

// newReduceTyped returns Protocol.Reduce of a configured type: the name of a service that has no check of the type
// does not matter where the type means something without one.
func newReduceTyped(o Options, typ *Type, bare bool) func(Target) Target {
	return func(t Target) Target {
		if bare && firstOf(o.Services[t.Service], typ) == nil {
			t.Service = ""
		}
		return t
	}
}

// has tells whether the type has an option.
func (t *Type) has(option string) bool {
	for _, o := range t.Options {
		if o.Name == option {
			return true
		}
	}
	return false
}

// example is a check with the options that have to be given, for people to complete.
func (t *Type) example(name string, port uint16) string {
	text := "{type: " + name
	for _, o := range t.Options {
		switch {
		case o.Name == "port" && port != 0:
			text += fmt.Sprintf(", port: %d", port)
		case o.Required && o.Name != "host":
			text += ", " + o.Name + ": ..."
		}
	}
	return text + "}"
}
