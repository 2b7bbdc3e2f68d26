package servertest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// RedisTLS starts a Redis server that speaks only TLS and requires no client certificate.
func RedisTLS(t testing.TB, certificate tls.Certificate, options ...string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "redis-server", Package: "redis-server",
		Args: func(port uint16, dir string) ([]string, error) {
			cert, key, err := writeCertificate(dir, certificate)
			args := []string{
				"--port", "0", "--tls-port", fmt.Sprint(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert,
				"--tls-auth-clients", "no", "--bind", Host, "--dir", dir, "--save", "", "--daemonize", "no",
			}
			return append(args, options...), err
		},
	})
}

// writeCertificate writes a certificate and its key to files. Servers refuse a key that others may read, so the key
// belongs to the unprivileged user when the tests run as root.
func writeCertificate(dir string, c tls.Certificate) (cert, key string, err error) {
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(cert, chain, 0o644); err != nil {
		return "", "", err
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return "", "", err
	}
	as, err := credential(unprivileged)
	if err != nil || as == nil {
		return cert, key, err
	}
	return cert, key, os.Chown(key, int(as.Uid), int(as.Gid))
}
