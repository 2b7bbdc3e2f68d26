package check_test

import (
	"bytes"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// postgresServer is a fake PostgreSQL server that handles logins and answers every query with 1.
type postgresServer struct {
	method     string // "scram", "md5", "clear", "trust"
	unverified bool   // it accepts a login without knowing the password
	tls        *tls.Config
	password   string
}

// pgMessage returns a message of the server.
func pgMessage(kind byte, payload string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)+4)), payload...)
}

// pgAuth returns an authentication message.
func pgAuth(method uint32, data string) []byte {
	return pgMessage('R', string(binary.BigEndian.AppendUint32(nil, method))+data)
}

const pgDenied = "SFATAL\x00VFATAL\x00C28P01\x00Mpassword authentication failed for user \"operator\"\x00Fauth.c\x00\x00"

var pgReady = bytes.Join([][]byte{
	pgAuth(0, ""), pgMessage('S', "server_version\x0015.0\x00"), pgMessage('K', "\x00\x00\x00\x01\x00\x00\x00\x02"), pgMessage('Z', "I"),
}, nil)

func (s *postgresServer) serve(conn net.Conn) {
	startup := func() (string, bool) {
		head, err := readFull(conn, 4)
		if err != nil {
			return "", false
		}
		b, err := readFull(conn, int(binary.BigEndian.Uint32(head))-4)
		return string(b), err == nil
	}
	receive := func() (string, bool) {
		if kind, err := readFull(conn, 1); err != nil || kind[0] != 'p' {
			return "", false
		}
		return startup()
	}
	first, ok := startup()
	if !ok {
		return
	}
	if first == "\x04\xd2\x16\x2f" {
		if s.tls == nil {
			_, _ = conn.Write([]byte("N"))
		} else {
			_, _ = conn.Write([]byte("S"))
			conn = tls.Server(conn, s.tls)
		}
		if first, ok = startup(); !ok {
			return
		}
	}
	if !strings.HasPrefix(first, "\x00\x03\x00\x00") || !strings.Contains(first, "user\x00operator\x00") {
		_, _ = conn.Write(pgMessage('E', pgDenied))
		return
	}
	if !s.login(conn, receive) {
		_, _ = conn.Write(pgMessage('E', pgDenied))
		return
	}
	_, _ = conn.Write(pgReady)
	for {
		kind, err := readFull(conn, 1)
		if _, ok := startup(); err != nil || kind[0] != 'Q' || !ok {
			return
		}
		_, _ = conn.Write(pgRow("1"))
	}
}

// pgRow returns the answer to a query: one row of these columns.
func pgRow(columns ...string) []byte {
	description, row := binary.BigEndian.AppendUint16(nil, uint16(len(columns))), binary.BigEndian.AppendUint16(nil, uint16(len(columns)))
	for _, c := range columns {
		description = append(description, "c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"...)
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(c))), c...)
	}
	return bytes.Join([][]byte{
		pgMessage('T', string(description)), pgMessage('D', string(row)), pgMessage('C', "SELECT 1\x00"), pgMessage('Z', "I"),
	}, nil)
}

func (s *postgresServer) login(conn net.Conn, receive func() (string, bool)) bool {
	switch s.method {
	case "clear":
		_, _ = conn.Write(pgAuth(3, ""))
		answer, ok := receive()
		return ok && answer == s.password+"\x00"
	case "md5":
		_, _ = conn.Write(pgAuth(5, "salt"))
		sum := func(text string) string { h := md5.Sum([]byte(text)); return hex.EncodeToString(h[:]) }
		answer, ok := receive()
		return ok && answer == "md5"+sum(sum(s.password+"operator")+"salt")+"\x00"
	case "scram":
		scram := &scramServer{hash: sha256Hash, password: s.password, unverified: s.unverified}
		_, _ = conn.Write(pgAuth(10, "SCRAM-SHA-256\x00\x00"))
		answer, ok := receive()
		if name, first, found := strings.Cut(answer, "\x00"); !ok || !found || name != "SCRAM-SHA-256" || len(first) < 4 {
			return false
		} else if answer, ok = scram.first(first[4:]); !ok {
			return false
		}
		_, _ = conn.Write(pgAuth(11, answer))
		if answer, ok = receive(); !ok {
			return false
		}
		if answer, ok = scram.final(answer); !ok {
			return false
		}
		_, _ = conn.Write(pgAuth(12, answer))
	}
	return true
}

func postgresServers(t testing.TB) map[string]*postgresServer {
	t.Helper()
	secure := &tls.Config{Certificates: []tls.Certificate{issue(t, loopback(), nil)}}
	return map[string]*postgresServer{
		"scram":           {method: "scram", password: "s3cret"},
		"md5":             {method: "md5", password: "s3cret"},
		"scram over TLS":  {method: "scram", password: "s3cret", tls: secure},
		"clear over TLS":  {method: "clear", password: "s3cret", tls: secure},
		"other alphabets": {method: "scram", password: "pässwörd"},
	}
}

func TestPostgresLogins(t *testing.T) {
	for name, p := range postgresServers(t) {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, p.serve)
			r := buildAt(t, check.Defaults{}, "postgres", s.Host, s.Port, "username", "operator", "password", p.password).Check(t.Context(), check.Target{})
			if r.Code != 200 || !strings.HasPrefix(string(r.Body), "Logged in and quit in ") {
				t.Errorf("right: %d %s %v", r.Code, r.Body, r.Err)
			}
			for _, wrong := range [][]any{{"username", "operator", "password", "wr0ng"}, {"username", "nobody", "password", p.password}} {
				r = buildAt(t, check.Defaults{}, "postgres", s.Host, s.Port, wrong...).Check(t.Context(), check.Target{})
				if want := `PostgreSQL error 28P01: password authentication failed for user "operator"`; r.Code != 500 || r.Reason != check.ReasonFailed || string(r.Body) != want {
					t.Errorf("wrong: %d %s %q, want %q", r.Code, r.Reason, r.Body, want)
				}
			}
		})
	}
}

func TestPostgresAnswers(t *testing.T) {
	// after answers N to the request for TLS, then one text to each message of the client.
	after := func(texts ...string) func(net.Conn) {
		return func(conn net.Conn) {
			b := make([]byte, 4<<10)
			for _, text := range append([]string{"N"}, texts...) {
				if _, err := conn.Read(b); err != nil {
					return
				}
				_, _ = conn.Write([]byte(text))
			}
		}
	}
	sasl := string(pgAuth(10, "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"))
	not := "The answer of ADDR is not PostgreSQL: "
	for name, c := range map[string]struct {
		server func(net.Conn)
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"error before TLS":         {func(conn net.Conn) { _, _ = conn.Write([]byte("EFATAL:  s3cret\x00")) }, 500, "ADDR answers the wish for TLS with an error"},
		"starting up":              {after(string(pgMessage('E', "C57P03\x00Mthe database system is\x1b starting up\x00\x00"))), 500, "PostgreSQL error 57P03: the database system is  starting up"},
		"error without fields":     {after(string(pgMessage('E', "\x00"))), 500, "PostgreSQL error witho...: "},
		"password in clear":        {after(string(pgAuth(3, ""))), 503, "ADDR wants the password in clear, and the connection has no TLS: let it offer TLS, or ask for scram-sha-256 in pg_hba.conf"},
		"Kerberos":                 {after(string(pgAuth(7, ""))), 503, "ADDR wants a login by a method that hacheck does not know: ask for scram-sha-256 in pg_hba.conf"},
		"unknown SASL":             {after(string(pgAuth(10, "TOMORROW\x00\x00"))), 503, "ADDR wants a login by a method that hacheck does not know: ask for scram-sha-256 in pg_hba.conf"},
		"unknown method":           {after(string(pgAuth(99, ""))), 503, not + "unknown authentication type: 99"},
		"SASL twice":               {after(sasl, sasl), 503, not + "expected AuthenticationSASLContinue message but received unexpected message *pgproto3.AuthenticationSASL"},
		"SASL without the end":     {after(sasl, string(pgReady)), 500, "ADDR lets us in, but it does not prove that it knows the password"},
		"SASL, end at once":        {after(sasl, string(pgAuth(12, "v=AAAA"))), 500, "ADDR lets us in, but it does not prove that it knows the password"},
		"SASL nonce of another":    {after(sasl, string(pgAuth(11, "r=x,s=AAAA,i=4096"))), 503, not + "invalid SCRAM nonce: did not start with client nonce"},
		"short salt":               {after(string(pgAuth(5, "sal"))), 503, not + "bad authentication message size"},
		"ready without a login":    {after(string(pgMessage('Z', "I"))), 503, not + "received ReadyForQuery before AuthenticationOk"},
		"unknown message":          {after("Q\x00\x00\x00\x04"), 503, not + "unknown message type: Q"},
		"huge":                     {after("R\x7f\xff\xff\xff"), 503, not + "a message of 2147483647 bytes"},
		"tiny":                     {after("R\x00\x00\x00\x03"), 503, not + "invalid message length: 3"},
		"endless notices":          {after(strings.Repeat(string(pgMessage('N', "\x00")), 200_000)), 503, "More than 1048576 bytes (logging in to ADDR): a check reads no more"},
		"state of another shape":   {after(string(pgReady), string(pgRow("1"))), 503, not + "1 rows where the state of the server has to be"},
		"neither with nor without": {func(conn net.Conn) { _, _ = conn.Write([]byte("?")) }, 503, not + `"?" where S or N has to be`},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, c.server)
			r := configuredAt(t, "postgres", map[string]any{"username": "operator", "password": "s3cret", "role": "primary"})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
		})
	}
}

// TestPostgresOddAnswer: a server that answers SELECT 1 in another way than with 1 is not healthy.
func TestPostgresOddAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		code   int
	}{
		"1":           {pgRow("1"), 200},
		"2":           {pgRow("2"), 503},
		"two columns": {pgRow("1", "1"), 503},
		"no row":      {slices.Concat(pgMessage('C', "SELECT 0\x00"), pgMessage('Z', "I")), 503},
		"nothing":     {slices.Concat(pgMessage('I', ""), pgMessage('Z', "I")), 503},
	} {
		s := checktest.Serve(t, func(conn net.Conn) {
			b := make([]byte, 4<<10)
			for _, answer := range [][]byte{[]byte("N"), pgReady, c.answer} {
				if _, err := conn.Read(b); err != nil {
					return
				}
				_, _ = conn.Write(answer)
			}
		})
		r := configuredAt(t, "postgres", map[string]any{"username": "operator"})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
		if want := "The answer of " + s.Addr() + " is not PostgreSQL: another answer to SELECT 1 than 1"; r.Code != c.code || c.code != 200 && string(r.Body) != want {
			t.Errorf("%s: %d %q", name, r.Code, r.Body)
		}
	}
}

// TestPostgresUnverifiedServer: a server that does not know the password, a man in the middle, is not healthy.
func TestPostgresUnverifiedServer(t *testing.T) {
	p := &postgresServer{method: "scram", password: "another", unverified: true}
	s := checktest.Serve(t, p.serve)
	r := configuredAt(t, "postgres", map[string]any{"username": "operator", "password": "s3cret"})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
	if r.Code != 500 || !strings.HasSuffix(string(r.Body), "it does not prove that it knows the password") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}

// TestPostgresHashing: the driver refuses a count of iterations that would take minutes.
func TestPostgresHashing(t *testing.T) {
	s := checktest.Serve(t, func(conn net.Conn) {
		b := make([]byte, 4<<10)
		_, _ = conn.Read(b)
		_, _ = conn.Write([]byte("N"))
		_, _ = conn.Read(b)
		_, _ = conn.Write(pgAuth(10, "SCRAM-SHA-256\x00\x00"))
		n, _ := conn.Read(b)
		_, nonce, _ := strings.Cut(string(b[:n]), ",r=")
		_, _ = conn.Write(pgAuth(11, "r="+nonce+"x,s=AAAA,i=2147483647"))
	})
	r := buildAt(t, check.Defaults{}, "postgres", s.Host, s.Port, "username", "operator", "password", "s3cret").Check(t.Context(), check.Target{})
	if r.Reason != check.ReasonProtocol || r.Took > 5*time.Second {
		t.Errorf("%d %s %q after %v", r.Code, r.Reason, r.Body, r.Took)
	}
}

func TestPostgresOptions(t *testing.T) {
	// The daemon's user may have set these variables.
	for name, value := range map[string]string{"PGUSER": "other", "PGPASSWORD": "other", "PGDATABASE": "other", "PGSERVICE": "none", "PGSSLMODE": "verify-full", "PGPORT": "1"} {
		t.Setenv(name, value)
	}
	c := buildAt(t, check.Defaults{}, "postgresql", "db.example", 5432, "username", "operator", "database", "shop")
	wantSteps(t, c, "tcp:AT", "postgres:AT")
	if c.Type != "postgres" || c.Name != "postgres:db.example:5432" || c.Timeout != 10*time.Second || c.Endpoint != (check.Endpoint{Network: "tcp", Host: "db.example", Port: 5432}) {
		t.Errorf("%+v", c)
	}
	c, err := check.Build(check.Spec{Type: "postgres", Options: map[string]any{"host": "/var/run/postgresql", "username": "operator"}}, check.Defaults{})
	if err != nil || len(c.Steps) != 1 || c.Steps[0].Name != "postgres:/var/run/postgresql:5432" || c.Endpoint != (check.Endpoint{}) {
		t.Errorf("Unix socket: %+v %v", c, err)
	}
	wantOptionErrors(t, "postgres", map[string][]any{
		"username: is required":               {"host", "db"},
		"host: is required":                   {"username", "operator"},
		"host: expected":                      {"host", "a b", "username", "operator"},
		"username: expected a user name":      {"host", "db", "username", "a\x00b"},
		"database: expected a database":       {"host", "db", "username", "a", "database", "a\nb"},
		"password: expected a password":       {"host", "db", "username", "a", "password", "s3cret\x00"},
		"port: expected a port from 1":        {"host", "db", "username", "a", "port", 0},
		"use_tls: expected true, false or pr": {"host", "db", "username", "a", "use_tls", "require"},
		"cert_file: cert_file and key_file n": {"host", "db", "username", "a", "cert_file", "x"},
		"role: no such role":                  {"host", "db", "username", "a", "role", "leader"},
		"lag of the role replica: expected":   {"host", "db", "username", "a", "role", "replica", "lag", "10"},
		"no such parameter":                   {"host", "db", "username", "a", "role", "primary", "lag", "10s"},
		"expect: needs query":                 {"host", "db", "username", "a", "expect", "x"},
		"host: expected an IP address, a hos": {"host", "/" + strings.Repeat("x", 95), "username", "a"},
		"expect: expected a text":             {"host", "db", "username", "a", "query", "SELECT 1", "expect", []any{}},
		"password: expected a password witho": {"host", "db", "username", "a", "password", []any{"s3cret"}},
	})
}

// TestPostgres logs in to PostgreSQL by both password methods, with and without TLS, over TCP and a Unix socket.
func TestPostgres(t *testing.T) {
	a := newAuthority(t)
	certificate := issue(t, loopback(), a)
	certificate.Certificate = append(certificate.Certificate, a.cert.Raw)
	client := writeClientCertificate(t, issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "cert"}}, a))
	s := servertest.Postgres(t, `
SET password_encryption = 'scram-sha-256';
CREATE ROLE modern LOGIN PASSWORD 's3cret';
CREATE ROLE accents LOGIN PASSWORD U&'p\00e4ssw\00f6rd\2168';
CREATE ROLE plain LOGIN PASSWORD 's3cret';
CREATE ROLE inclear LOGIN PASSWORD 's3cret';
CREATE ROLE risky LOGIN PASSWORD 's3cret';
CREATE ROLE cert LOGIN;
CREATE ROLE encrypted LOGIN PASSWORD 's3cret';
SET password_encryption = 'md5';
CREATE ROLE old LOGIN PASSWORD 's3cret';
CREATE ROLE free LOGIN;
CREATE ROLE stranger LOGIN PASSWORD 's3cret';
CREATE DATABASE shop;
`, `
local     all free      trust
local     all all       scram-sha-256
host      all old       127.0.0.1/32 md5
hostnossl all encrypted 127.0.0.1/32 reject
hostssl   all plain     127.0.0.1/32 password
host      all free      127.0.0.1/32 trust
host      all stranger  127.0.0.1/32 reject
hostnossl all inclear   127.0.0.1/32 scram-sha-256
hostssl   all inclear   127.0.0.1/32 reject
hostnossl all risky     127.0.0.1/32 password
hostssl   all risky     127.0.0.1/32 reject
hostssl   all cert      127.0.0.1/32 cert
host      all all       127.0.0.1/32 scram-sha-256
`, &certificate, "ssl_ca_file=../cert.pem")
	in := "Logged in and quit in "
	failed := check.ReasonFailed
	denied := func(user string) string {
		return fmt.Sprintf("PostgreSQL error 28P01: password authentication failed for user %q", user)
	}
	right := []any{"username", "modern", "password", "s3cret", "database", "shop"}
	quiet := func(n int, pairs ...any) {
		checktest.RunQuiet(t, s.Addr(), s.Log, n, func(host string, port uint16) check.Result {
			return buildAt(t, check.Defaults{}, "postgres", host, port, pairs...).Check(t.Context(), check.Target{})
		})
	}
	quiet(20, right...)
	quiet(480, "username", "free", "database", "shop", "use_tls", false)
	tryLogins(t, check.Defaults{}, "postgres", s, map[string]loginCase{
		"scram":                {[]any{"username", "modern", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"normalized":           {[]any{"username", "accents", "password", "pa\u0308sswo\u0308rdIX", "database", "shop"}, 200, 0, in},
		"md5":                  {[]any{"username", "old", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"TLS alone":            {[]any{"username", "encrypted", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"in clear over TLS":    {[]any{"username", "plain", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"no password":          {[]any{"username", "free", "database", "shop"}, 200, 0, in},
		"by name":              {[]any{"host", "localhost", "username", "modern", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"Unix socket":          {[]any{"host", s.Dir, "username", "modern", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"Unix socket, free":    {[]any{"host", s.Dir, "username", "free", "database", "shop"}, 200, 0, in},
		"Unix socket, wrong":   {[]any{"host", s.Dir, "username", "modern", "password", "wr0ng", "database", "shop"}, 500, failed, denied("modern")},
		"Unix socket, nobody":  {[]any{"host", filepath.Join(s.Dir, "none"), "username", "modern"}, 503, check.ReasonRefused, "Cannot connect to " + s.Dir + "/none/.s.PGSQL."},
		"wrong password":       {[]any{"username", "modern", "password", "wr0ng", "database", "shop"}, 500, failed, denied("modern")},
		"wrong md5 password":   {[]any{"username", "old", "password", "wr0ng", "database", "shop"}, 500, failed, denied("old")},
		"wrong clear one":      {[]any{"username", "plain", "password", "wr0ng", "database", "shop"}, 500, failed, denied("plain")},
		"wrong user":           {[]any{"username", "nobody", "password", "s3cret", "database", "shop"}, 500, failed, denied("nobody")},
		"no such database":     {[]any{"username", "modern", "password", "s3cret", "database", "none"}, 500, failed, `PostgreSQL error 3D000: database "none" does not exist`},
		"user's own database":  {[]any{"username", "modern", "password", "s3cret"}, 500, failed, `PostgreSQL error 3D000: database "modern" does not exist`},
		"rules refuse TLS":     {[]any{"username", "inclear", "password", "s3cret", "database", "shop"}, 200, 0, in},
		"TLS off":              {[]any{"username", "modern", "password", "s3cret", "database", "shop", "use_tls", false}, 200, 0, in},
		"TLS on":               {[]any{"username", "modern", "password", "s3cret", "database", "shop", "use_tls", true}, 200, 0, in},
		"TLS off, wanted":      {[]any{"username", "encrypted", "password", "s3cret", "database", "shop", "use_tls", false}, 500, failed, "PostgreSQL error 28000: pg_hba.conf rejects connection"},
		"never in clear":       {[]any{"username", "risky", "password", "s3cret", "database", "shop", "use_tls", false}, 503, failed, s.Addr() + " wants the password in clear"},
		"nor by prefer":        {[]any{"username", "risky", "password", "s3cret", "database", "shop"}, 503, failed, "PostgreSQL error 28000: pg_hba.conf rejects connection"},
		"client certificate":   {append([]any{"username", "cert", "database", "shop"}, client...), 200, 0, in},
		"no certificate":       {[]any{"username", "cert", "database", "shop"}, 500, failed, "PostgreSQL error 28000: connection requires a valid client certificate"},
		"query":                {[]any{"username", "free", "database", "shop", "query", "SELECT current_database()", "expect", "shop"}, 200, 0, in},
		"query without expect": {[]any{"username", "free", "database", "shop", "query", "CREATE TEMP TABLE x (); SELECT * FROM x"}, 200, 0, in},
		"query, other answer":  {[]any{"username", "free", "database", "shop", "query", "SELECT 7 AS n, 8 AS m", "expect", 8}, 503, failed, "the query returns 7; 8 wanted"},
		"query, NULL":          {[]any{"username", "free", "database", "shop", "query", "SELECT NULL", "expect", ""}, 503, failed, "the query returns NULL"},
		"query, no row":        {[]any{"username", "free", "database", "shop", "query", "SELECT 1 WHERE false", "expect", "1"}, 503, failed, "the query returns no row; 1 wanted"},
		"query fails":          {[]any{"username", "free", "database", "shop", "query", "SELECT * FROM none"}, 500, failed, `PostgreSQL error 42P01: relation "none" does not exist`},
		"query shows":          {[]any{"username", "modern", "password", "s3cret", "database", "shop", "query", "SELECT 's3' || 'cret'", "expect", "x"}, 503, failed, "(its words are not shown"},
		"rejected":             {[]any{"username", "stranger", "password", "s3cret", "database", "shop"}, 500, failed, "PostgreSQL error 28000: pg_hba.conf rejects connection"},
	})
	verify := check.Defaults{Options: check.Options{TLSVerify: true, TLSRoots: a.pool()}}
	if r := buildAt(t, verify, "postgres", servertest.Host, s.Port, right...).Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("verified: %d %s", r.Code, r.Body)
	}
	verify.TLSRoots = newAuthority(t).pool()
	if r := buildAt(t, verify, "postgres", servertest.Host, s.Port, right...).Check(t.Context(), check.Target{}); r.Code != 503 || !strings.Contains(string(r.Body), "certificate") {
		t.Errorf("certificate of another authority: %d %s", r.Code, r.Body)
	}
	wantGone(t, check.Defaults{}, "postgres", s, right...)
	// The log is complete when the server has ended.
	for _, complaint := range []string{"could not receive", "unexpected EOF", "invalid length", "unsupported"} {
		if log := s.Log(); strings.Contains(log, complaint) {
			t.Errorf("the server complains of its clients:\n%s", tail(log))
		}
	}
}

// TestPostgresHandshake: where the handshake fails, the check logs in without TLS, as libpq does, unless use_tls is true.
// Go has no cipher of this server.
func TestPostgresHandshake(t *testing.T) {
	certificate := issue(t, loopback(), nil)
	s := servertest.Postgres(t, "CREATE ROLE free LOGIN;", "host all free 127.0.0.1/32 trust\n", &certificate,
		"ssl_max_protocol_version=TLSv1.2", "ssl_ciphers=DHE-RSA-AES128-SHA")
	tryLogins(t, check.Defaults{}, "postgres", s, map[string]loginCase{
		"prefer":             {[]any{"username", "free", "database", "postgres"}, 200, 0, "Logged in and quit in "},
		"query, too much":    {[]any{"username", "free", "database", "postgres", "use_tls", false, "query", "SELECT repeat('x', 1000) FROM generate_series(1, 3000)"}, 503, check.ReasonProtocol, "More than 1048576 bytes (waiting for the answer to a query from "},
		"query, huge answer": {[]any{"username", "free", "database", "postgres", "use_tls", false, "query", "SELECT repeat('x', 100000)"}, 503, check.ReasonProtocol, "A message of 100006 bytes (waiting for the answer to a query from "},
		"true":               {[]any{"username", "free", "database", "postgres", "use_tls", true}, 503, check.ReasonProtocol, "The TLS handshake with " + s.Addr() + " failed"},
	})
}

// TestPgBouncer: a pooler lets its users in although its server is stopped.
func TestPgBouncer(t *testing.T) {
	s := servertest.Postgres(t, "CREATE ROLE shop LOGIN PASSWORD 's3cret';", "host all shop 127.0.0.1/32 scram-sha-256\n", nil)
	b := servertest.PgBouncer(t, s, `"shop" "s3cret"`, "query_wait_timeout = 2\nadmin_users = shop")
	login := []any{"username", "shop", "password", "s3cret", "database", "postgres"}
	tryLogins(t, check.Defaults{}, "postgres", b, map[string]loginCase{
		"server runs": {login, 200, 0, "Logged in and quit in "},
		"primary":     {append(slices.Clone(login), "role", "primary"), 200, 0, "primary; logged in and quit in "},
		"console":     {[]any{"username", "shop", "password", "s3cret", "database", "pgbouncer", "query", "SHOW VERSION"}, 200, 0, "Logged in and quit in "},
	})
	s.Stop()
	r := buildAt(t, check.Defaults{}, "postgres", servertest.Host, b.Port, login...).Check(t.Context(), check.Target{})
	if r.Code == 200 || r.Reason == check.ReasonAnswered {
		t.Errorf("server stopped: %d %s", r.Code, r.Body)
	}
}

// writeClientCertificate writes a certificate and its key to files, and returns the options cert_file and key_file.
func writeClientCertificate(t *testing.T, c tls.Certificate) []any {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := []any{"cert_file", filepath.Join(t.TempDir(), "cert.pem"), "key_file", filepath.Join(t.TempDir(), "key.pem")}
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: c.Certificate[0]}, {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(files[2*i+1].(string), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func FuzzPostgresAnswer(f *testing.F) {
	f.Add([]byte("N" + string(pgMessage('E', pgDenied))))
	f.Add([]byte("N" + string(pgAuth(5, "salt"))))
	f.Add([]byte("N" + string(pgReady) + string(pgRow("t", "t", "t", "t", "1", "0.1", "60", "1", "1", "0.1", "f"))))
	f.Add([]byte("N" + string(pgAuth(10, "SCRAM-SHA-256\x00\x00")) + string(pgAuth(11, "r=x,s=AAAA,i=1"))))

	fuzzConfigured(f, "postgres", map[string]any{"username": "operator", "password": "s3cret", "database": "shop", "role": "primary"})
}
