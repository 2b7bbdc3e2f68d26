package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
)

// phaseHandshake is between phaseConnect and phaseWait.
const phaseHandshake = "TLS handshake with"

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

// askTLS is ask over TLS. After a success it sends a close_notify, without which services log a truncated connection.
func askTLS(ctx context.Context, t Target, config *tls.Config, talk func(x *exchange) Result) Result {
	return ask(ctx, t, func(x *exchange) Result {
		conn, r, ok := x.handshake(config)
		if !ok {
			return r
		}
		if r = talk(x); r.Reason == ReasonAnswered {
			_ = conn.CloseWrite()
		}
		return r
	})
}

// tlsConfig returns the TLS configuration of a check. With roots nil it trusts the system's authorities.
func tlsConfig(verify bool, roots *x509.CertPool) *tls.Config {
	config := &tls.Config{
		InsecureSkipVerify: !verify, //nolint:gosec // what tls_verify and disable_tls_verification are for
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
	}
	if !verify {
		config.MinVersion = tls.VersionTLS10 // old services count as up too, and without verification the version protects nothing
	}
	return config
}

// handshake does a TLS handshake and makes the TLS connection x.conn. If it fails, it returns a Result that says why,
// and false.
func (x *exchange) handshake(config *tls.Config) (*tls.Conn, Result, bool) {
	x.phase = phaseHandshake
	config = config.Clone()
	config.ServerName = x.t.Host
	conn := tls.Client(x.conn, config)
	// Not HandshakeContext, which starts a goroutine: ask ends the handshake with a deadline when the context ends.
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
		return nil, x.networkError(err), false
	case errors.As(err, &header):
		return nil, x.protocolError("%s does not speak TLS", x.addr()), false
	case errors.As(err, &certificate):
		return nil, x.serviceError(503, "The certificate of %s was not accepted: %s", x.addr(), excerpt(certificate.Err.Error(), 300)), false
	case errors.As(err, &alert) && alert.Op == "remote error", !isNetwork(err):
		return nil, x.protocolError("The TLS handshake with %s failed: %s", x.addr(), causeText(err)), false
	}
	return nil, x.networkError(err), false
}
