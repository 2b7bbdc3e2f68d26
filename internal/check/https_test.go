package check_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

func TestHTTPSCertificates(t *testing.T) {
	a := newAuthority(t)
	expired := loopback()
	expired.NotBefore, expired.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	for name, c := range map[string]struct {
		certificate tls.Certificate
		host        string
		wrong       string // part of the sentence when certificates are verified; "" is none
	}{
		"good":          {issue(t, loopback(), a), "127.0.0.1", ""},
		"good for name": {issue(t, loopback(), a), "localhost", ""},
		"self-signed":   {issue(t, loopback(), nil), "127.0.0.1", "x509: certificate signed by unknown authority"},
		"expired":       {issue(t, expired, a), "127.0.0.1", "x509: certificate has expired or is not yet valid"},
		"wrong name":    {issue(t, &x509.Certificate{DNSNames: []string{"web.example"}}, a), "localhost", "x509: certificate is valid for web.example, not localhost"},
		"no address":    {issue(t, &x509.Certificate{DNSNames: []string{"localhost"}}, a), "127.0.0.1", "x509: cannot validate certificate for 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, func(conn net.Conn) {
				healthyHTTP(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c.certificate}}))
			})
			target := check.Target{Protocol: "https", Service: "web", Host: c.host, Port: s.Port, URI: "/"}
			if r := ask(t, check.Options{}, target); r.Code != 200 || string(r.Body) != "OK\n" {
				t.Errorf("not verified: %d %s", r.Code, r.Body)
			}
			r := ask(t, check.Options{TLSVerify: true, TLSRoots: a.pool()}, target)
			switch {
			case c.wrong == "" && r.Code != 200:
				t.Errorf("verified: %d %s", r.Code, r.Body)
			case c.wrong != "" && (r.Code != 503 || r.Reason != check.ReasonFailed || !strings.Contains(string(r.Body), c.wrong)):
				t.Errorf("verified: %d %s %s, want %s", r.Code, r.Reason, r.Body, c.wrong)
			}
		})
	}
}

// A name is sent as SNI, an address is not (RFC 6066).
func TestHTTPSServerName(t *testing.T) {
	a := newAuthority(t)
	certificate := issue(t, loopback(), a)
	for host, want := range map[string]string{"127.0.0.1": "", "::1": "", "localhost": "localhost"} {
		names := make(chan string, 1)
		listen := "127.0.0.1"
		if host == "::1" {
			listen = host
		}
		s := checktest.ServeAt(t, listen, func(conn net.Conn) {
			healthyHTTP(tls.Server(conn, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				names <- hello.ServerName
				return &certificate, nil
			}}))
		})
		r := ask(t, check.Options{}, check.Target{Protocol: "https", Host: host, Port: s.Port, URI: "/"})
		if r.Code != 200 {
			t.Fatalf("%s: %d %s", host, r.Code, r.Body)
		}
		if got := <-names; got != want {
			t.Errorf("%s: server name %q, want %q", host, got, want)
		}
	}
}

// Without verification old versions of TLS are accepted, as in the originals.
func TestHTTPSOldVersion(t *testing.T) {
	certificate := issue(t, loopback(), nil)
	s := checktest.Serve(t, func(conn net.Conn) {
		healthyHTTP(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}))
	})
	target := check.Target{Protocol: "https", Host: s.Host, Port: s.Port, URI: "/"}
	if r := ask(t, check.Options{}, target); r.Code != 200 {
		t.Errorf("not verified: %d %s", r.Code, r.Body)
	}
	if r := ask(t, check.Options{TLSVerify: true}, target); r.Reason != check.ReasonProtocol {
		t.Errorf("verified: %d %s %s", r.Code, r.Reason, r.Body)
	}
}

// With TLS 1.3 a service refuses a client without a certificate after the client's side of the handshake.
func TestHTTPSClientCertificateWanted(t *testing.T) {
	certificate := issue(t, loopback(), nil)
	s := checktest.Serve(t, func(conn net.Conn) {
		_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert}).Handshake()
	})
	r := ask(t, check.Options{}, check.Target{Protocol: "https", Host: s.Host, Port: s.Port, URI: "/"})
	if want := "Connection failed (waiting for an answer from " + s.Addr() + "): tls: certificate required"; string(r.Body) != want || r.Reason != check.ReasonProtocol {
		t.Errorf("%s %q, want %q", r.Reason, r.Body, want)
	}
}

// recordingConn records what is read from a connection.
type recordingConn struct {
	net.Conn
	bytes.Buffer
}

func (h *recordingConn) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.Buffer.Write(b[:n])
	return n, err
}

func (h *recordingConn) Write(b []byte) (int, error) { return h.Conn.Write(b) }

// A check ends with a close_notify, without which services log a truncated connection. The test looks for an alert in
// the records, which TLS 1.3 would hide.
func TestHTTPSCloseNotify(t *testing.T) {
	certificate := issue(t, loopback(), nil)
	last := make(chan byte, 1)
	s := checktest.Serve(t, func(conn net.Conn) {
		h := &recordingConn{Conn: conn}
		secure := tls.Server(h, &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: tls.VersionTLS12})
		healthyHTTP(secure)
		_, _ = io.Copy(io.Discard, secure)
		var kind byte
		for records := h.Bytes(); len(records) >= 5; {
			kind = records[0]
			records = records[min(len(records), 5+int(records[3])<<8+int(records[4])):]
		}
		last <- kind
	})
	if r := ask(t, check.Options{}, check.Target{Protocol: "https", Host: s.Host, Port: s.Port, URI: "/"}); r.Code != 200 {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	const alert = 21
	if got := <-last; got != alert {
		t.Errorf("the last record is of type %d", got)
	}
}

func TestHTTPSMessages(t *testing.T) {
	plain := checktest.Serve(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	r := ask(t, check.Options{}, check.Target{Protocol: "https", Host: plain.Host, Port: plain.Port, URI: "/"})
	if want := plain.Addr() + " does not speak TLS"; string(r.Body) != want || r.Reason != check.ReasonProtocol {
		t.Errorf("%q, want %q", r.Body, want)
	}
	picky := checktest.Serve(t, func(conn net.Conn) { _ = tls.Server(conn, &tls.Config{}).Handshake() })
	r = ask(t, check.Options{}, check.Target{Protocol: "https", Host: picky.Host, Port: picky.Port, URI: "/"})
	if want := "The TLS handshake with " + picky.Addr() + " failed: tls: "; !strings.HasPrefix(string(r.Body), want) || r.Reason != check.ReasonProtocol {
		t.Errorf("%s %q, want %q", r.Reason, r.Body, want)
	}
	silent := checktest.Serve(t, func(net.Conn) {})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r = check.All(check.Options{})["https"].Check(ctx, check.Target{Host: silent.Host, Port: silent.Port, URI: "/"})
	if want := "(TLS handshake with " + silent.Addr() + ")"; !strings.HasSuffix(string(r.Body), want) || r.Reason != check.ReasonTimeout {
		t.Errorf("%q, want %q at its end", r.Body, want)
	}
}

// A real nginx is asked over http and https, also at the port of the other protocol.
func TestNginx(t *testing.T) {
	a := newAuthority(t)
	certificate := issue(t, loopback(), a)
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
	site := `
		default_type text/plain;
		location / { return 200 "$request_method $request_uri $server_protocol $http_user_agent"; }
		location /moved { return 301 /elsewhere; }
		location /odd { return 599; }
		location /empty { return 204; }`
	plain := servertest.Nginx(t, "", site)
	secure := servertest.Nginx(t, "ssl", fmt.Sprintf("ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem;", dir)+site)
	for _, c := range []struct {
		protocol string
		server   *servertest.Server
		uri      string
		code     int
		body     string // part of it
	}{
		{"http", plain, "/a%20b?c=%zz", 200, "GET /a%20b?c=%zz HTTP/1.1 hacheck/1.2.3"},
		{"http", plain, "/moved", 301, "301 Moved Permanently"},
		{"http", plain, "/odd", 503, ""},
		{"http", plain, "/empty", 204, ""},
		{"https", secure, "//a?", 200, "GET //a? HTTP/1.1 hacheck/1.2.3"},
		{"http", secure, "/", 400, "The plain HTTP request was sent to HTTPS port"},
		{"https", plain, "/", 503, "does not speak TLS"},
	} {
		r := ask(t, check.Options{Version: "1.2.3", TLSVerify: true, TLSRoots: a.pool()},
			check.Target{Protocol: c.protocol, Host: servertest.Host, Port: c.server.Port, URI: c.uri})
		if r.Code != c.code || !strings.Contains(string(r.Body), c.body) {
			t.Errorf("%s %s: %d %q, want %d %q", c.protocol, c.uri, r.Code, r.Body, c.code, c.body)
		}
	}
}
