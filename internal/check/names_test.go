package check_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// byName returns an nginx that knows www.example alone: it refuses a handshake with another name, or without one.
func byName(t *testing.T, a *authority) *servertest.Server {
	t.Helper()
	named := loopback()
	named.DNSNames, named.IPAddresses = []string{"www.example"}, nil
	return nginxTLS(t, issue(t, named, a), `server_name www.example;
		location / { return 200 "OK\n"; }
	}
	server {
		listen 127.0.0.1:PORT ssl default_server;
		ssl_reject_handshake on;
`)
}

// TestServerNames: the name of a handshake is that of the Host header, the URL or server_name.
func TestServerNames(t *testing.T) {
	a := newAuthority(t)
	s := byName(t, a)
	verify := check.Options{TLSVerify: true, TLSRoots: a.pool()}
	for host, healthy := range map[string]bool{
		"www.example": true, "www.example:8443": true, "www.example.": true, "other.example": false, "127.0.0.1": false, "": false, "a b": false,
	} {
		target := check.Target{Protocol: "https", Host: servertest.Host, Port: s.Port, URI: "/", Header: []check.Field{{Name: "Host", Value: host}}}
		for _, o := range []check.Options{{}, verify} {
			if r := ask(t, o, target); (r.Code == 200) != healthy {
				t.Errorf("Host %q, verified %v: %d %s", host, o.TLSVerify, r.Code, r.Body)
			}
		}
	}
	url := "https://" + s.Addr() + "/"
	trusting := check.Defaults{Options: check.Options{TLSRoots: a.pool()}}
	for name, options := range map[string]map[string]any{
		"header":      {"headers": map[string]any{"Host": "www.example"}},
		"server_name": {"server_name": "www.example"},
	} {
		if r := httpCheck(t, trusting, url, options).Check(t.Context(), check.Target{}); r.Code != 200 {
			t.Errorf("http with %s: %d %s", name, r.Code, r.Body)
		}
	}
	if r := httpCheck(t, trusting, url, nil).Check(t.Context(), check.Target{}); r.Code == 200 {
		t.Error("http without a name is healthy")
	}
	for host, code := range map[string]int{"www.example": 200, "other.example": 503, "": 503} {
		target := check.Target{Protocol: "tls", Host: servertest.Host, Port: s.Port, Header: []check.Field{{Name: "Host", Value: host}}}
		for _, o := range []check.Options{{}, verify} {
			if r := ask(t, o, target); r.Code != code {
				t.Errorf("tls, Host %q, verified %v: %d %s", host, o.TLSVerify, r.Code, r.Body)
			}
		}
	}
	named := build(t, trusting, "tls", map[string]any{"host": servertest.Host, "port": int(s.Port), "server_name": "www.example"})
	if r := named.Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("tls: %d %s", r.Code, r.Body)
	}
}

// TestClientCertificate: a server that requires a client certificate gets the one of the files, also after a renewal.
func TestClientCertificate(t *testing.T) {
	a := newAuthority(t)
	s := checktest.Serve(t, func(conn net.Conn) {
		healthyHTTP(tls.Server(conn, &tls.Config{
			Certificates: []tls.Certificate{issue(t, loopback(), a)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
		}))
	})
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(certificate tls.Certificate) {
		key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{
			"cert.pem": {Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
			"ca.pem": {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		} {
			if err := os.WriteFile(file(name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	client := func(a *authority) tls.Certificate {
		return issue(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a)
	}
	write(client(nil))
	options := map[string]any{"cert_file": file("cert.pem"), "key_file": file("key.pem"), "ca_file": file("ca.pem")}
	c := httpCheck(t, check.Defaults{}, "https://"+s.Addr()+"/", options)
	if r := c.Check(t.Context(), check.Target{}); r.Code == 200 {
		t.Error("a certificate of another authority is healthy")
	}
	write(client(a))
	if r := c.Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("after a renewal: %d %s", r.Code, r.Body)
	}
	if err := os.Remove(file("key.pem")); err != nil {
		t.Fatal(err)
	}
	if r := c.Check(t.Context(), check.Target{}); r.Reason != check.ReasonConfig || !strings.Contains(string(r.Body), "key.pem") {
		t.Errorf("without the key: %d %s %s", r.Code, r.Reason, r.Body)
	}
	wantOptionErrors(t, "tls", map[string][]any{
		"cert_file: cert_file and key_file need each other": {"host", "h", "port", 1, "cert_file", file("cert.pem")},
		"ca_file: load certificates":                        {"host", "h", "port", 1, "ca_file", file("gone.pem")},
	})
}

// TestIdentityEncoding: "Transfer-Encoding: identity" is no encoding; HAProxy and curl take it.
func TestIdentityEncoding(t *testing.T) {
	for head, code := range map[string]int{
		"Transfer-Encoding: identity\r\nContent-Length: 3\r\n":                                                   200,
		"transfer-encoding:Identity \r\nContent-Length: 3\r\n":                                                   200,
		"Content-Length: 3\r\nTransfer-Encoding: identity\r\n":                                                   200,
		"Transfer-Encoding: identity\nContent-Length: 3\n":                                                       200,
		"Transfer-Encoding: gzip\r\nContent-Length: 3\r\n":                                                       503,
		"X-Long: " + strings.Repeat("x", 9000) + "\r\nContent-Length: 3\r\n":                                     200,
		"X-Long: " + strings.Repeat("x", 4088) + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n": 503,
	} {
		s := checktest.Serve(t, func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+head+"\r\nOK\n")
			}
		})
		target := check.Target{Protocol: "http", Host: s.Host, Port: s.Port, URI: "/"}
		if r := ask(t, check.Options{}, target); r.Code != code || code == 200 && string(r.Body) != "OK\n" {
			t.Errorf("%.60q: %d %s", head, r.Code, r.Body)
		}
	}
}
