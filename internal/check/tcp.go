package check

import (
	"context"
	"strconv"
)

// checkTCP is the tcp check: it is healthy when a connection opens. Its text, "Connected in 0.00s", is that of Yelp's
// hacheck.
func checkTCP(ctx context.Context, t Target) Result {
	return ask(ctx, t, func(x *exchange) Result { return x.healthy("Connected") })
}

// tcpType is the configured check of the same name.
var tcpType = Type{
	Name:    "tcp",
	Doc:     "a TCP connection opens",
	Options: []Option{hostOption, portOption(0)},
	build: func(o *optionReader, _ Defaults) (*ConfiguredCheck, error) {
		host, port := o.host("host"), o.port("port", 0)
		return &ConfiguredCheck{
			Name:     "tcp:" + hostPort(host, port),
			Steps:    []Step{tcpStep(host, port)},
			Endpoint: Endpoint{"tcp", host, port},
		}, nil
	},
}

// hostOption is the option host of nearly all types.
var hostOption = Option{Name: "host", Want: "an IP address or a host name", Required: true, Doc: "where the service is"}

// portOption returns the option port of nearly all types. With def 0 it is required.
func portOption(def uint16) Option { return portNamed("port", def, "its port") }

func portNamed(name string, def uint16, doc string) Option {
	o := Option{Name: name, Want: "a port from 1 to 65535", Required: def == 0, Doc: doc}
	if def != 0 {
		o.Default = strconv.Itoa(int(def))
	}
	return o
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
