package check

import (
	"context"
	"crypto/tls"
	"strconv"
)

// Step is one part of a check that can fail on its own, as conn-check lists them: "tcp:db:5432", then
// "postgres:db:5432".
type Step struct {
	Name string
	Info string // what conn-check prints after the name when the step begins: "user shop"; may be ""

	run func(x *exchange) Result
}

// StepOf returns a step that runs f, which opens what it needs itself.
func StepOf(name string, f Func) Step {
	return Step{Name: name, run: func(x *exchange) Result { return f(x.ctx, x.t) }}
}

// Attempt is one run of a configured check. Its steps share one connection: a second, silent one counts as an aborted
// client on MySQL, leaves an error in the log of other servers, and fails where one place is left.
type Attempt struct {
	x    *exchange
	last Result
}

// Begin begins a run of c, which ctx bounds (see ConfiguredCheck.Timeout). Of t, the steps use Service, Port and Hops;
// the first two are for scripts. The caller runs the steps in order, any of which may be left out, and ends the attempt.
func (c *ConfiguredCheck) Begin(ctx context.Context, t Target) *Attempt {
	if c.Endpoint.Network != "" {
		t.Host, t.Port = c.Endpoint.Host, c.Endpoint.Port
	}
	x := newExchange(ctx, t)
	x.socket, x.preamble = c.socket, c.preamble
	return &Attempt{x: x}
}

// Run runs one step.
func (a *Attempt) Run(s Step) Result {
	a.last = withDuration(func() Result { return s.run(a.x) })
	return a.last
}

// End closes the connection.
func (a *Attempt) End() { a.x.close(a.last) }

// hostPort returns host and port as conn-check names them: without brackets, also around IPv6.
func hostPort(host string, port uint16) string { return host + ":" + strconv.Itoa(int(port)) }

// stepAt returns a step with the name that conn-check gives it.
func stepAt(protocol, host string, port uint16, run func(x *exchange) Result) Step {
	at := hostPort(host, port)
	return Step{Name: protocol + ":" + at, Info: at, run: run}
}

// tcpStep returns the first step of all checks over TCP: it opens the connection that the next steps use.
func tcpStep(host string, port uint16) Step {
	return stepAt("tcp", host, port, func(x *exchange) Result {
		if r, ok := x.connect(); !ok {
			return r
		}
		return x.healthy("Connected")
	})
}

// tlsStep returns the step of a TLS handshake, between tcpStep and the step of a protocol over TLS.
func tlsStep(host string, port uint16, config *tls.Config) Step {
	return stepAt("tls", host, port, func(x *exchange) Result {
		if r, ok := x.open(config); !ok {
			return r
		}
		return x.healthy("TLS handshake done")
	})
}

// open opens the connection, and TLS over it unless config is nil. It does only what no step has done before. If it
// fails, it returns a Result that says why, and false.
func (x *exchange) open(config *tls.Config) (Result, bool) {
	if r, ok := x.connect(); !ok {
		return r, false
	}
	if _, done := x.conn.(*tls.Conn); config == nil || done {
		return Result{}, true
	}
	return x.handshake(config)
}
