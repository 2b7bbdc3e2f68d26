package check_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// build returns the check of a valid spec.
func build(t testing.TB, d check.Defaults, typ string, options map[string]any) *check.ConfiguredCheck {
	t.Helper()
	c, err := check.Build(check.Spec{Type: typ, Options: options}, d)
	if err != nil {
		t.Fatalf("%s: %v", typ, err)
	}
	return c
}

// ask runs the check of the target's protocol, with a timeout that must not be what ends it.
func ask(t testing.TB, o check.Options, target check.Target) check.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return check.All(o)[target.Protocol].Check(ctx, target)
}

// answering starts an HTTP server that reads a request, sends answer and closes.
func answering(t testing.TB, answer string) *checktest.Server {
	t.Helper()
	return checktest.Serve(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.(*net.TCPConn).CloseWrite()
	})
}

// fuzzAnswers runs a check against a server that sends the fuzzer's bytes and closes.
func fuzzAnswers(f *testing.F, protocol string) {
	f.Helper()
	uri := "/match?a=b"
	if protocol == "redis" || protocol == "mysql" {
		uri = "" // a role
	}
	fuzzAnswersAt(f, protocol, uri)
}

// fuzzAnswersAt is fuzzAnswers with a URI.
func fuzzAnswersAt(f *testing.F, protocol, uri string) {
	f.Helper()
	answers := make(chan []byte, 1)
	s := checktest.Serve(f, func(conn net.Conn) {
		_, _ = conn.Write(<-answers)
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	set := check.All(check.Options{RedisPassword: "s3cret", MySQLUsername: "u", MySQLPassword: "s3cret"})
	f.Fuzz(func(t *testing.T, answer []byte) {
		answers <- answer
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r := set[protocol].Check(ctx, check.Target{Service: "web", Host: s.Host, Port: s.Port, URI: uri})
		if r.Code < 200 || http.StatusText(r.Code) == "" || len(r.Body) > check.MaxBody || r.Reason == check.ReasonTimeout || (r.Reason == check.ReasonAnswered) != (r.Err == nil) {
			t.Errorf("%d %s %v %.200q", r.Code, r.Reason, r.Err, r.Body)
		}
	})
}
