package daemon

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hacheck/test/servertest"
)

// asks is how often a test asks an endpoint. If two endpoints accepted from its socket, each would get a part.
const asks = 20

// TestInheritedTLSListener: tls_listen uses a socket whatever its name is. A reload changes the certificate, closes the
// listener and opens it again; connections wait in the socket meanwhile.
func TestInheritedTLSListener(t *testing.T) {
	t.Parallel()
	ca := servertest.NewAuthority(t)
	plain, ln := listenTCP(t), listenTCP(t)
	addr, conf := ln.Addr().String(), filepath.Join(t.TempDir(), "hacheck.yaml")
	config := func(name string) string {
		cert, key := ca.Issue(t, name)
		return fmt.Sprintf("tls_listen: %s\ntls_cert_file: %s\ntls_key_file: %s\n", addr, cert, key)
	}
	writeFile(t, conf, config("one"))
	p := launchWithSockets(t, []fileListener{plain, ln}, "hacheck.socket:hacheck.socket", nil, "-c", conf, "--control-socket", "")
	p.waitReady()
	if want := []string{plain.Addr().String()}; !slices.Equal(p.addrs, want) {
		t.Errorf("without TLS it answers on %v, want %v", p.addrs, want)
	}
	client := ca.Client(t, "", "")
	wantSerial := func(want string) {
		t.Helper()
		for range asks {
			if code, _, serial, err := getTLS(tlsClient(client, false), addr, "/spool/web/0/"); err != nil || code != 200 || serial != want {
				t.Fatalf("%d by certificate %s, %v; want 200 by %s", code, serial, err, want)
			}
		}
	}
	wantSerial("2")
	p.mustGet("/spool/web/0/", 200)
	reloads := 0
	reload := func(text string) {
		t.Helper()
		reloads++
		writeFile(t, conf, text)
		p.signal(syscall.SIGHUP)
		waitUntil(t, "it was reloaded", func() bool { return strings.Count(p.log(), "reloaded the configuration") == reloads })
	}
	with := config("two")
	reload(with)
	wantSerial("3")
	unused := regexp.MustCompile(`level=WARN msg="systemd handed over sockets that nothing uses.*` + regexp.QuoteMeta(addr))
	if unused.MatchString(p.log()) {
		t.Error("it complains about a socket that is in use")
	}
	for range 2 { // said once
		reload("cache_time: 1\n")
	}
	if n := len(unused.FindAllString(p.log(), -1)); n != 1 {
		t.Errorf("it says %d times that nothing uses the socket, want once", n)
	}
	waiting := make(chan error, 1)
	go func() {
		_, _, _, err := getTLS(tlsClient(client, false), addr, "/spool/web/0/")
		waiting <- err
	}()
	reload(with)
	if err := <-waiting; err != nil {
		t.Errorf("a connection from before the listener was opened again: %v", err)
	}
	wantSerial("3")
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestSocketHasOneEndpoint: a socket of hacheck.socket with the port of another endpoint is that endpoint's alone.
func TestSocketHasOneEndpoint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		config string // PORT is that of the socket
		args   []string
		answer string // of the endpoint to a text that each of them answers
	}{
		{"-A", "{}", []string{"-A", "PORT"}, "up ready"},
		{"agent_listen", "services: {web: {agent_listen: '127.0.0.1:PORT'}}", nil, "up ready"},
		{"http_listen", "services: {web: {checks: [{type: script, command: 'false'}], failure_code: 567, http_listen: '127.0.0.1:PORT'}}", nil, "HTTP/1.0 567"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			plain, ln := listenTCP(t), listenTCP(t)
			addr, conf := ln.Addr().String(), filepath.Join(t.TempDir(), "hacheck.yaml")
			writeFile(t, conf, strings.ReplaceAll(test.config, "PORT", port(t, addr)))
			args := []string{"-c", conf, "--control-socket", ""}
			for _, a := range test.args {
				args = append(args, strings.ReplaceAll(a, "PORT", port(t, addr)))
			}
			p := launchWithSockets(t, []fileListener{plain, ln}, "hacheck.socket:hacheck.socket", nil, args...)
			p.waitReady()
			text := "GET / HTTP/1.0\r\n\r\n"
			if !strings.HasPrefix(test.answer, "HTTP") {
				text = "web\n"
			}
			for range asks {
				if got := askAgent(addr, text); !strings.HasPrefix(got, test.answer) {
					t.Fatalf("%q, want %s", got, test.answer)
				}
			}
			if want := []string{plain.Addr().String()}; !slices.Equal(p.addrs, want) {
				t.Errorf("it answers checks on %v, want %v", p.addrs, want)
			}
		})
	}
}

// TestReloadLeavesSocketOfHTTP: a reload cannot give an endpoint a socket that answers for -p since the start.
func TestReloadLeavesSocketOfHTTP(t *testing.T) {
	t.Parallel()
	ca := servertest.NewAuthority(t)
	cert, key := ca.Issue(t, "one")
	ln := listenTCP(t)
	addr, conf := ln.Addr().String(), filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "cache_time: 1\n")
	p := launchWithSockets(t, []fileListener{ln}, "hacheck.socket", nil, "-c", conf, "--control-socket", "")
	p.waitReady()
	writeFile(t, conf, fmt.Sprintf("tls_listen: %s\ntls_cert_file: %s\ntls_key_file: %s\n", addr, cert, key))
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`the configuration was not reloaded.*tls_listen: socket hacheck.socket on ` + regexp.QuoteMeta(addr) + ` answers for -p or -A.*restart hacheck`))
	for range asks {
		p.mustGet("/spool/web/0/", 200)
	}
}
