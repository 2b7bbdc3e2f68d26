package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// noVerifyOption is an option of all types over TLS.
var noVerifyOption = Option{Name: "disable_tls_verification", Want: "true or false", Default: "false", Doc: "accept any certificate"}

// tlsType is the check of a TLS handshake. It speaks no protocol over TLS.
var tlsType = Type{
	Name:    "tls",
	Aliases: []string{"ssl"},
	Doc:     "a TLS handshake succeeds and the certificate is valid",
	Options: []Option{hostOption, portOption(0), noVerifyOption},
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		host, port := o.host("host"), o.port("port", 0)
		config := tlsConfig(!o.boolean(noVerifyOption.Name, false), d.TLSRoots)
		return &ConfiguredCheck{
			Name:     "tls:" + hostPort(host, port),
			Steps:    []Step{tlsStep(host, port, config)}, // conn-check has no step before it here
			Endpoint: Endpoint{"tcp", host, port},
		}, nil
	},
}

// tlsStep returns the step of a TLS handshake, between tcpStep and the step of a protocol over TLS.
func tlsStep(host string, port uint16, config *tls.Config) Step {
	return stepAt("tls", host, port, func(ctx context.Context, t Target) Result {
		return askTLS(ctx, t, config, func(x *exchange) Result { return x.healthy("TLS handshake done") })
	})
}

// LoadRoots returns the authorities to trust instead of the system's, for Options.TLSRoots. As conn-check's
// --tls-certs-path, path is a file in PEM, or a directory whose files *.pem and *.crt are read. LoadRoots ignores
// broken links, because /etc/ssl/certs may have some. A path without a certificate is an error.
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
		found = pool.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("load certificates: expected certificates in PEM form in %s, got none", path)
	}
	return pool, nil
}
