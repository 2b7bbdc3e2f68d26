package check

import "context"

// newHTTPS returns the https check: the http check over TLS. It accepts any certificate unless Options.TLSVerify is
// set, as the originals do: a check asks from the service's own machine, by an address that no certificate names. The
// name that it sends, and that a certificate is verified against, is that of the Host header: a server that answers by
// name refuses a handshake without one.
func newHTTPS(o Options) Func {
	c := newHTTPClient(o)
	config := tlsConfig(o.TLSVerify, o.TLSRoots)
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result {
			x.serverName = nameInHost(hostHeader(t.Header))
			if r, ok := x.handshake(config); !ok {
				return r
			}
			return c.get(x)
		})
	}
}
