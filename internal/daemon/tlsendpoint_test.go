package daemon

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"hacheck/test/servertest"
)

// tlsClient returns a client with that configuration; http2 says which protocol it offers.
func tlsClient(c *tls.Config, http2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, Protocols: &protocols, DisableKeepAlives: true}, Timeout: testTimeout}
}

// getTLS returns code and protocol of an answer, and the serial number of the server's certificate.
func getTLS(c *http.Client, addr, path string) (code int, proto, serial string, err error) {
	r, err := c.Get("https://" + addr + path)
	if err != nil {
		return 0, "", "", err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return r.StatusCode, r.Proto, r.TLS.PeerCertificates[0].SerialNumber.String(), err
}

// TestTLSListen: both protocols by ALPN, the pages, changed files, a broken pair, a reload, and clear refusals.
func TestTLSListen(t *testing.T) {
	t.Parallel()
	ca := servertest.NewAuthority(t)
	cert, key := ca.Issue(t, "one")
	dir, addr := t.TempDir(), freeAddr(t)
	conf := filepath.Join(dir, "hacheck.yaml")
	text := fmt.Sprintf("tls_listen: %s\ntls_cert_file: %s\ntls_key_file: %s\n", addr, cert, key)
	writeFile(t, conf, text)
	p := startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	config := ca.Client(t, "", "")
	for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		code, got, serial, err := getTLS(tlsClient(config, http2), addr, "/spool/web/0/")
		if err != nil || code != 200 || got != proto || serial != "2" {
			t.Errorf("%s: %d %s by certificate %s, %v", proto, code, got, serial, err)
		}
	}
	// HAProxy's HTTP/1.1 sends no Host line, by TLS either.
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /spool/web/0/ HTTP/1.1\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("without a Host line: %q, %v", answer, err)
	}
	if code, body := fetch(t, addr, ""); code != 400 || !strings.Contains(body, "TLS") {
		t.Errorf("without TLS: %d %q", code, body)
	}

	serialIs := func(want string) func() bool {
		return func() bool {
			_, _, serial, err := getTLS(tlsClient(config, false), addr, "/spool/web/0/")
			return err == nil && serial == want
		}
	}
	ca.Issue(t, "one") // the same files
	waitUntil(t, "the changed certificate is used", serialIs("3"))
	p.waitForLog(regexp.MustCompile(`the certificate of tls_listen was read again`))
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, key, "-----BEGIN NOTHING-----\n")
	p.waitForLog(regexp.MustCompile(`the changed certificate of tls_listen cannot be used, the old one stays in force`))
	if !serialIs("3")() {
		t.Error("the old certificate is not in force beside broken files")
	}
	_, metrics, err := p.get("/metrics")
	if err != nil || !strings.Contains(metrics, "hacheck_tls_certificate_files_failed 1") || !strings.Contains(metrics, "hacheck_tls_certificate_expiry_timestamp_seconds 1.") {
		t.Errorf("/metrics does not say that the files are broken: %v", err)
	}
	if _, page, err := p.get("/overview"); err != nil || !strings.Contains(page, "The TLS certificate expires on") || !strings.Contains(page, "cannot be used") {
		t.Errorf("the page does not say that the files are broken: %s %v", page, err)
	}
	p.signal(syscall.SIGHUP) // the same files: the rest of the configuration is in force
	p.waitForLog(regexp.MustCompile(`reloaded the configuration`))
	writeFile(t, conf, strings.ReplaceAll(text, key, filepath.Join(dir, "none.key")))
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`the configuration was not reloaded.*tls_key_file.*none.key`))
	if !serialIs("3")() {
		t.Error("a refused reload has changed the certificate")
	}
	writeFile(t, key, string(good))
	writeFile(t, conf, text+"tls_client_ca_file: "+ca.File+"\n")
	p.signal(syscall.SIGHUP)
	waitUntil(t, "a client certificate is needed", func() bool {
		_, _, _, err := getTLS(tlsClient(config, false), addr, "/spool/web/0/")
		return err != nil
	})
	if code, _, _, err := getTLS(tlsClient(ca.Client(t, cert, key), true), addr, "/spool/web/0/"); err != nil || code != 200 {
		t.Errorf("with a client certificate: %d, %v", code, err)
	}
	writeFile(t, conf, "cache_time: 1\n")
	p.signal(syscall.SIGHUP)
	waitUntil(t, "the listener is closed", func() bool { return !isListening(addr) })
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestTLSFilesAtStart: files that cannot be used are named at the start and by --check-config.
func TestTLSFilesAtStart(t *testing.T) {
	t.Parallel()
	ca := servertest.NewAuthority(t)
	cert, key := ca.Issue(t, "one")
	_, other := ca.Issue(t, "two")
	dir := t.TempDir()
	for name, c := range map[string]struct{ cert, key, more, want string }{
		"no such key":     {cert, filepath.Join(dir, "none"), "", "tls_key_file: open .*none: no such file"},
		"a directory":     {dir, key, "", "tls_cert_file: open .*: not a regular file"},
		"another key":     {cert, other, "", "tls_key_file .*: tls: private key does not match public key"},
		"no certificate":  {key, key, "", "tls_cert_file .*: tls: failed to find certificate PEM"},
		"no authorities":  {cert, key, "tls_client_ca_file: " + key + "\n", "tls_client_ca_file .*: no certificate in it"},
		"no key in there": {cert, "", "", "tls_listen: expected tls_key_file too"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := filepath.Join(t.TempDir(), "hacheck.yaml")
			text := "tls_listen: 127.0.0.1:0\ntls_cert_file: " + c.cert + "\n" + c.more
			if c.key != "" {
				text += "tls_key_file: " + c.key + "\n"
			}
			writeFile(t, conf, text)
			for _, args := range [][]string{
				{"--check-config", "-c", conf},
				{"--check-reload", "-c", conf},
				{"-p", "0", "-B", "127.0.0.1", "-c", conf, "--spool-root", filepath.Join(dir, "spool")},
			} {
				p := launch(t, nil, args...)
				p.wantExit(2)
				if !regexp.MustCompile(regexp.QuoteMeta(conf)+":.*"+c.want).MatchString(p.log()) || strings.Contains(p.log(), "BEGIN") {
					t.Errorf("%q, want %q", p.log(), c.want)
				}
			}
		})
	}
}
