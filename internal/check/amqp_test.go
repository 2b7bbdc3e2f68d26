package check_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// amqpFrame returns a frame with a method of the class connection.
func amqpFrame(method uint16, args string) string {
	b := binary.BigEndian.AppendUint32([]byte{1, 0, 0}, uint32(4+len(args)))
	b = binary.BigEndian.AppendUint16(b, 10)
	b = binary.BigEndian.AppendUint16(b, method)
	return string(b) + args + "\xce"
}

// amqpText encodes a long string.
func amqpText(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }

var (
	amqpStart   = amqpFrame(10, "\x00\x09"+amqpText("\x07productS"+amqpText("a broker"))+amqpText("AMQPLAIN PLAIN")+amqpText("en_US"))
	amqpTune    = amqpFrame(30, "\x07\xff\x00\x02\x00\x00\x00\x3c")
	amqpRefused = amqpFrame(50, "\x01\x93\x0eACCESS_REFUSED\x00\x00\x00\x00")
	amqpNoVhost = amqpFrame(50, "\x02\x12\x0bNOT_ALLOWED\x00\x0a\x00\x28")
)

// amqpServer is a fake broker that handles logins. TestFakeAMQPServerWithDriver compares it with amqp091-go.
func amqpServer(conn net.Conn) {
	r := bufio.NewReader(conn)
	if head, err := readFull(r, 8); err != nil || string(head) != "AMQP\x00\x00\x09\x01" {
		return
	}
	// receive returns the arguments of the next method, false if it is another method.
	receive := func(method byte) (string, bool) {
		head, err := readFull(r, 7)
		if err != nil {
			return "", false
		}
		b, err := readFull(r, int(binary.BigEndian.Uint32(head[3:]))+1)
		if err != nil || head[0] != 1 || len(b) < 5 || b[3] != method {
			return "", false
		}
		return string(b[4 : len(b)-1]), true
	}
	say := func(frame string) { _, _ = conn.Write([]byte(frame)) }
	say(amqpStart)
	login, ok := receive(11)
	if !ok {
		return
	}
	if !strings.Contains(login, "\x05PLAIN"+amqpText("\x00operator\x00s3cret")) {
		say(amqpRefused)
		receive(51)
		return
	}
	say(amqpTune)
	if _, ok = receive(31); !ok {
		return
	}
	vhost, ok := receive(40)
	switch {
	case !ok:
	case !strings.HasPrefix(vhost, "\x01/"):
		say(amqpNoVhost)
		receive(51)
	default:
		say("\x08\x00\x00\x00\x00\x00\x00\xce") // a heartbeat, which is no answer
		say(amqpFrame(41, "\x00"))
		if _, ok := receive(50); ok {
			say(amqpFrame(51, ""))
		}
	}
}

// TestFakeAMQPServerWithDriver holds the fake broker to amqp091-go.
func TestFakeAMQPServerWithDriver(t *testing.T) {
	s := checktest.Serve(t, amqpServer)
	connect := func(password, vhost string) error {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		c, err := amqp.Open(conn, amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{Username: "operator", Password: password}}, Vhost: vhost, Heartbeat: time.Minute})
		if err != nil {
			return err
		}
		return c.Close()
	}
	if err := connect("s3cret", "/"); err != nil {
		t.Errorf("right: %v", err)
	}
	if err := connect("wr0ng", "/"); err == nil {
		t.Error("let in with a wrong password")
	}
	if err := connect("s3cret", "none"); err == nil {
		t.Error("let in to a virtual host that is none")
	}
}

func TestAMQPAnswers(t *testing.T) {
	// after sends one text for each message of the client, and closes.
	after := func(texts ...string) func(net.Conn) {
		return func(conn net.Conn) {
			b := make([]byte, 4<<10)
			for _, text := range texts {
				if _, err := conn.Read(b); err != nil {
					return
				}
				_, _ = conn.Write([]byte(text))
			}
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}
	early := "Connection closed early (waiting for an answer from ADDR)"
	belong := "a method that is wrong or does not belong here"
	not := "The answer of ADDR is not AMQP 0-9-1: "
	for name, c := range map[string]struct {
		server func(net.Conn)
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"refused":           {after(amqpStart, amqpRefused), 500, "AMQP error 403: ACCESS_REFUSED"},
		"repeats":           {after(amqpStart, amqpFrame(50, "\x01\x93\x10no \x00op\x00s3cret no\x00\x00\x00\x00")), 500, "AMQP error 403: (its words are not shown, the password may be among them)"},
		"repeats in base64": {after(amqpStart, amqpFrame(50, "\x01\x93\x08czNjcmV0\x00\x00\x00\x00")), 500, "AMQP error 403: (its words are not shown, the password may be among them)"},
		"another version":   {after("AMQP\x00\x01\x00\x00"), 503, not + "it wants version 1-0"},
		"almost":            {after("AMQX\x00\x01\x00\x00"), 503, not + `"AMQX"`},
		"no PLAIN":          {after(amqpFrame(10, "\x00\x09"+amqpText("")+amqpText("AMQPLAIN EXTERNAL")+amqpText("en_US"))), 503, not + "it does not offer the mechanism PLAIN"},
		"wrong start":       {after(amqpFrame(10, "\x00\x09\xff\xff\xff\xff")), 503, not + belong},
		"short tune":        {after(amqpStart, amqpFrame(30, "\x00")), 503, "Connection closed early (logging in to ADDR)"},
		"short close":       {after(amqpFrame(50, "\x00\x01\xff")), 503, early},
		"asks for more":     {after(amqpStart, amqpFrame(20, amqpText("?"))+amqpFrame(20, amqpText("?"))), 503, ""},
		"of another class":  {after("\x01\x00\x00\x00\x00\x00\x04\x00\x14\x00\x0a\xce"), 503, early},
		"on a channel":      {after("\x01\x00\x01\x00\x00\x00\x04\x00\x0a\x00\x0a\xce"), 503, not + "a frame on a channel that is not open"},
		"huge":              {after("\x01\x00\x00\x7f\xff\xff\xff"), 503, not + "a frame of 2147483647 bytes"},
		"without its end":   {after("\x01\x00\x00\x00\x00\x00\x00\x00"), 503, early},
		"empty":             {after("\x01\x00\x00\x00\x00\x00\x00\xce"), 503, early},
		"heartbeats alone":  {after(strings.Repeat("\x08\x00\x00\x00\x00\x00\x00\xce", 100)), 503, early},
		"a content frame":   {after("\x02\x00\x00\x00\x00\x00\x00"), 503, not + "a frame of type 0x02"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, c.server)
			r := configuredAt(t, "amqp", map[string]any{"username": "operator", "password": "s3cret", "use_tls": false})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || want != "" && string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
			if strings.Contains(r.Err.Error(), "s3cret") {
				t.Errorf("shows the password: %v", r.Err)
			}
		})
	}
}

func TestAMQPOptions(t *testing.T) {
	wantSteps(t, buildAt(t, check.Defaults{}, "amqp", "mq", 5671, "username", "u", "password", "p"), "tcp:AT", "tls:AT", "amqp:AT")
	wantSteps(t, buildAt(t, check.Defaults{}, "amqp", "mq", 5672, "username", "u", "password", "p", "use_tls", false), "tcp:AT", "amqp:AT")
	for useTLS, port := range map[bool]uint16{true: 5671, false: 5672} {
		c, err := check.Build(check.Spec{Type: "amqp", Options: map[string]any{"host": "mq", "username": "u", "password": "p", "use_tls": useTLS}}, check.Defaults{})
		if err != nil || c.Endpoint.Port != port {
			t.Errorf("use_tls %v: %+v %v", useTLS, c, err)
		}
	}
	wantOptionErrors(t, "amqp", map[string][]any{
		"password: is required: a password":  {"host", "mq", "username", "u"},
		"username: is required: a user name": {"host", "mq", "password", "s3cret"},
		"vhost: expected a virtual host":     {"host", "mq", "username", "u", "password", "s3cret", "vhost", strings.Repeat("v", 256)},
	})
}

// TestRabbitMQ logs in to RabbitMQ, and fails to log in in every way.
func TestRabbitMQ(t *testing.T) {
	a := newAuthority(t)
	s, tlsPort := servertest.RabbitMQ(t, issue(t, loopback(), a), a.cert)
	in, failed := "Logged in and closed in ", check.ReasonFailed
	user := func(pairs ...any) []any { return append([]any{"username", "operator", "password", "s3cret"}, pairs...) }
	cert, key := a.writeClientCertificate(t, "hacheck")
	secure := []any{"port", int(tlsPort), "cert_file", cert, "key_file", key}
	plain := []any{"use_tls", false}
	denied := "AMQP error 403: ACCESS_REFUSED"
	quiet := func(n int, port uint16, pairs ...any) {
		checktest.RunQuiet(t, net.JoinHostPort(servertest.Host, fmt.Sprint(port)), s.Log, n, func(host string, port uint16) check.Result {
			return buildAt(t, check.Defaults{}, "amqp", host, port, user(pairs...)...).Check(t.Context(), check.Target{})
		})
	}
	quiet(480, s.Port, plain...)
	quiet(20, tlsPort, "cert_file", cert, "key_file", key)
	tryLogins(t, check.Defaults{}, "amqp", s, map[string]loginCase{
		"plain":             {user(plain...), 200, 0, in},
		"TLS":               {user(secure...), 200, 0, in},
		"no such vhost":     {user("use_tls", false, "vhost", "none"), 500, failed, "AMQP error 530: NOT_ALLOWED - vhost none not found"},
		"another's vhost":   {user("use_tls", false, "vhost", "private"), 500, failed, "AMQP error 530: NOT_ALLOWED - access to vhost 'private' refused"},
		"TLS on plain port": {user(), 503, check.ReasonProtocol, s.Addr() + " does not speak TLS"},
		"plain on TLS port": {user("use_tls", false, "port", int(tlsPort)), 503, check.ReasonProtocol, ""},
		// RabbitMQ refuses a client without the capability authentication_failure_close after three seconds.
		"wrong password":      {[]any{"username", "operator", "password", "wr0ng", "use_tls", false, "timeout", 2}, 500, failed, denied},
		"wrong password, TLS": {append([]any{"username", "operator", "password", "wr0ng", "timeout", 2}, secure...), 500, failed, denied},
		"no certificate":      {user("port", int(tlsPort)), 503, check.ReasonProtocol, ""},
		"CA file":             {user(append([]any{"ca_file", writePEM(t, "CERTIFICATE", a.cert.Raw)}, secure...)...), 200, 0, in},
		"another name":        {user(append([]any{"server_name", "other.example", "disable_tls_verification", false}, secure...)...), 503, failed, "The certificate of "},
		"wrong user":          {[]any{"username", "nobody", "password", "s3cret", "use_tls", false, "timeout", 2}, 500, failed, denied},
	})
	verify := check.Defaults{Options: check.Options{TLSVerify: true, TLSRoots: a.pool()}}
	tryLogins(t, verify, "amqp", s, map[string]loginCase{"TLS, verified": {user(secure...), 200, 0, in}})

	t.Run("a client that does not understand the reason", func(t *testing.T) { rabbitLate(t, s.Addr()) })

	wantGone(t, check.Defaults{}, "amqp", s, user("use_tls", false)...)
	// The log is complete when the broker has ended.
	if log := s.Log(); strings.Contains(log, "client unexpectedly closed") || strings.Contains(log, "handshake_timeout") {
		t.Errorf("the broker complains of its clients:\n%s", tail(log))
	}
}

// rabbitLate logs in with a wrong password and without the capability authentication_failure_close. RabbitMQ then closes
// the connection after three seconds. The check has that capability, because it would report a timeout otherwise.
func rabbitLate(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	began := time.Now()
	// start-ok: no properties, PLAIN, the login, a locale
	login := amqpFrame(11, "\x00\x00\x00\x00\x05PLAIN"+amqpText("\x00operator\x00wr0ng")+"\x05en_US")
	if _, err := io.WriteString(conn, "AMQP\x00\x00\x09\x01"+login); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if took := time.Since(began); errors.Is(err, os.ErrDeadlineExceeded) || took < 2*time.Second || strings.Contains(string(answer), "ACCESS_REFUSED") {
		t.Errorf("%v after %v: %q; want a connection that is closed after 3 s, without a reason", err, took, answer)
	}
}

// TestAMQPLateRefusal: a broker refuses a wrong password late. The check reports a timeout if its timeout is shorter,
// else the refusal.
func TestAMQPLateRefusal(t *testing.T) {
	s := checktest.Serve(t, func(conn net.Conn) {
		b := make([]byte, 4<<10)
		_, _ = conn.Read(b)
		_, _ = conn.Write([]byte(amqpStart))
		if _, err := conn.Read(b); err != nil {
			return
		}
		// It answers late, or not at all if the client has disconnected before.
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(b); errors.Is(err, io.EOF) {
			return
		}
		_, _ = conn.Write([]byte(amqpRefused))
		_ = conn.SetReadDeadline(time.Time{})
		_, _ = conn.Read(b)
	})
	for timeout, want := range map[float64]struct {
		code   int
		reason check.Reason
		body   string
	}{
		0.2: {503, check.ReasonTimeout, "(logging in to " + s.Addr() + ")"},
		20:  {500, check.ReasonFailed, "AMQP error 403: ACCESS_REFUSED"},
	} {
		c := buildAt(t, check.Defaults{}, "amqp", s.Host, s.Port, "username", "operator", "password", "wr0ng", "use_tls", false, "timeout", timeout)
		if r := c.Check(t.Context(), check.Target{}); r.Code != want.code || r.Reason != want.reason || !strings.Contains(string(r.Body), want.body) {
			t.Errorf("timeout %v: %d %s %q, want %d %s %q", timeout, r.Code, r.Reason, r.Body, want.code, want.reason, want.body)
		}
	}
}

// TestAMQPCancelled: a login at a silent broker ends at once when it is cancelled, in every phase.
func TestAMQPCancelled(t *testing.T) {
	for name, said := range map[string]string{"nothing": "", "start": amqpStart, "tune": amqpStart + amqpTune, "open": amqpStart + amqpTune + amqpFrame(41, "\x00")} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := checktest.Serve(t, func(conn net.Conn) {
				_, _ = conn.Write([]byte(said))
				cancel()
			})
			r := configuredAt(t, "amqp", map[string]any{"username": "operator", "password": "s3cret", "use_tls": false})(ctx, check.Target{Host: s.Host, Port: s.Port})
			if r.Reason != check.ReasonCancelled {
				t.Errorf("%s %q", r.Reason, r.Body)
			}
		})
	}
}

func FuzzAMQPAnswer(f *testing.F) {
	f.Add([]byte(amqpStart + amqpRefused))
	f.Add([]byte(amqpStart + amqpTune + amqpNoVhost))
	fuzzConfigured(f, "amqp", map[string]any{"username": "operator", "password": "s3cret", "use_tls": false})
}
