package check_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/servertest"
)

// rsaCertificate returns a self-signed certificate with an RSA key, for servers of before elliptic curves.
func rsaCertificate(t testing.TB, serial *big.Int) tls.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := loopback()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestOldTLS: where nothing is verified, a server counts as up that speaks only what new clients no longer offer, as it
// does for HAProxy's checks and curl -k. With verification it does not.
func TestOldTLS(t *testing.T) {
	certificate := rsaCertificate(t, big.NewInt(1))
	for name, options := range map[string][]string{
		"RSA key exchange":    {"-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"},
		"CBC with SHA-256":    {"-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256:@SECLEVEL=0"},
		"SHA-1 signatures":    {"-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:@SECLEVEL=0", "-sigalgs", "RSA+SHA1"},
		"TLS 1.0, RSA":        {"-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0"},
		"TLS 1.1, RSA":        {"-tls1_1", "-cipher", "AES256-SHA:@SECLEVEL=0"},
		"P-521 alone":         {"-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-curves", "P-521"},
		"TLS 1.3 and nothing": {"-tls1_3"},
	} {
		t.Run(name, func(t *testing.T) {
			s := servertest.OpenSSL(t, certificate, options...)
			target := check.Target{Protocol: "https", Host: servertest.Host, Port: s.Port, URI: "/"}
			if r := ask(t, check.Options{}, target); r.Code != 200 {
				t.Errorf("https: %d %s", r.Code, r.Body)
			}
			target.Protocol = "tls"
			if r := ask(t, check.Options{}, target); r.Code != 200 {
				t.Errorf("tls: %d %s", r.Code, r.Body)
			}
			if r := ask(t, check.Options{TLSVerify: true}, target); r.Code == 200 {
				t.Errorf("verified: %d %s", r.Code, r.Body)
			}
		})
	}
}

// TestRenegotiation: Apache asks for an optional client certificate below a path, after the request.
func TestRenegotiation(t *testing.T) {
	s := servertest.ApacheTLS(t, rsaCertificate(t, big.NewInt(1)))
	for _, uri := range []string{"/index.html", "/optional"} {
		target := check.Target{Protocol: "https", Host: servertest.Host, Port: s.Port, URI: uri}
		if r := ask(t, check.Options{}, target); r.Code != 200 {
			t.Errorf("%s: %d %s\n%s", uri, r.Code, r.Body, s.Log())
		}
	}
}
