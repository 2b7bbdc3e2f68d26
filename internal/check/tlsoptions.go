package check

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// tlsMode says whether a check speaks TLS.
type tlsMode uint8

// The values of the option use_tls.
const (
	tlsOff    tlsMode = iota
	tlsOn             // from the first byte on, or refused
	tlsPrefer         // if the server offers it, as the clients of PostgreSQL and MySQL do
	tlsStart          // after a request in the protocol, or the check fails
)

// tlsSettings are the options of TLS of a check.
type tlsSettings struct {
	mode   tlsMode
	config *tls.Config // never nil, also with tlsOff: SMTP may upgrade
	verify bool        // the certificate is verified
}

// tlsOptions returns the options of TLS of a type that may speak TLS, with the default of use_tls: "true", "false" or
// "prefer". Only a type with the default "prefer" takes that value.
func tlsOptions(useTLS string) []Option {
	mode := Option{Name: "use_tls", Want: "true or false", Default: useTLS, Doc: "speak TLS from the first byte on; the login runs over it"}
	if useTLS == "prefer" {
		mode.Want, mode.Doc = "true, false or prefer", "speak TLS; prefer: only if the server offers it"
	}
	noVerify := noVerifyOption
	noVerify.Default = "true, false with tls_verify: true"
	return append([]Option{mode, noVerify}, certificateOptions...)
}

// wantStartTLS are the values of use_tls of a type that can begin without TLS and must then upgrade.
const wantStartTLS = "true, false or starttls"

// startTLSOptions returns the options of TLS of such a type. It speaks no TLS by default.
func startTLSOptions() []Option {
	options := tlsOptions("false")
	options[0].Want, options[0].Doc = wantStartTLS, "speak TLS from the first byte on; starttls: after the request StartTLS, which must not be refused"
	return options
}

// certificateOptions are the options of all types over TLS.
var certificateOptions = []Option{
	{Name: "ca_file", Want: "a file or directory with certificates in PEM form", Doc: "the authorities that are trusted instead of the system's; with it certificates are verified"},
	{Name: "cert_file", Want: "a file with a certificate in PEM form", Doc: "the client's certificate; read again for each check"},
	{Name: "key_file", Want: "a file with a private key in PEM form", Doc: "its key; required with cert_file"},
	{Name: "server_name", Want: "a host name or an IP address", Doc: "the name that is sent to the server and that its certificate must have, instead of the host"},
}

// useTLS reads the option use_tls.
func (o *optionReader) useTLS() tlsMode {
	def := o.option("use_tls").Default
	v := o.spec.Options["use_tls"]
	if v == nil {
		v = def
	}
	on, ok := truth(v)
	switch {
	case ok && on:
		return tlsOn
	case ok:
		return tlsOff
	case v == "prefer" && def == "prefer":
		return tlsPrefer
	case v == "starttls" && o.option("use_tls").Want == wantStartTLS:
		return tlsStart
	}
	o.addValueError("use_tls", v)
	return tlsOff
}

// tls reads the options of TLS that the type has. verify is the default where the options say nothing about it.
func (o *optionReader) tls(d Defaults, verify bool) tlsSettings {
	s := tlsSettings{}
	if o.hasOption("use_tls") {
		s.mode = o.useTLS()
	}
	if !o.hasOption(noVerifyOption.Name) {
		s.config = tlsConfig(verify, d.TLSRoots)
		return s
	}
	roots := d.TLSRoots
	if o.hasOption("ca_file") {
		if file := o.text("ca_file", ""); file != "" {
			if o.roots == nil {
				var err error
				if o.roots, err = LoadRoots(file); err != nil {
					o.addError("ca_file", err.Error())
				}
			}
			roots, verify = o.roots, true
		}
	}
	if o.isSet(noVerifyOption.Name) {
		verify = !o.boolean(noVerifyOption.Name, false)
	}
	s.verify, s.config = verify, tlsConfig(verify, roots)
	if o.hasOption("server_name") {
		s.config.ServerName = o.host("server_name")
		o.clientCertificate(s.config)
	}
	return s
}

// clientCertificate sets the client's certificate. The files are read again for each handshake, because certificates are
// renewed while the daemon runs.
func (o *optionReader) clientCertificate(config *tls.Config) {
	cert, key := o.text("cert_file", ""), o.text("key_file", "")
	switch {
	case cert == "" && key == "":
		return
	case cert == "" || key == "":
		o.addError("cert_file", "cert_file and key_file need each other")
		return
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, &clientCertificateError{fmt.Errorf("the client's certificate cannot be used: %w", err)}
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		o.addError("cert_file", err.Error())
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
}

// clientCertificateError is the error of a handshake that failed on this side, for lack of a certificate.
type clientCertificateError struct{ error }

func (e *clientCertificateError) Unwrap() error { return errors.Unwrap(e.error) }
