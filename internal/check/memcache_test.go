package check_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// memcachedServer returns a server that reads a line and sends answer.
func memcachedServer(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "version\r\n" {
			return
		}
		_, _ = io.WriteString(conn, answer)
	}
}

// memcachedLogin is a server with a password file.
func memcachedLogin(conn net.Conn) {
	r := bufio.NewReader(conn)
	for answer := errMemcachedLogin; ; {
		line, err := r.ReadString('\n')
		switch {
		case err != nil || line == "quit\r\n":
			return
		case line == "set hacheck 0 0 15\r\n":
			if data, err := r.ReadString('\n'); err != nil || data != "operator s3cret\r\n" {
				return
			}
			answer = "VERSION 1.6.18\r\n"
			_, err = io.WriteString(conn, "STORED\r\n")
		case line == "version\r\n":
			_, err = io.WriteString(conn, answer)
		}
		if err != nil {
			return
		}
	}
}

const errMemcachedLogin = "CLIENT_ERROR unauthenticated\r\n"

func TestMemcachedAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		code   int
		reason check.Reason
		body   string // ADDR is replaced by the server's address
	}{
		"healthy":       {"VERSION 1.6.18\r\n", 200, 0, "Sent version, got back VERSION 1.6.18"},
		"old line end":  {"VERSION 1.6.18\n", 200, 0, "Sent version, got back VERSION 1.6.18"},
		"wants a login": {"CLIENT_ERROR unauthenticated\r\n", 503, check.ReasonFailed, "Sent version, got back CLIENT_ERROR unauthenticated (no username is configured)"},
		"no memory":     {"SERVER_ERROR out of\x1b memory\r\n", 503, check.ReasonFailed, "Sent version, got back SERVER_ERROR out of  memory"},
		"does not know": {"ERROR\r\n", 503, check.ReasonFailed, "Sent version, got back ERROR"},
		"too many":      {"ERROR Too many open connections\r\n", 503, check.ReasonFailed, "ADDR has no free place for a client: ERROR Too many open connections (its option -c)"},
		"other error":   {"ERROR 5\r\n", 503, check.ReasonFailed, "Sent version, got back ERROR 5"},
		"almost":        {"VERSIONS", 503, check.ReasonProtocol, `The answer of ADDR is not memcached's: "VERSIONS"`},
		"long":          {"VERSION " + strings.Repeat("1", 1<<10) + "\r\n", 503, check.ReasonProtocol, "The answer of ADDR has a line of more than 1024 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, memcachedServer(c.answer))
			r := configuredAt(t, "memcached", nil)(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || r.Reason != c.reason || string(r.Body) != want {
				t.Errorf("%d %s %q, want %d %s %q", r.Code, r.Reason, r.Body, c.code, c.reason, want)
			}
		})
	}
}

func TestMemcached(t *testing.T) {
	wantSteps(t, buildAt(t, check.Defaults{}, "memcached", "2001:db8::1", 11211), "memcache:AT:tcp:AT", "memcache:AT:connect")
	wantOptionErrors(t, "memcache", map[string][]any{
		"username: a user name and a password need each": {"host", "cache", "password", "s3cret"},
		"username: expected a name without a space":      {"host", "cache", "password", "s3cret", "username", "a b"},
		"role: no such option":                           {"host", "cache", "role", "primary"},
	})
	s := servertest.Memcached(t)
	tryLogins(t, check.Defaults{}, "memcache", s, map[string]loginCase{
		"healthy": {nil, 200, 0, "Sent version, got back VERSION 1."},
		"by name": {[]any{"host", "localhost"}, 200, 0, "Sent version, got back VERSION 1."},
	})
	wantGone(t, check.Defaults{}, "memcache", s)
}

// TestMemcachedLogin logs in to a server with a password file, and sends no password to one without.
func TestMemcachedLogin(t *testing.T) {
	s := servertest.MemcachedLogin(t, "operator:s3cret\n")
	login := []any{"username", "operator", "password", "s3cret"}
	tryLogins(t, check.Defaults{}, "memcache", s, map[string]loginCase{
		"right":          {login, 200, 0, "Sent version, got back VERSION 1."},
		"wrong password": {[]any{"username", "operator", "password", "wr0ng"}, 503, check.ReasonFailed, s.Addr() + " refuses the login: CLIENT_ERROR authentication failure"},
		"no login":       {nil, 503, check.ReasonFailed, "Sent version, got back CLIENT_ERROR unauthenticated (no username is configured)"},
	})
	open := servertest.Memcached(t)
	tryLogins(t, check.Defaults{}, "memcache", open, map[string]loginCase{"no login wanted": {login, 200, 0, "Sent version, got back VERSION 1."}})
	conn, err := net.Dial("tcp", open.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "get hacheck\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "END\r\n" {
		t.Errorf("the password is stored: %q %v", line, err)
	}
	for _, answer := range []string{"CLIENT_ERROR no s3cret\r\n", "s3cret\r\n", "operator s3cret\r\n"} {
		leaky := checktest.Serve(t, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			if _, err := r.ReadString('\n'); err == nil {
				_, _ = io.WriteString(conn, "CLIENT_ERROR unauthenticated\r\n")
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(conn, answer)
			}
		})
		r := buildAt(t, check.Defaults{}, "memcache", leaky.Host, leaky.Port, login...).Check(t.Context(), check.Target{})
		if r.Code != 503 || strings.Contains(fmt.Sprint(string(r.Body), r.Err), "s3cret") {
			t.Errorf("%q: %d %q", answer, r.Code, r.Body)
		}
	}
}

// TestMemcachedFull: a server without a free place is named as what it is, also when it answers a handshake in clear.
func TestMemcachedFull(t *testing.T) {
	a := newAuthority(t)
	plain, secure := servertest.Memcached(t, "-c", "32"), servertest.MemcachedTLS(t, issue(t, loopback(), a), "-c", "32")
	for _, s := range []*servertest.Server{plain, secure} {
		pairs := []any{"use_tls", s == secure}
		run := func() check.Result {
			return buildAt(t, check.Defaults{}, "memcache", servertest.Host, s.Port, pairs...).Check(t.Context(), check.Target{})
		}
		if r := run(); r.Code != 200 || !strings.HasPrefix(string(r.Body), "Sent version, got back VERSION 1.") {
			t.Errorf("a free place: %d %q", r.Code, r.Body)
		}
		hold := func() {
			conn, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
		for range 32 {
			hold()
		}
		r := until(t, func() check.Result {
			hold() // while the server counted the connection of the check above, it has refused one of the 32
			return run()
		}, "ERROR Too many open connections")
		if want := s.Addr() + " has no free place for a client: ERROR Too many open connections (its option -c)"; r.Code != 503 || r.Reason != check.ReasonFailed || string(r.Body) != want {
			t.Errorf("no free place: %d %s %q, want %q", r.Code, r.Reason, r.Body, want)
		}
	}
}

func TestMemcachedTLS(t *testing.T) {
	a := newAuthority(t)
	ca, cert, key := pemFiles(t, a)
	s := servertest.MemcachedTLS(t, issue(t, loopback(), a))
	strict := servertest.MemcachedTLS(t, issue(t, loopback(), a), "-o", "ssl_verify_mode=2,ssl_ca_cert="+ca)
	with := []any{"use_tls", true, "ca_file", ca, "cert_file", cert, "key_file", key}
	tryLogins(t, check.Defaults{}, "memcache", s, map[string]loginCase{
		"verified":   {with[:4], 200, 0, "Sent version, got back VERSION 1."},
		"other name": {append([]any{"server_name", "web.example"}, with[:4]...), 503, check.ReasonFailed, "The certificate of "},
		"no TLS":     {nil, 503, check.ReasonProtocol, ""},
	})
	tryLogins(t, check.Defaults{}, "memcache", strict, map[string]loginCase{
		"certificate":    {with, 200, 0, "Sent version, got back VERSION 1."},
		"no certificate": {with[:4], 503, check.ReasonProtocol, ""},
	})
}

// TestMemcachedQuiet: no check leaves a connection, or a line in the server's log.
func TestMemcachedQuiet(t *testing.T) {
	run := func(pairs ...any) func(host string, port uint16) check.Result {
		return func(host string, port uint16) check.Result {
			return buildAt(t, check.Defaults{}, "memcache", host, port, pairs...).Check(t.Context(), check.Target{})
		}
	}
	plain, secure := servertest.MemcachedLogin(t, "operator:s3cret\n"), servertest.MemcachedTLS(t, issue(t, loopback(), newAuthority(t)))
	checktest.RunQuiet(t, plain.Addr(), plain.Log, 500, run("username", "operator", "password", "s3cret"))
	checktest.RunQuiet(t, secure.Addr(), secure.Log, 500, run("use_tls", true))
}

func TestMemcachedUnixSocket(t *testing.T) {
	s := servertest.MemcachedUnix(t)
	c := build(t, check.Defaults{}, "memcache", map[string]any{"host": filepath.Join(s.Dir, "sock")})
	if r := c.Check(t.Context(), check.Target{}); r.Code != 200 || len(c.Steps) != 1 {
		t.Errorf("%d %q %v", r.Code, r.Body, c.Steps)
	}
}

func FuzzMemcachedAnswer(f *testing.F) {
	f.Add([]byte("VERSION 1.6.18\r\n"))
	f.Add([]byte("CLIENT_ERROR x\r\n"))
	fuzzConfigured(f, "memcache", nil)
}
