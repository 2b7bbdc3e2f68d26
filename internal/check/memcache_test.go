package check_test

import (
	"bufio"
	"io"
	"net"
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

func TestMemcachedAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		code   int
		reason check.Reason
		body   string // ADDR is replaced by the server's address
	}{
		"healthy":       {"VERSION 1.6.18\r\n", 200, 0, "Sent version, got back VERSION 1.6.18"},
		"old line end":  {"VERSION 1.6.18\n", 200, 0, "Sent version, got back VERSION 1.6.18"},
		"wants a login": {"CLIENT_ERROR unauthenticated\r\n", 503, check.ReasonFailed, "Sent version, got back CLIENT_ERROR unauthenticated"},
		"no memory":     {"SERVER_ERROR out of\x1b memory\r\n", 503, check.ReasonFailed, "Sent version, got back SERVER_ERROR out of  memory"},
		"does not know": {"ERROR\r\n", 503, check.ReasonFailed, "Sent version, got back ERROR"},
		"too many":      {"ERROR Too many open connections\r\n", 503, check.ReasonProtocol, `The answer of ADDR is not memcached's: "ERROR Too many open connections"`},
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
	wantOptionErrors(t, "memcache", map[string][]any{"password: no such option": {"host", "cache", "password", "s3cret"}})
	s := servertest.Memcached(t)
	tryLogins(t, check.Defaults{}, "memcache", s, map[string]loginCase{
		"healthy": {nil, 200, 0, "Sent version, got back VERSION 1."},
		"by name": {[]any{"host", "localhost"}, 200, 0, "Sent version, got back VERSION 1."},
	})
	wantGone(t, check.Defaults{}, "memcache", s)
}

func FuzzMemcachedAnswer(f *testing.F) {
	f.Add([]byte("VERSION 1.6.18\r\n"))
	f.Add([]byte("CLIENT_ERROR x\r\n"))
	fuzzConfigured(f, "memcache", nil)
}
