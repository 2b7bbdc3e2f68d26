package check_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"testing"

	"hacheck/internal/check"
	"hacheck/internal/check/checktest"
)

// rows says for every protocol how a healthy server of it talks.
func rows(t *testing.T, set check.Set) map[string]checktest.Row {
	t.Helper()
	certificate := issue(t, loopback(), nil)
	secure := &tls.Config{Certificates: []tls.Certificate{certificate}}
	mysql := &mysqlServer{proposes: "caching_sha2_password", method: "mysql_native_password", user: "operator", password: "s3cret"}
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
	}
}

func TestSuite(t *testing.T) {
	set := check.All(check.Options{
		Version:       "1.2.3",
		MySQLUsername: "operator", MySQLPassword: "s3cret",
		RedisUsername: "operator", RedisPassword: "s3cret",
	})
	rows := rows(t, set)
	for name, p := range set {
		if p.Check == nil {
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

// configuredRows says the same for every type of configured check. What is asked is its last step, the login:
// those before it are the same in all of them, and rows of their own.
func configuredRows(t *testing.T) map[string]checktest.Row {
	t.Helper()
	secrets := []string{"s3cret"}
	row := func(typ string, options map[string]any, healthy func(net.Conn)) checktest.Row {
		return checktest.Row{Check: lastStep(t, typ, options), Healthy: healthy, Secrets: secrets}
	}
	login := map[string]any{"username": "operator", "password": "s3cret"}
	certificate := issue(t, loopback(), nil)
	secure := &tls.Config{Certificates: []tls.Certificate{certificate}}
	overTLS := func(row checktest.Row) checktest.Row {
		row.Wrap = func(conn net.Conn) net.Conn { return tls.Server(conn, secure) }
		return row
	}
	use := func(tls bool) map[string]any {
		options := maps.Clone(login)
		options["use_tls"] = tls
		return options
	}
	return map[string]checktest.Row{
		"tcp":            {Check: lastStep(t, "tcp", map[string]any{}), Healthy: func(net.Conn) {}, ConnectOnly: true},
		"redis":          row("redis", login, healthyRedis),
		"sentinel":       row("sentinel", login, healthyRedis),
		"redis over TLS": overTLS(row("redis", use(true), healthyRedis)),
		"memcache":       row("memcache", nil, memcachedServer("VERSION 1.6.18\r\n")),
		"amqp":           row("amqp", use(false), amqpServer),
		"amqp over TLS":  overTLS(row("amqp", use(true), amqpServer)),
		"smtp mail":      row("smtp", mailOptions, smtpScript(mailServer(), nil)),
		"smtp":           overTLS(row("smtp", use(true), smtpScript(mailServer(), nil))),
		"mysql":          row("mysql", login, (&mysqlServer{proposes: "caching_sha2_password", method: "mysql_native_password", user: "operator", password: "s3cret"}).serve),
		"haproxy":        row("haproxy", map[string]any{"backend": "web"}, statsServer(statsPage("web/BACKEND/UP"))),
		"mongodb":        row("mongodb", login, (&mongoServer{mechanism: "SCRAM-SHA-256"}).serve),
		"postgres":       row("postgres", login, (&postgresServer{method: "scram", password: "s3cret"}).serve),
	}
}

func TestConfiguredSuite(t *testing.T) {
	rows := configuredRows(t)
	for _, typ := range check.Types() {
		if _, ok := rows[typ.Name]; !ok {
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
