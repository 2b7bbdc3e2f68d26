package check

import "context"

// checkTCP is the tcp check: it is healthy when a connection opens. Its text, "Connected in 0.00s", is that of Yelp's
// hacheck.
func checkTCP(ctx context.Context, t Target) Result {
	return ask(ctx, t, func(x *exchange) Result { return x.healthy("Connected") })
}

// tcpType is the configured check of the same name.
var tcpType = Type{
	Name:    "tcp",
	Doc:     "a TCP connection opens",
	Options: []Option{hostOption, portOption(0), sendProxyOption},
	build: func(o *optionReader, _ Defaults) (*ConfiguredCheck, error) {
		host, port := o.host("host"), o.port("port", 0)
		return &ConfiguredCheck{
			Name:     "tcp:" + hostPort(host, port),
			Steps:    []Step{tcpStep(host, port)},
			Endpoint: Endpoint{"tcp", host, port},
			preamble: o.sendProxy(),
		}, nil
	},
}
