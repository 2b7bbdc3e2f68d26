package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// maxParallelChecks is how many checks of one service run at once.
const maxParallelChecks = 64

// NamedResult is what one of a service's checks found.
type NamedResult struct {
	Name   string // ConfiguredCheck.Name
	Result Result
}

// newChecks returns the check of the protocol "checks": it runs all checks that are configured for a service.
func newChecks(o Options) Func {
	return func(ctx context.Context, t Target) Result {
		return withDuration(func() Result {
			checks := o.Services[t.Service]
			if len(checks) == 0 {
				return notConfigured(t.Service, "No checks are", "{type: tcp, port: 8080}")
			}
			return combine(runAll(ctx, checks, t))
		})
	}
}

// runAll runs checks in parallel, at most maxParallelChecks at once, and returns their results in the order of the
// checks. Each has its own timeout, and ctx bounds them all.
func runAll(ctx context.Context, checks []*ConfiguredCheck, t Target) []NamedResult {
	results := make([]NamedResult, len(checks))
	slots := make(chan struct{}, maxParallelChecks)
	var all sync.WaitGroup
	for i, c := range checks {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			results[i] = NamedResult{c.Name, c.Check(ctx, t)}
		})
	}
	all.Wait()
	return results
}

// combine makes one result of a service's results: 200 "OK" if all are 200, else 503 and a line "<name>: <why>" for
// each that is not. Its reason is the first one that tells something about the service. It is ReasonBusy or
// ReasonCancelled only if all failures are.
func combine(results []NamedResult) Result {
	var body strings.Builder
	var errs []error
	r := Result{Code: 200, Body: []byte("OK"), Parts: results}
	decided := false
	for i, part := range results {
		if part.Result.Code == 200 {
			continue
		}
		r.Code = 503
		reason := part.Result.FailureReason()
		if ours := reason == ReasonBusy || reason == ReasonCancelled; r.Reason == ReasonAnswered || !decided && !ours {
			r.Reason, decided = reason, !ours
		}
		err := part.Result.Err
		if err == nil {
			err = fmt.Errorf("answered %d", part.Result.Code)
		}
		errs = append(errs, fmt.Errorf("%s: %w", part.Name, err))
		line := excerpt(part.Name, 300) + ": " + excerpt(part.Result.Body, maxOutput)
		if body.Len()+len(line) > MaxBody-100 {
			fmt.Fprintf(&body, "\nnot shown: what %d more checks found", len(results)-i)
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

// notConfigured returns the result for a service without a check. It shows the line to add, as YAML allows it.
func notConfigured(service, what, example string) Result {
	service = excerpt(service, 200)
	err := fmt.Errorf("no check of this kind under services: %s", service)
	return result(500, ReasonConfig, err, "%s configured for %s; add to the configuration file: services: {%s: {checks: [%s]}}", what, service, service, example)
}

// forwardedFields are the fields of a Target that are passed to the checks of a service.
type forwardedFields struct {
	ports []uint16 // the ports that are passed to scripts; any other becomes 0
	hops  bool     // one of the checks forwards Target.Hops
}

// fieldsForChecks returns the fields of a Target that are passed to checks. The port is passed to scripts only, as
// HACHECK_PORT, and only if the configuration names it: as the port of another check of the service, or in the option
// ports. Otherwise a client could start one run of a script for each of 65,536 ports.
func fieldsForChecks(checks []*ConfiguredCheck) (f forwardedFields) {
	script := false
	for _, c := range checks {
		f.ports = append(f.ports, c.ports...)
		if c.Endpoint.Port != 0 {
			f.ports = append(f.ports, c.Endpoint.Port)
		}
		script = script || c.Type == scriptType.Name
		f.hops = f.hops || forwardsHops(c.Type)
	}
	if !script {
		f.ports = nil
	}
	return f
}

// forwardsHops reports whether the checks of a type send HopsHeader.
func forwardsHops(typ string) bool {
	return typ == httpType.Name || typ == grpcType.Name || typ == haproxyType.Name
}

// canonicalChecks returns Protocol.Canonical of the protocol "checks". The configuration names the hosts to ask, so the
// host of the request does not matter; its port and hops matter if they are forwarded.
func canonicalChecks(o Options) func(Target) Target {
	services := make(map[string]forwardedFields, len(o.Services))
	for name, checks := range o.Services {
		services[name] = fieldsForChecks(checks)
	}
	return func(t Target) Target {
		f := services[t.Service]
		t.Host = ""
		if !slices.Contains(f.ports, t.Port) {
			t.Port = 0
		}
		if !f.hops {
			t.Hops = 0
		}
		return t
	}
}
