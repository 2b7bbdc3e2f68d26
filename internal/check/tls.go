package check

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"hacheck/internal/certificate"
)

// tlsType is the check of a TLS handshake. It speaks no protocol over TLS.
var tlsType = Type{
	Name:    "tls",
	Aliases: []string{"ssl"},
	Doc:     "a TLS handshake succeeds and the certificate is valid",
	Options: append([]Option{hostOption, portOption(0), sendProxyOption, noVerifyOption}, certificateOptions...),
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		host, port := o.host("host"), o.port("port", 0)
		config := o.tls(d, true).config
		return &ConfiguredCheck{
			Name:     "tls:" + hostPort(host, port),
			Steps:    []Step{tlsStep(host, port, config)}, // conn-check has no step before it here
			Endpoint: Endpoint{"tcp", host, port},
			preamble: o.sendProxy(),
		}, nil
	},
}

// LoadRoots returns the authorities to trust instead of the system's, for Options.TLSRoots. As conn-check's
// --tls-certs-path, path is a file in PEM, or a directory whose files *.pem and *.crt are read. LoadRoots ignores
// broken links and damaged files in a directory, because /etc/ssl/certs may have some. A path without a certificate, and a
// file with a part of one, are errors.
func LoadRoots(path string) (*x509.CertPool, error) {
	files := []string{path}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	if info.IsDir() {
		files = nil
		entries, err := os.ReadDir(path) // not Glob: path may contain characters of a pattern
		if err != nil {
			return nil, fmt.Errorf("load certificates: %w", err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext == ".pem" || ext == ".crt" {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	pool, found := x509.NewCertPool(), false
	for _, file := range files {
		pem, err := os.ReadFile(file)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("load certificates: %w", err)
		}
		if err := certificate.CheckPEM(pem); err != nil && !info.IsDir() {
			return nil, fmt.Errorf("load certificates: read %s: %w", file, err)
		}
		found = pool.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("load certificates: expected certificates in PEM form in %s, got none", path)
	}
	return pool, nil
}

// phaseHandshake is between phaseConnect and phaseWait.
const phaseHandshake = "TLS handshake with"

// tlsConfig returns the TLS configuration of a check. With roots nil it trusts the system's authorities.
//
// Without verification it speaks everything that crypto/tls still can, because nothing is protected and an old service
// that works counts as up: also RSA key exchange, 3DES, RC4 and CBC with SHA-256, TLS 1.0, one renegotiation (Apache and
// IIS ask for an optional client certificate that way) and, by the godebug lines of go.mod, SHA-1 signatures and
// certificates with a negative serial number. It offers no key share of ML-KEM, whose ClientHello needs two segments:
// some old servers and middleboxes read the first one only.
func tlsConfig(verify bool, roots *x509.CertPool) *tls.Config {
	config := &tls.Config{
		InsecureSkipVerify: !verify, //nolint:gosec // what tls_verify and disable_tls_verification are for
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
	}
	if !verify {
		config.MinVersion = tls.VersionTLS10
		config.Renegotiation = tls.RenegotiateOnceAsClient
		config.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
		for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			config.CipherSuites = append(config.CipherSuites, suite.ID)
		}
	}
	return config
}

// nameInHost returns the host name in the value of a Host header, without its port. It returns "" for an address, and
// for what is no name.
func nameInHost(value string) string {
	host := value
	if h, _, err := net.SplitHostPort(value); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || len(host) > 253 {
		return ""
	}
	isOther := func(r rune) bool {
		return !strings.ContainsRune("-._", r) && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}
	if strings.ContainsFunc(host, isOther) {
		return ""
	}
	return strings.TrimSuffix(host, ".")
}

// handshake does a TLS handshake and makes the TLS connection x.conn. If it fails, it returns a Result that says why,
// and false.
func (x *exchange) handshake(config *tls.Config) (Result, bool) {
	x.phase = phaseHandshake
	config = config.Clone()
	config.ServerName = cmp.Or(config.ServerName, x.serverName, x.t.Host)
	conn := tls.Client(x.conn, config)
	// Not HandshakeContext, which starts a goroutine: ask ends the handshake with a deadline when the context ends.
	err := conn.Handshake()
	if err == nil {
		x.conn = conn
		return Result{}, true
	}
	var header tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	var own *clientCertificateError
	switch {
	case x.ctx.Err() != nil:
		return x.networkError(err), false
	case errors.As(err, &own):
		return result(500, ReasonConfig, err, "%s", excerpt(own.Error(), 300)), false
	case errors.As(err, &header):
		return result(503, ReasonProtocol, err, "%s does not speak TLS", x.addr()), false
	case errors.As(err, &certificate):
		return x.serviceError(503, "The certificate of %s was not accepted: %s", x.addr(), excerpt(certificate.Err.Error(), 300)), false
	case errors.As(err, &alert) && alert.Op == "remote error", !isNetwork(err):
		return x.protocolError("The TLS handshake with %s failed: %s", x.addr(), causeText(err)), false
	}
	return x.networkError(err), false
}
