package check_test

import (
	"net"
	"strings"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

func TestRedisTypeOptions(t *testing.T) {
	for _, typ := range []string{"redis", "sentinel"} {
		c := buildAt(t, check.Defaults{}, typ, "cache", 6379)
		wantSteps(t, c, typ+":AT:tcp:AT", typ+":AT:connect")
		c = buildAt(t, check.Defaults{}, typ, "cache", 6379, "password", "s3cret", "use_tls", true)
		wantSteps(t, c, typ+":AT:tcp:AT", typ+":AT:tls:AT", typ+":AT:connect with auth")
		wantOptionErrors(t, typ, map[string][]any{
			"username: needs a password":       {"host", "cache", "username", "operator"},
			"use_tls: expected true or false":  {"host", "cache", "use_tls", "yes, please"},
			"password: expected a password wi": {"host", "cache", "password", "s3cret\x00"},
		})
	}
	c, err := check.Build(check.Spec{Type: "sentinel", Options: map[string]any{"host": "cache"}}, check.Defaults{})
	if err != nil || c.Endpoint.Port != 26379 {
		t.Errorf("default port of sentinel: %+v %v", c, err)
	}
}

// TestRedisTypeAlwaysLogsIn: the check logs in even if the server requires no login, and hides a password that the
// server repeats.
func TestRedisTypeAlwaysLogsIn(t *testing.T) {
	for answer, want := range map[string]string{
		"-WRONGPASS no\r\n": "ADDR refuses the password: WRONGPASS",
		"-s3cret\r\n":       "ADDR refuses the password: an unknown error",
		":1 s3cret\r\n":     "Sent AUTH, got back something that is not Redis from ADDR",
	} {
		s := checktest.Serve(t, redisServer(func(command []string) string {
			if command[0] == "AUTH" {
				return answer
			}
			return "+PONG\r\n"
		}))
		r := configuredAt(t, "redis", map[string]any{"password": "s3cret"})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
		if want := strings.ReplaceAll(want, "ADDR", s.Addr()); r.Code == 200 || string(r.Body) != want || strings.Contains(r.Err.Error(), "s3cret") {
			t.Errorf("%d %q %v, want %q", r.Code, r.Body, r.Err, want)
		}
	}
	s := checktest.Serve(t, func(conn net.Conn) {
		redisServer(func([]string) string { return "-NOAUTH Authentication required.\r\n" })(conn)
	})
	r := configuredAt(t, "redis", nil)(t.Context(), check.Target{Host: s.Host, Port: s.Port})
	if want := "Sent PING, got back -NOAUTH Authentication required. (no password is configured)"; string(r.Body) != want || r.Reason != check.ReasonConfig {
		t.Errorf("%s %q, want %q", r.Reason, r.Body, want)
	}
}

// TestRedisType checks Redis with a password, with ACL users and over TLS, and Sentinel with a password.
func TestRedisType(t *testing.T) {
	pong, failed := "Sent PING, got back +PONG", check.ReasonFailed
	refuses := func(s *servertest.Server, kind string) string { return s.Addr() + " refuses the password: " + kind }

	open := servertest.Redis(t, "--user", "operator", "on", ">pa55", "+@all")
	tryLogins(t, check.Defaults{}, "redis", open, map[string]loginCase{
		"open":                     {nil, 200, 0, pong},
		"open, user":               {[]any{"username", "operator", "password", "pa55"}, 200, 0, pong},
		"open, wrong password":     {[]any{"username", "operator", "password", "wr0ng"}, 500, failed, refuses(open, "WRONGPASS")},
		"open, password of nobody": {[]any{"password", "wr0ng"}, 500, failed, refuses(open, "ERR")},
	})
	locked := servertest.Redis(t, "--requirepass", "s3cret", "--user", "operator", "on", ">pa55", "+@all", "--user", "guest", "on", ">pa55", "-@all")
	tryLogins(t, check.Defaults{}, "redis", locked, map[string]loginCase{
		"locked, no password":    {nil, 500, check.ReasonConfig, "Sent PING, got back -NOAUTH"},
		"locked, password":       {[]any{"password", "s3cret"}, 200, 0, pong},
		"locked, wrong password": {[]any{"password", "wr0ng"}, 500, failed, refuses(locked, "WRONGPASS")},
		"locked, wrong user":     {[]any{"username", "nobody", "password", "s3cret"}, 500, failed, refuses(locked, "WRONGPASS")},
		"locked, user":           {[]any{"username", "operator", "password", "pa55"}, 200, 0, pong},
		"locked, may not ping":   {[]any{"username", "guest", "password", "pa55"}, 500, failed, "Sent PING, got back -NOPERM"},
		// Redis takes the TLS handshake for the beginning of a command and waits for its end.
		"locked, TLS": {[]any{"password", "s3cret", "use_tls", true, "timeout", 0.3}, 503, check.ReasonTimeout, "Connection timed out"},
	})
	sentinel := servertest.Sentinel(t, open, "requirepass s3cret")
	tryLogins(t, check.Defaults{}, "sentinel", sentinel, map[string]loginCase{
		"sentinel":                 {[]any{"password", "s3cret"}, 200, 0, pong},
		"sentinel, wrong password": {[]any{"password", "wr0ng"}, 500, failed, refuses(sentinel, "WRONGPASS")},
	})

	a := newAuthority(t)
	secure := servertest.RedisTLS(t, issue(t, loopback(), a), "--requirepass", "s3cret")
	trusting := check.Defaults{Options: check.Options{TLSVerify: true, TLSRoots: a.pool()}}
	strict := check.Defaults{Options: check.Options{TLSVerify: true, TLSRoots: newAuthority(t).pool()}}
	tryLogins(t, check.Defaults{}, "redis", secure, map[string]loginCase{
		"TLS":                 {[]any{"use_tls", true, "password", "s3cret"}, 200, 0, pong},
		"TLS, wrong password": {[]any{"use_tls", true, "password", "wr0ng"}, 500, failed, refuses(secure, "WRONGPASS")},
		"TLS, without":        {[]any{"password", "s3cret"}, 503, check.ReasonProtocol, ""},
	})
	tryLogins(t, trusting, "redis", secure, map[string]loginCase{
		"TLS, verified": {[]any{"use_tls", true, "password", "s3cret"}, 200, 0, pong},
	})
	tryLogins(t, strict, "redis", secure, map[string]loginCase{
		"TLS, another authority": {[]any{"use_tls", true, "password", "s3cret"}, 503, failed, "The certificate of " + secure.Addr() + " was not accepted"},
		"TLS, not looked at":     {[]any{"use_tls", true, "password", "s3cret", "disable_tls_verification", true}, 200, 0, pong},
	})
	wantGone(t, check.Defaults{}, "redis", locked, "password", "s3cret")
}
