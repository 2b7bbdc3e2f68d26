package check_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql/driver"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// TestMariaDBOverTLS logs in to a server that requires TLS, and as users that require it or a client certificate.
func TestMariaDBOverTLS(t *testing.T) {
	ca := newAuthority(t)
	serverFiles := writeClientCertificate(t, issue(t, loopback(), ca))
	identity := writeClientCertificate(t, issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "hacheck"}}, ca))
	root := writeClientCertificate(t, issue(t, loopback(), nil))
	caFile := writeClientCertificate(t, tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key})[1].(string)
	s := servertest.MariaDB(t, mariadbOperator+`
INSTALL SONAME 'auth_ed25519';
CREATE USER encrypted@'%' IDENTIFIED BY 's3cret' REQUIRE SSL;
CREATE USER certified@'%' IDENTIFIED BY 's3cret' REQUIRE X509;
CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('s3cret') REQUIRE SSL;
CREATE USER either@'%' IDENTIFIED VIA ed25519 USING PASSWORD('other') OR mysql_native_password USING PASSWORD('s3cret') REQUIRE SSL;
CREATE USER expired@'%' IDENTIFIED BY 's3cret' PASSWORD EXPIRE;
`, "--ssl-cert="+serverFiles[1].(string), "--ssl-key="+serverFiles[3].(string), "--ssl-ca="+caFile, "--max-connect-errors=3")
	failed := check.ReasonFailed
	as := func(user string, more ...any) []any {
		return append([]any{"username", user, "password", "s3cret"}, more...)
	}
	const in = "Logged in and quit in "
	tryLogins(t, check.Defaults{}, "mysql", s, map[string]loginCase{
		"prefer":                     {as("encrypted"), 200, 0, in},
		"required":                   {as("encrypted", "use_tls", true), 200, 0, in},
		"ed25519":                    {as("modern"), 200, 0, in},
		"one method after the other": {as("either"), 200, 0, in},
		"verified":                   {as("encrypted", "ca_file", caFile), 200, 0, in},
		"not verified":               {as("encrypted", "ca_file", root[1]), 503, failed, "The certificate of " + s.Addr() + " was not accepted: "},
		"another name":               {as("encrypted", "ca_file", caFile, "server_name", "db.example"), 503, failed, "The certificate of "},
		"without":                    {as("encrypted", "use_tls", false), 500, failed, "MySQL error 1045: Access denied for user 'encrypted'@'127.0.0.1' (using password: YES); if the server or the user requires TLS, set use_tls: prefer"},
		"wrong password":             {[]any{"username", "encrypted", "password", "wr0ng"}, 500, failed, "MySQL error 1045: Access denied for user 'encrypted'@'127.0.0.1' (using password: YES); if the user has REQUIRE X509, set cert_file and key_file"},
		"client certificate":         {append(as("certified"), identity...), 200, 0, in},
		"no client certificate":      {as("certified"), 500, failed, "MySQL error 1045: Access denied for user 'certified'@'127.0.0.1' (using password: YES); if the user has REQUIRE X509"},
		"expired":                    {as("expired"), 500, failed, "MySQL error 1820: You must SET PASSWORD before executing this statement; the password of expired has expired"},
		"query":                      {as("operator", "query", "SELECT 1+1", "expect", "2"), 200, 0, in},
		"query of another value":     {as("operator", "query", "SELECT NULL", "expect", "2"), 503, failed, "the query returns NULL; 2 wanted"},
		"query that fails":           {as("operator", "query", "SELECT nothing"), 500, failed, "MySQL error 1054: "},
	})
	s.SQL(t, "SET GLOBAL require_secure_transport=ON")
	tryLogins(t, check.Defaults{}, "mysql", s, map[string]loginCase{
		"secure transport": {as("operator"), 200, 0, in},
		"not secure":       {as("operator", "use_tls", false), 500, failed, "MySQL error 1045: Access denied for user 'operator'@'127.0.0.1' (using password: YES); if the server or the user requires TLS, set use_tls: prefer"},
	})
}

// A server without TLS is healthy with the default, and not where TLS is required.
func TestMariaDBUnixSocketAndNoTLS(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := servertest.MariaDB(t, mariadbOperator+"CREATE USER IF NOT EXISTS "+me.Username+"@localhost;\nALTER USER "+me.Username+"@localhost IDENTIFIED VIA mysql_native_password USING 'invalid' OR unix_socket;\n")
	tryLogins(t, check.Defaults{}, "mysql", s, map[string]loginCase{
		"no TLS offered": {[]any{"username", "operator", "password", "s3cret", "use_tls", true}, 503, check.ReasonFailed, s.Addr() + " offers no TLS"},
		"unix_socket":    {[]any{"host", filepath.Join(s.Dir, "sock"), "username", me.Username}, 200, 0, "Logged in and quit in "},
		"another user":   {[]any{"host", filepath.Join(s.Dir, "sock"), "username", "stranger"}, 500, check.ReasonFailed, "MySQL error 1045: "},
		"password":       {[]any{"host", filepath.Join(s.Dir, "sock"), "username", "operator", "password", "s3cret"}, 200, 0, "Logged in and quit in "},
		"no such socket": {[]any{"host", filepath.Join(s.Dir, "none"), "username", "operator"}, 503, check.ReasonRefused, "Cannot connect to "},
	})
	wantSteps(t, buildAt(t, check.Defaults{}, "mysql", filepath.Join(s.Dir, "sock"), 3306, "username", "u"), "mysql:"+filepath.Join(s.Dir, "sock"))
}

// TestMariaDBCountsNothing: 500 checks leave no aborted client, no line and no blocked host, and one free connection is
// enough for all steps of a check.
func TestMariaDBCountsNothing(t *testing.T) {
	for name, overTLS := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			options := []string{"--max-connections=10", "--max-connect-errors=3", "--log-warnings=4"}
			if overTLS {
				files := writeClientCertificate(t, issue(t, loopback(), nil))
				options = append(options, "--ssl-cert="+files[1].(string), "--ssl-key="+files[3].(string))
			}
			s := servertest.MariaDB(t, mariadbOperator, options...)
			counters := func() string { return s.SQL(t, "SHOW GLOBAL STATUS LIKE 'Aborted%'") }
			before := counters()
			config := mysql.NewConfig()
			config.Net, config.Addr, config.User, config.Passwd = "tcp", s.Addr(), "operator", "s3cret"
			connector, err := mysql.NewConnector(config)
			if err != nil {
				t.Fatal(err)
			}
			var busy []driver.Conn
			for range 9 {
				c, err := connector.Connect(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				busy = append(busy, c)
			}
			useTLS := any("prefer")
			if overTLS {
				useTLS = true
			}
			one := buildAt(t, check.Defaults{}, "mysql", servertest.Host, s.Port, "username", "operator", "password", "s3cret", "use_tls", useTLS)
			checktest.RunQuiet(t, s.Addr(), s.Log, 500, func(host string, port uint16) check.Result {
				at, err := one.WithAddress(host, port)
				if err != nil {
					t.Fatal(err)
				}
				// The server gives the place free only after it has closed the connection.
				eventually(t, "free place", func() bool { return openConnections(t, busy[0]) == "9" })
				return at.Check(t.Context(), check.Target{})
			})
			for _, c := range busy {
				_ = c.Close()
			}
			eventually(t, "end of all connections but the one that asks", func() bool {
				return strings.HasSuffix(s.SQL(t, "SHOW GLOBAL STATUS LIKE 'Threads_connected'"), "\t1")
			})
			if after := counters(); after != before {
				t.Errorf("healthy checks went from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// openConnections returns how many connections the server has, over one of them.
func openConnections(t *testing.T, c driver.Conn) string {
	t.Helper()
	rows, err := c.(driver.QueryerContext).QueryContext(context.Background(), "SHOW GLOBAL STATUS LIKE 'Threads_connected'", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	values := make([]driver.Value, 2)
	if err := rows.Next(values); err != nil {
		t.Fatal(err)
	}
	return string(values[1].([]byte))
}
