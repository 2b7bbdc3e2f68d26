package check_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// configuredAt returns a configured check that asks the host and port of its target.
func configuredAt(t testing.TB, typ string, options map[string]any) check.Func {
	t.Helper()
	return func(ctx context.Context, target check.Target) check.Result {
		options := maps.Clone(options)
		if options == nil {
			options = map[string]any{}
		}
		options["host"], options["port"] = target.Host, int(target.Port)
		c, err := check.Build(check.Spec{Type: typ, Options: options}, check.Defaults{})
		if err != nil {
			t.Errorf("build %s: %v", typ, err)
			return check.Result{}
		}
		return c.Check(ctx, target)
	}
}

// lastAlone returns a run of the last step of c without the earlier ones, as runner's selection by name makes it.
func lastAlone(c *check.ConfiguredCheck) check.Func {
	return func(ctx context.Context, target check.Target) check.Result {
		a := c.Begin(ctx, target)
		defer a.End()
		return a.Run(c.Steps[len(c.Steps)-1])
	}
}

// buildAt returns a configured check of the server at host and port. pairs are further options.
func buildAt(t testing.TB, d check.Defaults, typ, host string, port uint16, pairs ...any) *check.ConfiguredCheck {
	t.Helper()
	options := map[string]any{"host": host, "port": int(port)}
	for i := 0; i < len(pairs); i += 2 {
		options[pairs[i].(string)] = pairs[i+1]
	}
	c, err := check.Build(check.Spec{Type: typ, Options: options}, d)
	if err != nil {
		t.Fatalf("%s %v: %v", typ, options, err)
	}
	return c
}

// wantSteps compares the names of the steps of c. AT in them is replaced by the host and port.
func wantSteps(t *testing.T, c *check.ConfiguredCheck, names ...string) {
	t.Helper()
	var got []string
	for _, s := range c.Steps {
		got = append(got, strings.ReplaceAll(s.Name, fmt.Sprintf("%s:%d", c.Endpoint.Host, c.Endpoint.Port), "AT"))
	}
	if !slices.Equal(got, names) {
		t.Errorf("steps of %s: %q, want %q", c.Name, got, names)
	}
}

// loginCase is a login at a real server with its expected result.
type loginCase struct {
	options []any // pairs
	code    int
	reason  check.Reason
	body    string // prefix of the answer; "" for any answer
}

// tryLogins builds and runs a check of each case. No answer may contain the password.
func tryLogins(t *testing.T, d check.Defaults, typ string, s *servertest.Server, cases map[string]loginCase) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			options := slices.Clone(c.options)
			host, port := servertest.Host, s.Port
			secret := ""
			for i := 0; i < len(options); i += 2 {
				switch options[i] {
				case "password":
					secret = options[i+1].(string)
				case "host":
					host = options[i+1].(string)
				case "port":
					port = uint16(options[i+1].(int))
				}
			}
			configured := buildAt(t, d, typ, host, port, options...)
			r := configured.Check(t.Context(), check.Target{})
			if r.Code != c.code || r.Reason != c.reason || !strings.HasPrefix(string(r.Body), c.body) {
				t.Errorf("%d %s %q (%v), want %d %s %q\n%s", r.Code, r.Reason, r.Body, r.Err, c.code, c.reason, c.body, tail(s.Log()))
			}
			if secret != "" && strings.Contains(fmt.Sprintf("%s %v %+v %#v", r.Body, r.Err, configured, configured.Name), secret) {
				t.Errorf("shows the password: %s %v", r.Body, r.Err)
			}
		})
	}
}

// tail returns the end of a long text.
func tail(s string) string { return s[max(0, len(s)-2000):] }

// wantGone checks a server that has ended, whose port refuses connections, and a server that accepts connections and is
// silent. With the latter every step but the connection must time out.
func wantGone(t *testing.T, d check.Defaults, typ string, s *servertest.Server, pairs ...any) {
	t.Helper()
	s.Stop()
	r := buildAt(t, d, typ, servertest.Host, s.Port, pairs...).Check(t.Context(), check.Target{})
	if r.Code != 503 || r.Reason != check.ReasonRefused {
		t.Errorf("server gone: %d %s %q", r.Code, r.Reason, r.Body)
	}
	silent := checktest.Serve(t, func(net.Conn) {})
	r = buildAt(t, d, typ, silent.Host, silent.Port, append(slices.Clone(pairs), "timeout", 0.2)...).Check(t.Context(), check.Target{})
	if r.Code != 503 || r.Reason != check.ReasonTimeout || r.Took > 5*time.Second {
		t.Errorf("server silent: %d %s %q after %v", r.Code, r.Reason, r.Body, r.Took)
	}
}

// wantOptionErrors checks that Build refuses each set of options (pairs) with an error that names the option and does not
// contain the password.
func wantOptionErrors(t *testing.T, typ string, cases map[string][]any) {
	t.Helper()
	for want, pairs := range cases {
		options := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			options[pairs[i].(string)] = pairs[i+1]
		}
		_, err := check.Build(check.Spec{Type: typ, Options: options}, check.Defaults{})
		var wrong *check.OptionError
		if err == nil || !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %v: %v, want %q", typ, options, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: shows the password: %v", typ, err)
		}
	}
}

// scramServer is the server's part of SCRAM. The tests with drivers verify it.
type scramServer struct {
	hash       func() hash.Hash
	password   string
	unverified bool // it does not know the password

	header, message, nonce string
}

const scramSalt, scramRounds = "salt of 16 bytes", 4096

func (s *scramServer) first(clientFirst string) (string, bool) {
	if len(clientFirst) < 3 || !slices.Contains([]string{"n,,", "y,,"}, clientFirst[:3]) {
		return "", false // the client's first message has no valid header
	}
	s.header = clientFirst[:3]
	bare := clientFirst[3:]
	_, nonce, found := strings.Cut(bare, ",r=")
	if !found {
		return "", false
	}
	s.nonce = nonce + "server"
	first := fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString([]byte(scramSalt)), scramRounds)
	s.message = bare + "," + first
	return first, true
}

func (s *scramServer) final(clientFinal string) (string, bool) {
	without, proof, ok := strings.Cut(clientFinal, ",p=")
	if !ok || without != "c="+base64.StdEncoding.EncodeToString([]byte(s.header))+",r="+s.nonce {
		return "", false
	}
	s.message += "," + without
	mac := func(key []byte, text string) []byte {
		m := hmac.New(s.hash, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	u := mac([]byte(s.password), scramSalt+"\x00\x00\x00\x01")
	salted := slices.Clone(u)
	for range scramRounds - 1 {
		u = mac([]byte(s.password), string(u))
		salted = xor(salted, u)
	}
	h := s.hash()
	h.Write(mac(salted, "Client Key"))
	stored := h.Sum(nil)
	given, err := base64.StdEncoding.DecodeString(proof)
	if err != nil || len(given) != len(stored) {
		return "", false
	}
	h = s.hash()
	h.Write(xor(given, mac(stored, s.message)))
	if !s.unverified && !slices.Equal(h.Sum(nil), stored) {
		return "", false
	}
	return "v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), s.message)), true
}

var (
	sha1Hash   = func() hash.Hash { return sha1.New() }
	sha256Hash = func() hash.Hash { return sha256.New() }
)

// readFull reads n bytes.
func readFull(r io.Reader, n int) ([]byte, error) {
	if n < 0 || n > 1<<20 {
		return nil, errors.New("too long")
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// fuzzConfigured fuzzes the answers of a server to a login.
func fuzzConfigured(f *testing.F, typ string, options map[string]any) {
	f.Helper()
	answers := make(chan []byte, 1)
	s := checktest.Serve(f, func(conn net.Conn) {
		_, _ = conn.Write(<-answers)
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	run := configuredAt(f, typ, options)
	f.Fuzz(func(t *testing.T, answer []byte) {
		answers <- answer
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r := run(ctx, check.Target{Host: s.Host, Port: s.Port})
		if r.Code < 200 || len(r.Body) == 0 || len(r.Body) > check.MaxBody || r.Reason == check.ReasonTimeout || (r.Reason == check.ReasonAnswered) != (r.Err == nil) {
			t.Errorf("%d %s %v %.200q", r.Code, r.Reason, r.Err, r.Body)
		}
		if r.Code == 200 && typ != "memcache" && typ != "smtp" && typ != "ldap" && typ != "grpc" {
			t.Errorf("let in by %q", answer)
		}
	})
}
