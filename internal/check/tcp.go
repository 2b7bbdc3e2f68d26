package check

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// checkTCP is healthy when a connection opens, in the words of Yelp's hacheck: "Connected in 0.00s".
// What the service then says or does with it is not looked at.
func checkTCP(ctx context.Context, t Target) Result {
	return ask(ctx, t, func(x *exchange) Result {
		return Result{Code: 200, Body: fmt.Appendf(nil, "Connected in %.2fs", time.Since(x.start).Seconds())}
	})
}

// tcpType is the configured check of the same name.
var tcpType = Type{
	Name:    "tcp",
	Doc:     "a TCP connection opens",
	Options: []Option{hostOption, portOption(0)},
	build: func(o *values, _ Defaults) (*Configured, error) {
		host, port := o.host("host"), o.port("port", 0)
		return &Configured{
			Name:     "tcp:" + hostPort(host, port),
			Steps:    []Step{tcpStep(host, port)},
			Endpoint: Endpoint{"tcp", host, port},
		}, nil
	},
}

// hostOption and portOption are what nearly all types have.
var hostOption = Option{Name: "host", Want: "an IP address or a host name", Required: true, Doc: "where the service is"}

// portOption describes the option port; def 0 makes it a required one.
func portOption(def uint16) Option { return portNamed("port", def, "its port") }

func portNamed(name string, def uint16, doc string) Option {
	o := Option{Name: name, Want: "a port from 1 to 65535", Required: def == 0, Doc: doc}
	if def != 0 {
		o.Default = strconv.Itoa(int(def))
	}
	return o
}

// hostPort is how conn-check names a place: without brackets, also around IPv6.
func hostPort(host string, port uint16) string { return host + ":" + strconv.Itoa(int(port)) }

// tcpStep is the first step of everything that speaks over TCP.
func tcpStep(host string, port uint16) Step {
	return Step{
		Name: "tcp:" + hostPort(host, port),
		Info: hostPort(host, port),
		Run: func(ctx context.Context, t Target) Result {
			t.Protocol, t.Host, t.Port = "tcp", host, port
			return checkTCP(ctx, t)
		},
	}
}
