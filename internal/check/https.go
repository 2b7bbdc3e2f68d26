package check

import "context"

// newHTTPS returns the https check: the http check over TLS. It accepts any certificate unless Options.TLSVerify is
// set, as the originals do: a check asks from the service's own machine, by an address that no certificate names. It
// sends the host as SNI if that is a name.
func newHTTPS(o Options) Func {
	c := newHTTPClient(o)
	config := tlsConfig(o.TLSVerify, o.TLSRoots)
	return func(ctx context.Context, t Target) Result {
		return askTLS(ctx, t, config, c.get)
	}
}
