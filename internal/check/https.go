package check

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// phaseHandshake is https's own phase, between connecting and waiting.
const phaseHandshake = "TLS handshake with"

// newHTTPS returns the https check: http's over TLS. Unless Options.TLSVerify is set any certificate is
// accepted, as by the originals: a check asks whether the service works, from the machine it runs on and
// by an address that no certificate names. A target that is a name is told to the service (SNI), an
// address is not.
func newHTTPS(o Options) Func {
	c := newHTTPClient(o)
	config := o.tlsConfig(o.TLSVerify)
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result {
			conn, r, ok := x.handshake(config)
			if !ok {
				return r
			}
			r = c.get(x)
			if r.Reason == ReasonOK {
				// A goodbye, or the service logs a truncated connection at every check. Only to a service
				// that is well: it must not be waited for.
				_ = conn.CloseWrite()
			}
			return r
		})
	}
}

// tlsConfig is how TLS is spoken with a service whose certificate is looked at or not.
func (o Options) tlsConfig(verify bool) *tls.Config {
	config := &tls.Config{
		InsecureSkipVerify: !verify, //nolint:gosec // what tls_verify is for
		RootCAs:            o.TLSRoots,
		MinVersion:         tls.VersionTLS12,
	}
	if !verify {
		config.MinVersion = tls.VersionTLS10 // nothing here depends on its strength, and old services are up too
	}
	return config
}

// handshake puts TLS over the connection of x. If that fails it says why and returns false.
func (x *exchange) handshake(config *tls.Config) (*tls.Conn, Result, bool) {
	x.phase = phaseHandshake
	config = config.Clone()
	config.ServerName = x.t.Host
	conn := tls.Client(x.conn, config)
	// Not HandshakeContext: the deadline that ask sets when the context ends covers the handshake as well.
	err := conn.Handshake()
	if err == nil {
		x.conn = conn
		return conn, Result{}, true
	}
	var header tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case x.ctx.Err() != nil:
		return nil, x.fail(err), false
	case errors.As(err, &header):
		return nil, x.protocol("%s does not speak TLS", x.addr()), false
	case errors.As(err, &certificate):
		return nil, x.failed(503, "The certificate of %s was not accepted: %s", x.addr(), oneLine(certificate.Err.Error(), 300)), false
	case errors.As(err, &alert) && alert.Op == "remote error", !isNetwork(err):
		return nil, x.protocol("The TLS handshake with %s failed: %s", x.addr(), errno(err)), false
	}
	return nil, x.fail(err), false
}
