package check_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// mysqlServer is a fake MySQL server that handles logins, because Debian has no package of MySQL 8.
// TestFakeMySQLServerWithDriver compares it with go-sql-driver/mysql.
type mysqlServer struct {
	defaultMethod string // in its greeting
	method        string // the user's
	user          string
	password      string
	cached        bool // caching_sha2_password: the server has cached the hash of the password
	key           *rsa.PrivateKey

	mu    sync.Mutex
	quits int // logins that ended with COM_QUIT
}

// nonce has 20 bytes, as those of MySQL. A 0 follows it on the wire.
const nonce = "abcdefghijklmnopqrst"

// mysqlWire reads and writes packets.
type mysqlWire struct {
	net.Conn
	sequence byte
}

func (w *mysqlWire) send(payload []byte) {
	n := len(payload)
	packet := append([]byte{byte(n), byte(n >> 8), byte(n >> 16), w.sequence}, payload...)
	w.sequence++
	_, _ = w.Write(packet)
}

func (w *mysqlWire) receive() ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(w, head); err != nil {
		return nil, err
	}
	w.sequence = head[3] + 1
	payload := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(w, payload)
	return payload, err
}

// greeting returns a handshake packet of version 10.
func greeting(version, method string) []byte {
	const capabilities = 1<<0 | 1<<2 | 1<<9 | 1<<13 | 1<<15 | 1<<19
	p := append([]byte{10}, version+"\x00"...)
	p = append(p, 1, 0, 0, 0)
	p = append(p, nonce[:8]...)
	p = append(p, 0)
	p = binary.LittleEndian.AppendUint16(p, capabilities&0xffff)
	p = append(p, 45, 2, 0)
	p = binary.LittleEndian.AppendUint16(p, capabilities>>16)
	p = append(p, byte(len(nonce)+1))
	p = append(p, make([]byte, 10)...)
	p = append(p, nonce[8:]+"\x00"...)
	return append(p, method+"\x00"...)
}

func mysqlErr(code uint16, message string) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{0xff}, code), message...)
}

var (
	mysqlOK     = []byte{0, 0, 0, 2, 0, 0, 0}
	mysqlDenied = mysqlErr(1045, "#28000Access denied for user 'operator'@'localhost' (using password: YES)")
)

func (s *mysqlServer) serve(conn net.Conn) {
	w := &mysqlWire{Conn: conn}
	w.send(greeting("8.4.0", s.defaultMethod))
	user, answer, method, err := s.login(w)
	if err != nil {
		return
	}
	if method != s.method {
		w.send([]byte("\xfe" + s.method + "\x00" + nonce + "\x00"))
		if answer, err = w.receive(); err != nil {
			return
		}
	}
	if user != s.user || !s.accepts(w, answer) {
		w.send(mysqlDenied)
		return
	}
	w.send(mysqlOK)
	w.sequence = 0
	if p, err := w.receive(); err == nil && bytes.Equal(p, []byte{1}) {
		s.mu.Lock()
		s.quits++
		s.mu.Unlock()
	}
}

// login reads the handshake response.
func (s *mysqlServer) login(w *mysqlWire) (user string, answer []byte, method string, err error) {
	p, err := w.receive()
	if err != nil {
		return "", nil, "", err
	}
	if len(p) < 34 {
		return "", nil, "", errors.New("short")
	}
	name, rest, ok := bytes.Cut(p[32:], []byte{0})
	if !ok || len(rest) < 1 || len(rest) < 1+int(rest[0]) {
		return "", nil, "", errors.New("short")
	}
	answer, rest = rest[1:1+rest[0]], rest[1+rest[0]:]
	m, _, _ := bytes.Cut(rest, []byte{0})
	return string(name), answer, string(m), nil
}

// accepts reports whether answer is correct, from the hash of the password that MySQL stores.
func (s *mysqlServer) accepts(w *mysqlWire, answer []byte) bool {
	switch s.method {
	case "mysql_native_password":
		if s.password == "" {
			return len(answer) == 0
		}
		stored := sha1.Sum(sum(sha1.Sum([]byte(s.password))))
		mask := sha1.Sum(append([]byte(nonce), stored[:]...))
		return len(answer) == 20 && sha1.Sum(xor(answer, mask[:])) == stored
	case "caching_sha2_password":
		if s.password == "" {
			return len(answer) == 0
		}
		stored := sha256.Sum256(sum(sha256.Sum256([]byte(s.password))))
		mask := sha256.Sum256(append(stored[:], nonce...))
		if s.cached {
			if len(answer) != 32 || sha256.Sum256(xor(answer, mask[:])) != stored {
				return false
			}
			w.send([]byte{1, 3})
			return true
		}
		w.send([]byte{1, 4})
		if p, err := w.receive(); err != nil || !bytes.Equal(p, []byte{2}) {
			return false
		}
		return s.acceptsEncrypted(w)
	case "sha256_password":
		return bytes.Equal(answer, []byte{1}) && s.acceptsEncrypted(w)
	}
	return false
}

// acceptsEncrypted sends the public key and compares the password in the client's answer.
func (s *mysqlServer) acceptsEncrypted(w *mysqlWire) bool {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		return false
	}
	w.send(append([]byte{1}, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...))
	secret, err := w.receive()
	if err != nil {
		return false
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, s.key, secret, nil)
	if err != nil {
		return false
	}
	for i := range plain {
		plain[i] ^= nonce[i%len(nonce)]
	}
	return string(plain) == s.password+"\x00"
}

// sum returns a hash as a slice.
func sum[A [20]byte | [32]byte](a A) []byte {
	switch a := any(a).(type) {
	case [20]byte:
		return a[:]
	case [32]byte:
		return a[:]
	}
	return nil
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// mysqlServers returns a server for each way of a login, except those of MariaDB.
func mysqlServers(t testing.TB) map[string]*mysqlServer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// The password is longer than the nonce, so that the xor repeats the nonce.
	const password = "s3cret and rather longer than twenty bytes"
	return map[string]*mysqlServer{
		"native":                  {defaultMethod: "mysql_native_password", method: "mysql_native_password", user: "operator", password: password},
		"native, no password":     {defaultMethod: "mysql_native_password", method: "mysql_native_password", user: "operator"},
		"native, but sha2 is met": {defaultMethod: "caching_sha2_password", method: "mysql_native_password", user: "operator", password: password},
		"sha2, remembered":        {defaultMethod: "caching_sha2_password", method: "caching_sha2_password", user: "operator", password: password, cached: true},
		"sha2, full":              {defaultMethod: "caching_sha2_password", method: "caching_sha2_password", user: "operator", password: password, key: key},
		"sha2, no password":       {defaultMethod: "caching_sha2_password", method: "caching_sha2_password", user: "operator"},
		"sha2 after native":       {defaultMethod: "mysql_native_password", method: "caching_sha2_password", user: "operator", password: password, key: key},
		"sha256":                  {defaultMethod: "sha256_password", method: "sha256_password", user: "operator", password: password, key: key},
		"after one of the future": {defaultMethod: "authentication_of_tomorrow", method: "caching_sha2_password", user: "operator", password: password, cached: true},
	}
}

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

// TestFakeMySQLServerWithDriver holds the fake server to go-sql-driver/mysql.
func TestFakeMySQLServerWithDriver(t *testing.T) {
	for name, m := range mysqlServers(t) {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, m.serve)
			config := mysql.NewConfig()
			config.Net, config.Addr, config.User, config.Passwd, config.Logger = "tcp", s.Addr(), "operator", m.password, &mysql.NopLogger{}
			connect := func() error {
				connector, err := mysql.NewConnector(config)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				conn, err := connector.Connect(ctx)
				if err != nil {
					return err
				}
				return conn.Close()
			}
			if err := connect(); err != nil {
				t.Errorf("right: %v", err)
			}
			config.Passwd = "wr0ng"
			if err := connect(); err == nil {
				t.Error("let in with a wrong password")
			}
		})
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
	for name, c := range map[string]struct {
		server func(net.Conn)
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"too many":             {raw("\x19\x00\x00\x00\xff\x10\x04Too many connections\x1b\x00"), 500, "MySQL error 1040: Too many connections"},
		"blocked":              {raw("\x0b\x00\x00\x01\xff\x69\x04Host 'x'"), 500, "MySQL error 1129: Host 'x'"},
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
		"endless switches":     {after("\xfemysql_native_password\x00a", "\xfemysql_native_password\x00a", "\xfemysql_native_password\x00a", "\xfemysql_native_password\x00a", "\xfemysql_native_password\x00a", "\xfemysql_native_password\x00a"), 503, "The answer of ADDR is not MySQL: more than 5 authentication methods one after the other"},
		"endless more":         {after("\x01\x04", "\x01\x04", "\x01\x04", "\x01\x04"), 503, "The answer of ADDR is not MySQL: a login without an end"},
		"asks for a file":      {after("\xfb/etc/passwd"), 503, "The answer of ADDR is not MySQL: a packet of type 0xfb in a login"},
		"no key":               {after("\x01\x04", "\x01no key"), 503, "The answer of ADDR is not MySQL: an invalid public key"},
		"empty more":           {after("\x01"), 503, "The answer of ADDR is not MySQL: an invalid public key"},
		"key that is not RSA":  {after("\x01\x04", "\x01"+notRSA), 503, "The answer of ADDR is not MySQL: a key that is not RSA"},
		"key without a nonce":  {after("\xfecaching_sha2_password\x00", "\x01"+notRSA), 503, "The answer of ADDR is not MySQL: an invalid public key"},
		"short ed25519 nonce":  {after("\xfeclient_ed25519\x00short"), 503, "The answer of ADDR is not MySQL: a nonce of the wrong length"},
		"more than native has": {after("\xfemysql_native_password\x00a", "\x01x"), 503, "The answer of ADDR is not MySQL: more data than the method has"},
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
	})
}

func FuzzMySQLAnswer(f *testing.F) {
	packet := func(sequence byte, payload []byte) []byte {
		return append([]byte{byte(len(payload)), 0, 0, sequence}, payload...)
	}
	f.Add(append(packet(0, greeting("8.4.0", "caching_sha2_password")), packet(2, mysqlOK)...))
	f.Add(append(packet(0, greeting("5.5.0", "")), packet(2, mysqlDenied)...))
	f.Add(append(packet(0, greeting("10.11", "mysql_native_password")), packet(2, []byte("\xfeclient_ed25519\x0001234567890123456789012345678901\x00"))...))
	fuzzAnswers(f, "mysql")
}
