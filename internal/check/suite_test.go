package check_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// rows returns a row with a healthy server for every protocol of check URLs.
func rows(t *testing.T, set check.Set) map[string]checktest.Row {
	t.Helper()
	certificate := issue(t, loopback(), nil)
	secure := &tls.Config{Certificates: []tls.Certificate{certificate}}
	mysql := &mysqlServer{defaultMethod: "caching_sha2_password", method: "mysql_native_password", user: "operator", password: "s3cret"}
	secrets := []string{"s3cret"}
	return map[string]checktest.Row{
		"http": {
			Check:   set["http"].Check,
			Target:  check.Target{Service: "web", URI: "/status"},
			Healthy: healthyHTTP,
		},
		"https": {
			Check:   set["https"].Check,
			Target:  check.Target{Service: "web", URI: "/status"},
			Healthy: healthyHTTP,
			Wrap:    func(conn net.Conn) net.Conn { return tls.Server(conn, secure) },
		},
		"tcp": {
			Check:       set["tcp"].Check,
			Healthy:     func(net.Conn) {},
			ConnectOnly: true,
		},
		"smtp":          {Check: set["smtp"].Check, Healthy: smtpServer("220-mail.example\r\n220 ESMTP\r\n", "221 bye\r\n")},
		"mysql":         {Check: set["mysql"].Check, Healthy: mysql.serve, Secrets: secrets},
		"redis":         {Check: set["redis"].Check, Healthy: healthyRedis, Secrets: secrets},
		"sentinel":      {Check: set["sentinel"].Check, Healthy: healthyRedis, Secrets: secrets},
		"redis-info":    {Check: set["redis-info"].Check, Target: check.Target{URI: "/match?role=master"}, Healthy: healthyRedis, Secrets: secrets},
		"sentinel-info": {Check: set["sentinel-info"].Check, Target: check.Target{URI: "/"}, Healthy: healthyRedis, Secrets: secrets},
		"haproxy":       {Check: set["haproxy"].Check, Target: check.Target{Service: "web"}, Healthy: statsServer(statsPage("web/BACKEND/UP"))},
		"grpc":          {Check: set["grpc"].Check, Target: check.Target{Service: "web"}, Healthy: healthyGRPC},
		"ldap":          {Check: set["ldap"].Check, Target: check.Target{Service: "web"}, Healthy: ldapServer},
		"tls":           {Check: set["tls"].Check, Target: check.Target{Service: "web"}, Healthy: handshaker(t)},
		"checks":        {Check: checksAtTarget(t), Target: check.Target{Service: "web"}, Healthy: func(net.Conn) {}, ConnectOnly: true},
	}
}

// handshaker returns a server that does a TLS handshake whose last byte the client needs: no session tickets follow.
// Its signature always has the same length.
func handshaker(t *testing.T) func(net.Conn) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := loopback()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		SessionTicketsDisabled: true,
	}
	return func(conn net.Conn) { _ = tls.Server(conn, config).Handshake() }
}

// checksAtTarget returns the protocol checks with one tcp check of the target configured.
func checksAtTarget(t *testing.T) check.Func {
	return func(ctx context.Context, target check.Target) check.Result {
		c, err := check.Build(check.Spec{Type: "tcp", Options: map[string]any{"host": target.Host, "port": int(target.Port)}}, check.Defaults{Timeout: time.Hour})
		if err != nil {
			t.Error(err)
		}
		services := map[string][]*check.ConfiguredCheck{target.Service: {c}}
		return check.All(check.Options{Services: services})["checks"].Check(ctx, target)
	}
}

func TestSuite(t *testing.T) {
	set := check.All(check.Options{
		Version:       "1.2.3",
		MySQLUsername: "operator", MySQLPassword: "s3cret",
		RedisUsername: "operator", RedisPassword: "s3cret",
		Services: map[string][]*check.ConfiguredCheck{"web": {
			build(t, check.Defaults{}, "udp", map[string]any{"host": "127.0.0.1", "port": 1, "send": "ping", "expect": "pong"}),
			build(t, check.Defaults{}, "postgres", map[string]any{"host": "127.0.0.1", "username": "operator", "password": "s3cret"}),
			build(t, check.Defaults{}, "mongodb", map[string]any{"host": "127.0.0.1", "username": "operator", "password": "s3cret"}),
			build(t, check.Defaults{}, "amqp", map[string]any{"host": "127.0.0.1", "username": "operator", "password": "s3cret", "use_tls": false}),
		}},
	})
	rows := rows(t, set)
	// A login protocol of check URLs takes its login from the configured check, and host and port from the request.
	logins := loginRows(t)
	for protocol, typ := range map[string]string{"postgres": "postgres", "mongodb": "mongodb", "amqp": "amqp", "memcached": "memcache"} {
		row := logins[typ]
		row.Check, row.Target.Service = set[protocol].Check, "web"
		rows[protocol] = row
	}
	for name, p := range set {
		if p.Check == nil {
			continue
		}
		if name == "udp" {
			t.Run(name, func(t *testing.T) {
				checktest.RunUDP(t, checktest.Row{Check: p.Check, Target: check.Target{Service: "web"}}, pong)
			})
			continue
		}
		if _, ok := rows[name]; !ok {
			t.Errorf("protocol %s has no row in the suite", name)
		}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { checktest.Run(t, row) })
	}
}

// configuredRows returns rows for the last step of types that can do more than the protocol of check URLs.
func configuredRows(t *testing.T) map[string]checktest.Row {
	t.Helper()
	secrets := []string{"s3cret", "b3BlcmF0b3I6czNjcmV0"}
	secure := secureGRPC(issue(t, loopback(), nil))
	return map[string]checktest.Row{
		"http": {Check: checkWith("http", func(host string, port uint16) map[string]any {
			return map[string]any{"url": "http://operator:s3cret@" + net.JoinHostPort(host, fmt.Sprint(port)) + "/status"}
		}), Healthy: healthyHTTP, Secrets: secrets},
		"http by a proxy": {Check: checkWith("http", func(host string, port uint16) map[string]any {
			return map[string]any{"url": "http://web.example/status", "proxy_host": host, "proxy_port": int(port), "auth": []any{"operator", "s3cret"}}
		}), Healthy: healthyHTTP, Secrets: secrets},
		"grpc over TLS": {Check: checkWith("grpc", func(host string, port uint16) map[string]any {
			return map[string]any{"host": host, "port": int(port), "use_tls": true, "disable_tls_verification": true}
		}), Healthy: healthyGRPC, Wrap: func(conn net.Conn) net.Conn { return tls.Server(conn, secure) }, Claim: []byte("\xff\xff\xff\x04\x00\x00\x00\x00\x00")},
	}
}

// checkWith returns a check that builds a configured check for its target and runs it.
func checkWith(typ string, options func(host string, port uint16) map[string]any) check.Func {
	return func(ctx context.Context, target check.Target) check.Result {
		c, err := check.Build(check.Spec{Type: typ, Options: options(target.Host, target.Port)}, check.Defaults{})
		if err != nil {
			return check.Result{Code: 500, Body: []byte(err.Error()), Err: err}
		}
		return c.Check(ctx, target)
	}
}

// pong is a service over UDP for checktest.
func pong(datagram []byte) []byte {
	if string(datagram) != "ping" {
		return nil
	}
	return []byte("pong")
}

// loginRows returns a row for the last step, the login, of each type with one. The steps before it have rows of their
// own.
func loginRows(t *testing.T) map[string]checktest.Row {
	t.Helper()
	secrets := []string{"s3cret"}
	row := func(typ string, options map[string]any, healthy func(net.Conn)) checktest.Row {
		return checktest.Row{Check: configuredAt(t, typ, options), Healthy: healthy, Secrets: secrets}
	}
	login := map[string]any{"username": "operator", "password": "s3cret"}
	certificate := issue(t, loopback(), nil)
	secure := &tls.Config{Certificates: []tls.Certificate{certificate}}
	overTLS := func(row checktest.Row) checktest.Row {
		row.Wrap = func(conn net.Conn) net.Conn { return tls.Server(conn, secure) }
		return row
	}
	with := func(name string, value any) map[string]any {
		options := maps.Clone(login)
		options[name] = value
		return options
	}
	use := func(tls bool) map[string]any { return with("use_tls", tls) }
	rows := map[string]checktest.Row{
		"tcp":               {Check: configuredAt(t, "tcp", map[string]any{}), Healthy: func(net.Conn) {}, ConnectOnly: true},
		"redis":             row("redis", login, healthyRedis),
		"sentinel":          row("sentinel", login, healthyRedis),
		"redis over TLS":    overTLS(row("redis", use(true), healthyRedis)),
		"memcache":          row("memcache", nil, memcachedServer("VERSION 1.6.18\r\n")),
		"memcache login":    row("memcache", login, memcachedLogin),
		"memcache over TLS": overTLS(row("memcache", use(true), memcachedLogin)),
		"redis role":        row("redis", with("role", "primary"), func(conn net.Conn) { serveRedis(conn, "role:master\r\nloading:0\r\n") }),
		"mongodb role":      row("mongodb", with("role", "primary"), (&mongoServer{mechanism: "SCRAM-SHA-256", hello: mongoPrimary}).serve),
		"mongodb over TLS":  overTLS(row("mongodb", use(true), (&mongoServer{mechanism: "SCRAM-SHA-256"}).serve)),
		"amqp":              row("amqp", use(false), amqpServer),
		"amqp over TLS":     overTLS(row("amqp", use(true), amqpServer)),
		"ldap":              row("ldap", login, ldapServer),
		"ldap over TLS":     overTLS(row("ldap", use(true), ldapServer)),
		"smtp mail":         row("smtp", mailOptions, smtpScript(mailServer(), nil)),
		"smtp":              overTLS(row("smtp", use(true), smtpScript(mailServer(), nil))),
		"mysql":             row("mysql", login, (&mysqlServer{defaultMethod: "caching_sha2_password", method: "mysql_native_password", user: "operator", password: "s3cret"}).serve),
		"haproxy":           row("haproxy", map[string]any{"backend": "web"}, statsServer(statsPage("web/BACKEND/UP"))),
		"mongodb":           row("mongodb", login, (&mongoServer{mechanism: "SCRAM-SHA-256"}).serve),
		"postgres":          row("postgres", login, (&postgresServer{method: "scram", password: "s3cret"}).serve),
	}
	for name, claim := range claims {
		row := rows[name]
		row.Claim = []byte(claim)
		rows[name] = row
	}
	return rows
}

// claims are the answers of checktest.Row.Claim of the types whose messages begin with their length. A server of
// PostgreSQL first answers the request for TLS.
var claims = map[string]string{
	"mysql":         "\xff\xff\xff\x00\x0a", // with the first byte of the greeting
	"mongodb":       "\x00\x00\x00\x01",
	"mongodb role":  "\x00\x00\x00\x01",
	"redis role":    "+OK\r\n$16777216\r\n",
	"postgres":      "NR\x01\x00\x00\x00",
	"amqp":          "\x01\x00\x00\x01\x00\x00\x00",
	"amqp over TLS": "\x01\x00\x00\x01\x00\x00\x00",
	"ldap":          "\x30\x84\x01\x00\x00\x00",
	"ldap over TLS": "\x30\x84\x01\x00\x00\x00",
	"redis":         "$16777216\r\n",
	"sentinel":      "$16777216\r\n",
}

func TestConfiguredSuite(t *testing.T) {
	rows := loginRows(t)
	maps.Copy(rows, configuredRows(t))
	for _, typ := range check.Types() {
		switch typ.Name {
		case "tls", "udp": // tested as protocols of check URLs, in TestSuite
			continue
		case "script", "udp-listen": // use no network
			continue
		}
		if _, ok := rows[typ.Name]; !ok && typ.Name != "grpc" { // which is "grpc over TLS" here, and plain in TestSuite
			t.Errorf("type %s has no row in the suite", typ.Name)
		}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { checktest.Run(t, row) })
	}
}

func healthyHTTP(conn net.Conn) {
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nOK\n")
}
