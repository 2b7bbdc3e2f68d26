package check

import (
	"context"
	"crypto/tls"
	"strconv"
)

// Step is one part of a check that can fail on its own, as conn-check lists them: "tcp:db:5432", then
// "postgres:db:5432". A step closes what it opens.
type Step struct {
	Name string
	Info string // what conn-check prints after the name when the step begins: "user shop"; may be ""
	Run  Func   // uses only Service, Port and Hops of its Target; the first two are for scripts
}

// hostPort returns host and port as conn-check names them: without brackets, also around IPv6.
func hostPort(host string, port uint16) string { return host + ":" + strconv.Itoa(int(port)) }

// stepAt returns a step that runs a check at host and port.
func stepAt(protocol, host string, port uint16, check Func) Step {
	at := hostPort(host, port)
	return Step{Name: protocol + ":" + at, Info: at, Run: func(ctx context.Context, t Target) Result {
		t.Host, t.Port = host, port
		return check(ctx, t)
	}}
}

// tcpStep returns the first step of all checks over TCP.
func tcpStep(host string, port uint16) Step { return stepAt("tcp", host, port, checkTCP) }

// tlsStep returns the step of a TLS handshake, between tcpStep and the step of a protocol over TLS.
func tlsStep(host string, port uint16, config *tls.Config) Step {
	return stepAt("tls", host, port, func(ctx context.Context, t Target) Result {
		return askTLS(ctx, t, config, func(x *exchange) Result { return x.healthy("TLS handshake done") })
	})
}
