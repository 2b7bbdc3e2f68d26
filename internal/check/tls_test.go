package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// stepNames returns the names of a check's steps.
func stepNames(c *check.ConfiguredCheck) (names []string) {
	for _, s := range c.Steps {
		names = append(names, s.Name)
	}
	return names
}

// tlsServer starts a server that does handshakes with a certificate.
func tlsServer(t testing.TB, certificate tls.Certificate) *checktest.Server {
	t.Helper()
	return checktest.Serve(t, func(conn net.Conn) {
		_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
	})
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	good, selfSigned := tlsServer(t, issue(t, loopback(), a)), tlsServer(t, issue(t, loopback(), nil))
	plain := checktest.Serve(t, func(conn net.Conn) { _, _ = conn.Write([]byte("220 mail.example\r\n")) })
	trusting := check.Defaults{Options: check.Options{TLSRoots: a.pool()}}
	for name, c := range map[string]struct {
		server   *checktest.Server
		defaults check.Defaults
		typ      string
		disable  any
		code     int
		want     string
	}{
		"trusted":           {good, trusting, "tls", nil, 200, "TLS handshake done in 0."},
		"alias":             {good, trusting, "ssl", false, 200, "TLS handshake done in 0."},
		"not the system's":  {good, check.Defaults{}, "tls", nil, 503, "was not accepted: x509: certificate signed by unknown authority"},
		"self-signed":       {selfSigned, trusting, "tls", nil, 503, "was not accepted: x509: certificate signed by unknown authority"},
		"not verified":      {selfSigned, trusting, "tls", true, 200, "TLS handshake done in 0."},
		"not TLS":           {plain, trusting, "tls", true, 503, "does not speak TLS"},
		"tls_verify is not": {selfSigned, check.Defaults{Options: check.Options{TLSVerify: false}}, "tls", nil, 503, "was not accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			options := map[string]any{"host": c.server.Host, "port": int(c.server.Port)}
			if c.disable != nil {
				options["disable_tls_verification"] = c.disable
			}
			configured := build(t, c.defaults, c.typ, options)
			r := configured.Check(t.Context(), check.Target{})
			if r.Code != c.code || !strings.Contains(string(r.Body), c.want) {
				t.Errorf("%d %s, want %d %s", r.Code, r.Body, c.code, c.want)
			}
			at := c.server.Addr()
			if diff := cmp.Diff([]string{"tls:" + at}, stepNames(configured)); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if configured.Type != "tls" || configured.Name != "tls:"+at || configured.Endpoint != (check.Endpoint{Network: "tcp", Host: c.server.Host, Port: c.server.Port}) {
				t.Errorf("%+v", configured)
			}
		})
	}
}

func TestTLSRefused(t *testing.T) {
	c := build(t, check.Defaults{}, "tls", map[string]any{"host": "127.0.0.1", "port": int(checktest.ClosedPort(t))})
	if r := c.Check(t.Context(), check.Target{}); r.Reason != check.ReasonRefused {
		t.Errorf("%s %s", r.Reason, r.Body)
	}
}

func TestTLSNginx(t *testing.T) {
	a := newAuthority(t)
	certificate := issue(t, loopback(), a)
	s := nginxTLS(t, certificate, `location / { return 200 "OK\n"; }`)
	options := map[string]any{"host": "localhost", "port": int(s.Port)}
	c := build(t, check.Defaults{Options: check.Options{TLSRoots: a.pool()}}, "tls", options)
	if r := c.Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}

// nginxTLS starts an nginx with a certificate.
func nginxTLS(t testing.TB, certificate tls.Certificate, server string) *servertest.Server {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: certificate.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return servertest.Nginx(t, "ssl", fmt.Sprintf("ssl_certificate %[1]s/cert.pem;\nssl_certificate_key %[1]s/key.pem;\n", dir)+server)
}

func TestLoadRoots(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	write := func(file string, authorities ...*authority) {
		var text []byte
		for _, a := range authorities {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	write(filepath.Join(dir, "a.pem"), a)
	write(filepath.Join(dir, "b.txt"), b)
	if err := os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "dead.pem")); err != nil {
		t.Fatal(err)
	}
	both := filepath.Join(dir, "b.txt")
	server := tlsServer(t, issue(t, loopback(), a))
	other := tlsServer(t, issue(t, loopback(), b))
	for path, want := range map[string]bool{dir: false, both: true} {
		pool, err := check.LoadRoots(path)
		if err != nil {
			t.Fatal(err)
		}
		for s, healthy := range map[*checktest.Server]bool{server: !want, other: want} {
			c := build(t, check.Defaults{Options: check.Options{TLSRoots: pool}}, "tls", map[string]any{"host": s.Host, "port": int(s.Port)})
			if r := c.Check(t.Context(), check.Target{}); (r.Code == 200) != healthy {
				t.Errorf("%s: %d %s", path, r.Code, r.Body)
			}
		}
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := check.LoadRoots(empty); err == nil || !strings.Contains(err.Error(), "in PEM form in "+empty) {
		t.Errorf("an empty directory: %v", err)
	}
	whole, err := os.ReadFile(both)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "part.pem")
	if err := os.WriteFile(part, slices.Concat(whole, whole[:len(whole)/2]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := check.LoadRoots(part); err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("a file of which the last certificate is cut off: %v", err)
	}
	if _, err := check.LoadRoots(dir); err != nil {
		t.Errorf("a directory with such a file: %v", err)
	}
	if _, err := check.LoadRoots(filepath.Join(dir, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
