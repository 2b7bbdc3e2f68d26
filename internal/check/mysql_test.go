package check_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

func TestMySQLLogins(t *testing.T) {
	for name, m := range mysqlServers(t) {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, m.serve)
			target := check.Target{Protocol: "mysql", Host: s.Host, Port: s.Port}
			r := ask(t, check.Options{MySQLUsername: "operator", MySQLPassword: check.Secret(m.password)}, target)
			if r.Code != 200 || !strings.HasPrefix(string(r.Body), "Logged in and quit in ") {
				t.Errorf("right: %d %s %s", r.Code, r.Body, r.Err)
			}
			r = ask(t, check.Options{MySQLUsername: "operator", MySQLPassword: "wr0ng"}, target)
			if want := "MySQL error 1045: Access denied for user 'operator'@'localhost' (using password: YES)"; r.Code != 500 || r.Reason != check.ReasonFailed || string(r.Body) != want {
				t.Errorf("wrong: %d %s %s", r.Code, r.Reason, r.Body)
			}
			if strings.Contains(fmt.Sprint(r.Err), "wr0ng") {
				t.Errorf("shows the password: %v", r.Err)
			}
			eventually(t, "a login that ended with COM_QUIT", func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return m.quits == 1
			})
		})
	}
}

// eventually waits at most 10 s until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, again := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Errorf("no %s", what)
			return
		case <-again.C:
		}
	}
}

func TestMySQLAnswers(t *testing.T) {
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(ecKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	notRSA := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	// after sends a greeting, then one packet for each packet of the client.
	after := func(packets ...string) func(net.Conn) {
		return func(conn net.Conn) {
			w := &mysqlWire{Conn: conn}
			w.send(greeting("8.4.0", "caching_sha2_password"))
			for _, p := range packets {
				if _, err := w.receive(); err != nil {
					return
				}
				w.send([]byte(p))
			}
		}
	}
	raw := func(bytes string) func(net.Conn) {
		return func(conn net.Conn) { _, _ = io.WriteString(conn, bytes) }
	}
	short := string(greeting("8.4.0", "")[:40])
	const zero20 = "\x00" + nonce + "\x00"
	// query sends an OK for the login, and then an answer to the first query.
	query := func(answer string) func(net.Conn) {
		return func(conn net.Conn) {
			w := &mysqlWire{Conn: conn}
			w.send(greeting("8.4.0", "caching_sha2_password"))
			for _, p := range []string{string(mysqlOK), answer} {
				if _, err := w.receive(); err != nil {
					return
				}
				w.send([]byte(p))
				w.sequence = 0
			}
		}
	}
	for name, c := range map[string]struct {
		server func(net.Conn)
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"too many":             {raw("\x19\x00\x00\x00\xff\x10\x04Too many connections\x1b\x00"), 500, "MySQL error 1040: Too many connections"},
		"blocked":              {raw("\x0b\x00\x00\x01\xff\x69\x04Host 'x'"), 500, "MySQL error 1129: Host 'x'; end the failed connections and run FLUSH HOSTS"},
		"error without number": {raw("\x01\x00\x00\x00\xff"), 503, "The answer of ADDR is not MySQL: an error without a number"},
		"empty packet":         {raw("\x00\x00\x00\x00\x00"), 503, "The answer of ADDR is not MySQL: an empty packet"},
		"huge packet":          {raw("\xff\xff\xff\x00\x0a"), 503, "The answer of ADDR is not MySQL: a packet of 16777215 bytes"},
		"out of turn":          {raw("\x02\x00\x00\x05\x0a5"), 503, "The answer of ADDR is not MySQL: a packet out of turn"},
		"version 9":            {raw("\x01\x00\x00\x00\x09"), 503, "The answer of ADDR is not MySQL: a greeting of version 9"},
		"one byte":             {raw("\x01\x00\x00\x00\x0a"), 503, "The answer of ADDR is not MySQL: a greeting that is too short"},
		"short greeting":       {raw(string([]byte{byte(len(short)), 0, 0, 0}) + short), 503, "The answer of ADDR is not MySQL: a greeting that is too short"},
		"old password":         {after("\xfe"), 503, "The answer of ADDR is not MySQL: it wants an authentication method that is not known here: mysql_old_password"},
		"password in clear":    {after("\xfemysql_clear_password\x00"), 503, "The answer of ADDR is not MySQL: it wants the password in clear (mysql_clear_password)"},
		"PAM":                  {after("\xfedialog\x00Password: "), 503, "The answer of ADDR is not MySQL: it wants the password in clear (dialog)"},
		"unknown method":       {after("\xfeno\x1bsuch\x00"), 503, "The answer of ADDR is not MySQL: it wants an authentication method that is not known here: no such"},
		"endless switches":     {after("\xfemysql_native_password"+zero20, "\xfemysql_native_password"+zero20, "\xfemysql_native_password"+zero20, "\xfemysql_native_password"+zero20, "\xfemysql_native_password"+zero20, "\xfemysql_native_password"+zero20), 503, "The answer of ADDR is not MySQL: more than 5 authentication methods one after the other"},
		"endless more":         {after("\x01\x04", "\x01\x04", "\x01\x04", "\x01\x04"), 503, "The answer of ADDR is not MySQL: no pem data found, data:"},
		"error without a text": {raw("\x03\x00\x00\x00\xff\x10\x04"), 503, "The answer of ADDR is not MySQL: an error without a number"},
		"short OK":             {after("\x00\x00"), 503, "The answer of ADDR is not MySQL: an OK that is too short"},
		"more data, then OK":   {after("\xfemysql_native_password"+zero20, "\x01"), 503, "The answer of ADDR is not MySQL: more data than the method has"},
		"file for a query":     {query("\xfb/etc/passwd"), 503, "The answer of ADDR is not MySQL: a request for a file"},
		"2^40 columns":         {query("\xfe\x00\x00\x00\x00\x00\x01\x00\x00"), 503, "The answer of ADDR is not MySQL: a result of too many columns"},
		"65535 columns":        {query("\xfc\xff\xff"), 503, "The answer of ADDR is not MySQL: a result of too many columns"},
		"OK for a question":    {query(string(mysqlOK)), 503, "The answer of ADDR is not MySQL: no variables"},
		"password expired":     {query(string(mysqlErr(1820, "#HY000You must SET PASSWORD"))), 500, "MySQL error 1820: You must SET PASSWORD; the password of operator has expired: ALTER USER ... PASSWORD EXPIRE NEVER, or set a new one"},
		"asks for a file":      {after("\xfb/etc/passwd"), 503, "The answer of ADDR is not MySQL: a packet of type 0xfb in a login"},
		"no key":               {after("\x01\x04", "\x01no key"), 503, "The answer of ADDR is not MySQL: an invalid public key"},
		"empty more":           {after("\x01"), 503, "The answer of ADDR is not MySQL: an invalid public key"},
		"key that is not RSA":  {after("\x01\x04", "\x01"+notRSA), 503, "The answer of ADDR is not MySQL: a key that is not RSA"},
		"short sha2 nonce":     {after("\xfecaching_sha2_password\x00"), 503, "The answer of ADDR is not MySQL: a nonce of the wrong length"},
		"short ed25519 nonce":  {after("\xfeclient_ed25519\x00short"), 503, "The answer of ADDR is not MySQL: a nonce of the wrong length"},
		"more than native has": {after("\xfemysql_native_password"+zero20, "\x01x"), 503, "The answer of ADDR is not MySQL: more data than the method has"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, c.server)
			r := ask(t, check.Options{MySQLUsername: "operator", MySQLPassword: "s3cret"}, check.Target{Protocol: "mysql", Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
		})
	}
}

func TestMySQLWithoutCredentials(t *testing.T) {
	s := checktest.Serve(t, func(net.Conn) {})
	r := ask(t, check.Options{}, check.Target{Protocol: "mysql", Host: s.Host, Port: s.Port})
	if want := "No MySQL username/password in config file (mysql_username, mysql_password)"; r.Code != 500 || r.Reason != check.ReasonConfig || string(r.Body) != want {
		t.Errorf("%d %s %q", r.Code, r.Reason, r.Body)
	}
	if s.Settled(t) != 0 {
		t.Error("connected all the same")
	}
}

// TestMariaDB logs in to MariaDB by two methods. The check must not appear in the server's counters of attacks and broken
// clients.
func TestMariaDB(t *testing.T) {
	s := servertest.MariaDB(t, `
INSTALL SONAME 'auth_ed25519';
CREATE USER native@'%' IDENTIFIED BY 's3cret';
CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('s3cret');
CREATE USER either@'%' IDENTIFIED VIA ed25519 USING PASSWORD('other') OR mysql_native_password USING PASSWORD('s3cret');
CREATE USER free@'%';
CREATE DATABASE shop;
GRANT ALL ON shop.* TO native@'%';
`)
	target := check.Target{Protocol: "mysql", Host: servertest.Host, Port: s.Port}
	counters := func() string { return s.SQL(t, "SHOW GLOBAL STATUS LIKE 'Aborted%'") }
	// The server counts an aborted connection when it ends, so the test waits for the end of all connections.
	onlyOurs := func() {
		t.Helper()
		eventually(t, "end of all connections but the one that asks", func() bool {
			return strings.HasSuffix(s.SQL(t, "SHOW GLOBAL STATUS LIKE 'Threads_connected'"), "\t1")
		})
	}
	onlyOurs()
	before := counters()
	if !regexp.MustCompile(`^(Aborted\S*\t0\n?)+$`).MatchString(before) {
		t.Errorf("before any check the server has counted\n%s", before)
	}
	for _, user := range []string{"native", "modern", "either", "free"} {
		password := check.Secret("s3cret")
		if user == "free" {
			password = ""
		}
		if r := ask(t, check.Options{MySQLUsername: user, MySQLPassword: password}, target); r.Code != 200 {
			t.Errorf("%s: %d %s %v", user, r.Code, r.Body, r.Err)
		}
	}
	onlyOurs()
	if after := counters(); after != before {
		t.Errorf("healthy checks went from\n%s\nto\n%s", before, after)
	}
	for user, want := range map[string]string{
		"native": "MySQL error 1045: Access denied for user 'native'@'127.0.0.1' (using password: YES)",
		"modern": "MySQL error 1045: Access denied for user 'modern'@'127.0.0.1' (using password: YES)",
		"either": "MySQL error 1045: Access denied for user 'either'@'127.0.0.1' (using password: YES)",
		"nobody": "MySQL error 1045: Access denied for user 'nobody'@'127.0.0.1' (using password: YES)",
	} {
		r := ask(t, check.Options{MySQLUsername: user, MySQLPassword: "wr0ng"}, target)
		if r.Code != 500 || r.Reason != check.ReasonFailed || string(r.Body) != want {
			t.Errorf("%s: %d %s %q, want %q", user, r.Code, r.Reason, r.Body, want)
		}
	}
	r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: servertest.Host, Port: s.Port, URI: "/"})
	if r.Code != 503 || r.Reason != check.ReasonProtocol {
		t.Errorf("http asks MariaDB: %d %s %q", r.Code, r.Reason, r.Body)
	}

	// The configured check can name a database.
	failed := check.ReasonFailed
	tryLogins(t, check.Defaults{}, "mysql", s, map[string]loginCase{
		"no database":                         {[]any{"username", "modern", "password", "s3cret"}, 200, 0, "Logged in and quit in "},
		"database":                            {[]any{"username", "native", "password", "s3cret", "database", "shop"}, 200, 0, "Logged in and quit in "},
		"no password":                         {[]any{"username", "free"}, 200, 0, "Logged in and quit in "},
		"no such database":                    {[]any{"username", "native", "password", "s3cret", "database", "none"}, 500, failed, "MySQL error 1044: Access denied for user 'native'@'%' to database 'none'"},
		"another's database":                  {[]any{"username", "modern", "password", "s3cret", "database", "shop"}, 500, failed, "MySQL error 1044: Access denied for user 'modern'@'%' to database 'shop'"},
		"wrong password":                      {[]any{"username", "native", "password", "wr0ng", "database", "shop"}, 500, failed, "MySQL error 1045: Access denied"},
		"wrong user":                          {[]any{"username", "nobody", "password", "s3cret"}, 500, failed, "MySQL error 1045: Access denied"},
		"wrong, but for MariaDB's own method": {[]any{"username", "modern", "password", "wr0ng"}, 500, failed, "MySQL error 1045: Access denied"},
	})
	wantGone(t, check.Defaults{}, "mysql", s, "username", "native", "password", "s3cret")
}

func TestMySQLTypeOptions(t *testing.T) {
	wantSteps(t, buildAt(t, check.Defaults{}, "mysql", "db", 3306, "username", "u"), "tcp:AT", "mysql:AT")
	wantOptionErrors(t, "mysql", map[string][]any{
		"username: is required":      {"host", "db", "password", "s3cret"},
		"database: expected a datab": {"host", "db", "username", "u", "database", "a\x00b"},
		"role: no such role":         {"host", "db", "username", "u", "role", "leader"},
		"role: lag of the role":      {"host", "db", "username", "u", "role", "replica", "lag", "16MB"},
		"expect: needs query":        {"host", "db", "username", "u", "expect", "1"},
		"use_tls: the server speaks": {"host", "/run/mysqld.sock", "username", "u", "use_tls", true},
	})
}

func FuzzMySQLAnswer(f *testing.F) {
	packet := func(sequence byte, payload []byte) []byte {
		return append([]byte{byte(len(payload)), 0, 0, sequence}, payload...)
	}
	f.Add(append(packet(0, greeting("8.4.0", "caching_sha2_password")), packet(2, mysqlOK)...))
	f.Add(append(packet(0, greeting("5.5.0", "")), packet(2, mysqlDenied)...))
	f.Add(append(packet(0, greeting("10.11", "mysql_native_password")), packet(2, []byte("\xfeclient_ed25519\x0001234567890123456789012345678901\x00"))...))
	f.Add(slices.Concat(packet(0, greeting("8.4.0", "caching_sha2_password")), packet(2, mysqlOK), packet(1, []byte{2})))
	here := goleak.IgnoreCurrent()
	f.Cleanup(func() {
		// The driver's goroutine ends with the check, also after answers on which the driver panics.
		if err := goleak.Find(here); err != nil {
			f.Error(err)
		}
	})
	fuzzAnswers(f, "mysql")
}
