package check_test

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// redisDo sends a command to a server and returns the first line of the reply.
func redisDo(t *testing.T, s *servertest.Server, command string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(line)
}

// until runs a check until want is in its answer, and returns the last result.
func until(t *testing.T, run func() check.Result, want string) check.Result {
	t.Helper()
	deadline, again := time.NewTimer(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer again.Stop()
	for {
		r := run()
		if strings.Contains(string(r.Body), want) {
			return r
		}
		select {
		case <-deadline.C:
			t.Fatalf("after 30 s still %d %q, want %q", r.Code, r.Body, want)
		case <-again.C:
		}
	}
}

// field returns what a check found.
func field(r check.Result, name string) any {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
}

// redisURL returns a run of the URL /redis/cache/<port>/<role>.
func redisURL(t *testing.T, o check.Options, s *servertest.Server, role string) func() check.Result {
	return func() check.Result {
		return ask(t, o, check.Target{Protocol: "redis", Service: "cache", Host: servertest.Host, Port: s.Port, URI: role})
	}
}

// TestRedisReplication follows a primary and its replica until the primary has gone.
func TestRedisReplication(t *testing.T) {
	primary := servertest.Redis(t)
	replica := servertest.Redis(t, "--replicaof", servertest.Host, fmt.Sprint(primary.Port))
	now := check.Options{Sources: check.NewSources(time.Now())}
	r := until(t, redisURL(t, now, replica, "replica?lag=10s"), "replica, link up, last heard from its source ")
	if r.Code != 200 || field(r, "role") != "replica" || field(r, "link_up") != true || field(r, "lag_seconds").(int64) > 11 {
		t.Errorf("replica: %d %q %v", r.Code, r.Body, r.Fields)
	}
	want := func(name string, s *servertest.Server, role string, code int, reason check.Reason, text string) {
		t.Helper()
		r := redisURL(t, now, s, role)()
		if r.Code != code || r.Reason != reason || !strings.Contains(string(r.Body), text) {
			t.Errorf("%s: %d %s %q, want %d %s %q", name, r.Code, r.Reason, r.Body, code, reason, text)
		}
	}
	want("primary", primary, "primary", 200, 0, "primary")
	want("no role", replica, "", 200, 0, "Sent PING, got back +PONG")
	want("a query alone", replica, "?x=1", 200, 0, "Sent PING, got back +PONG")
	want("replica wanted", primary, "replica", 503, check.ReasonFailed, "primary; replica wanted")
	want("primary wanted", replica, "primary", 503, check.ReasonFailed, "; primary wanted")
	want("unknown role", primary, "master", 400, check.ReasonConfig, `no such role "master"; there are any, primary, replica`)
	want("short lag", replica, "replica?lag=3s", 400, check.ReasonConfig, `expected a duration of at least 10s, got "3s"`)
	want("size", replica, "replica?lag=16MB", 400, check.ReasonConfig, "expected a duration of at least 10s")

	primary.Stop()
	// All replicas lose their source at once, and stay in for a while.
	r = until(t, redisURL(t, now, replica, "replica?lag=10s"), "replica, link to its source down for ")
	if r.Code != 200 || field(r, "link_up") != false || field(r, "alone_seconds").(int64) > 60 {
		t.Errorf("alone: %d %q %v", r.Code, r.Body, r.Fields)
	}
	hourAgo := check.Options{Sources: check.NewSources(time.Now().Add(-time.Hour))}
	if r = redisURL(t, hourAgo, replica, "replica?alone=2h")(); r.Code != 200 || field(r, "alone_seconds").(int64) < 3600 {
		t.Errorf("alone for an hour: %d %q %v", r.Code, r.Body, r.Fields)
	}
	r = redisURL(t, hourAgo, replica, "replica")()
	if want := "but only 5m0s are allowed (alone)"; r.Code != 503 || r.Reason != check.ReasonFailed || !strings.Contains(string(r.Body), want) {
		t.Errorf("alone for too long: %d %q, want %q", r.Code, r.Body, want)
	}
	// The server says MASTERDOWN to clients when it may not serve old data.
	redisDo(t, replica, "CONFIG SET replica-serve-stale-data no")
	want("no stale data", replica, "replica", 500, check.ReasonFailed, "Sent PING, got back -MASTERDOWN")
	redisDo(t, replica, "REPLICAOF NO ONE")
	want("promoted", replica, "primary", 200, 0, "primary")
}

// TestRedisLoading: a replica that loads the data of a full sync is not healthy until it has them.
func TestRedisLoading(t *testing.T) {
	primary := servertest.Redis(t, "--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0")
	redisDo(t, primary, "DEBUG POPULATE 20000")
	replica := servertest.Redis(t, "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
	run := redisURL(t, check.Options{}, replica, "replica")
	redisDo(t, replica, fmt.Sprintf("REPLICAOF %s %d", servertest.Host, primary.Port))
	if r := until(t, run, "replica, but it loads its data"); r.Code != 503 || r.Reason != check.ReasonFailed {
		t.Errorf("loading: %d %s %q", r.Code, r.Reason, r.Body)
	}
	if r := redisURL(t, check.Options{}, replica, "")(); r.Code != 500 || !strings.Contains(string(r.Body), "-LOADING") {
		t.Errorf("loading, no role: %d %q", r.Code, r.Body)
	}
	redisDo(t, replica, "CONFIG SET key-load-delay 0")
	if r := until(t, run, "link up"); r.Code != 200 {
		t.Errorf("loaded: %d %q", r.Code, r.Body)
	}
}

// TestRedisCluster: a node is healthy while the cluster is, and as a primary if it has slots.
func TestRedisCluster(t *testing.T) {
	node := func() (*servertest.Server, uint16) {
		bus, err := servertest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		return servertest.Redis(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(bus)), bus
	}
	a, bus := node()
	b, _ := node()
	run := redisURL(t, check.Options{}, a, "primary")
	r := run()
	if want := "primary, but cluster_state is fail"; r.Code != 503 || r.Reason != check.ReasonFailed || string(r.Body) != want || field(r, "cluster_state") != "fail" {
		t.Errorf("no slots: %d %s %q %v, want %q", r.Code, r.Reason, r.Body, r.Fields, want)
	}
	state := func(s *servertest.Server) check.Result {
		return buildAt(t, check.Defaults{}, "redis", servertest.Host, s.Port, "command", []any{"CLUSTER", "INFO"}, "expect", "cluster_state:ok").
			Check(t.Context(), check.Target{})
	}
	if r := state(a); r.Code != 503 || !strings.HasPrefix(string(r.Body), "Sent CLUSTER, got back cluster_state:fail") {
		t.Errorf("CLUSTER INFO: %d %q", r.Code, r.Body)
	}
	if got := redisDo(t, a, "CLUSTER ADDSLOTSRANGE 0 16383"); got != "+OK" {
		t.Fatal(got)
	}
	answered := func(code int, run func() check.Result) check.Result {
		t.Helper()
		return until(t, func() check.Result {
			r := run()
			r.Body = fmt.Appendf(nil, "%d %s", r.Code, r.Body)
			return r
		}, fmt.Sprint(code))
	}
	r = answered(200, run)
	if field(r, "slots") != true || field(r, "cluster_state") != "ok" {
		t.Errorf("with slots: %v", r.Fields)
	}
	if r := state(a); r.Code != 200 || string(r.Body) != "Sent CLUSTER, got back what was wanted" {
		t.Errorf("CLUSTER INFO: %d %q", r.Code, r.Body)
	}
	if r := redisURL(t, check.Options{}, a, "replica")(); r.Code != 503 || string(r.Body) != "primary; replica wanted" {
		t.Errorf("replica wanted: %d %q", r.Code, r.Body)
	}
	if got := redisDo(t, b, fmt.Sprintf("CLUSTER MEET %s %d %d", servertest.Host, a.Port, bus)); got != "+OK" {
		t.Fatal(got)
	}
	r = until(t, redisURL(t, check.Options{}, b, "primary"), "primary, but it serves no slots of the cluster")
	if r.Code != 503 || field(r, "slots") != false || field(r, "cluster_state") != "ok" {
		t.Errorf("a node without slots: %d %v", r.Code, r.Fields)
	}
}

// TestRedisRoleAnswers are states that a real server is in for too short a time, with the fields of Redis 7.0.
func TestRedisRoleAnswers(t *testing.T) {
	replica := func(change ...string) string {
		info := "# Server\r\nuptime_in_seconds:7200\r\n# Persistence\r\nloading:0\r\nasync_loading:0\r\n# Replication\r\nrole:slave\r\nmaster_link_status:up\r\n" +
			"master_last_io_seconds_ago:3\r\nmaster_sync_in_progress:0\r\n# Cluster\r\ncluster_enabled:0\r\n"
		out := strings.NewReplacer(change...).Replace(info)
		if len(change) > 0 && out == info {
			t.Fatalf("%q changes nothing", change)
		}
		return out
	}
	down := []string{"status:up", "status:down", "ago:3", "ago:-1"}
	with := func(more ...string) string { return replica(append(down, more...)...) }
	for name, c := range map[string]struct {
		role, info string
		code       int
		body       string
	}{
		"fine":            {"replica?lag=10s", replica(), 200, "replica, link up, last heard from its source 3 s ago"},
		"a second more":   {"replica?lag=10s", replica("ago:3", "ago:11"), 200, "replica, link up, last heard from its source 11 s ago"},
		"lags":            {"replica?lag=10s", replica("ago:3", "ago:12"), 503, "replica, link up, last heard from its source 12 s ago, but only 10s are allowed (lag)"},
		"no lag wanted":   {"replica", replica("ago:3", "ago:40"), 200, "replica, link up, last heard from its source 40 s ago"},
		"negative":        {"replica", replica("ago:3", "ago:-1"), 503, "replica, link up, but it does not say when it last heard from its source"},
		"no number":       {"replica", replica("ago:3", "ago:now"), 503, "replica, link up, but it does not say when it last heard from its source"},
		"full sync":       {"replica", with("progress:0", "progress:1"), 503, "replica, but a full sync is in progress"},
		"async loading":   {"replica", with("progress:0", "progress:1", "async_loading:0", "async_loading:1"), 200, "replica, link to its source down for 0s"},
		"down for long":   {"replica", with("cluster_enabled:0", "master_link_down_since_seconds:4000"), 503, "replica, link to its source down for 1h6m40s, but only 5m0s are allowed (alone)"},
		"never connected": {"replica", with("cluster_enabled:0", "master_link_down_since_seconds:-1"), 200, "replica, link to its source down for 0s"},
		"never, Redis 6":  {"replica", with("cluster_enabled:0", "master_link_down_since_seconds:1700000000"), 200, "replica, link to its source down for 0s"},
		"unknown link":    {"replica", replica("status:up", "status:odd"), 200, "replica, link to its source down for 0s"},
		"loading":         {"replica", replica("\nloading:0", "\nloading:1"), 503, "replica, link up, last heard from its source 3 s ago, but it loads its data"},
		"loading says no": {"replica", replica("\nloading:0", "\nlading:0"), 503, "replica, link up, last heard from its source 3 s ago, but it loads its data"},
		"no role":         {"primary", "# Server\r\nredis_mode:sentinel\r\n", 503, "Sent INFO, got back no role of a Redis server from ADDR"},
		"odd role":        {"primary", replica("role:slave", "role:masters"), 503, "Sent INFO, got back no role of a Redis server from ADDR"},
		"cluster, denied": {"primary", "role:master\r\nloading:0\r\ncluster_enabled:1\r\n", 500, "Sent CLUSTER INFO, got back -NOPERM no (a role needs it: ACL SETUSER default +cluster|info)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, redisServer(func(command []string) string {
				switch command[0] {
				case "INFO":
					return bulk(c.info)
				case "CLUSTER":
					return "-NOPERM no\r\n"
				}
				return "+PONG\r\n"
			}))
			r := ask(t, check.Options{}, check.Target{Protocol: "redis", Service: "cache", Host: s.Host, Port: s.Port, URI: c.role})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
		})
	}
}

// TestRedisCommand: replies of every kind, and what they have to be.
func TestRedisCommand(t *testing.T) {
	s := servertest.Redis(t, "--user", "limited", "on", ">pa55", "~*", "+ping", "--user", "default", "on", "nopass", "~*", "+@all")
	for _, command := range []string{"SET beat 17", "RPUSH list a b c", "SET lines 'one two'", "SET secret s3cret"} {
		redisDo(t, s, command)
	}
	ok := "Sent %s, got back what was wanted"
	for name, c := range map[string]struct {
		options []any
		code    int
		body    string
	}{
		"status":           {[]any{"command", "CONFIG RESETSTAT", "expect", "OK"}, 200, "Sent CONFIG, got back what was wanted"},
		"bulk":             {[]any{"command", []any{"GET", "beat"}, "expect", 17}, 200, fmt.Sprintf(ok, "GET")},
		"number":           {[]any{"command", []any{"strlen", "beat"}, "expect", "2"}, 200, fmt.Sprintf(ok, "STRLEN")},
		"array":            {[]any{"command", []any{"LRANGE", "list", 0, -1}, "expect", "b"}, 200, fmt.Sprintf(ok, "LRANGE")},
		"array in array":   {[]any{"command", "COMMAND INFO GET", "expect", "readonly"}, 200, fmt.Sprintf(ok, "COMMAND")},
		"line of INFO":     {[]any{"command", "INFO", "expect", "role:master"}, 200, fmt.Sprintf(ok, "INFO")},
		"part of a line":   {[]any{"command", "INFO", "expect", "role:mast"}, 503, "Sent INFO, got back "},
		"other":            {[]any{"command", "GET beat", "expect", "18"}, 503, "Sent GET, got back 17; 18 wanted"},
		"missing":          {[]any{"command", "GET none", "expect", "17"}, 503, "Sent GET, got back ; 17 wanted"},
		"missing, any":     {[]any{"command", "GET none"}, 200, "Sent GET, got back no error"},
		"error":            {[]any{"command", "CLUSTER INFO"}, 500, "Sent CLUSTER, got back -ERR This instance has cluster support disabled"},
		"hides words":      {[]any{"command", "ATUH ops s3cret"}, 500, "Sent ATUH, got back -ERR unknown command 'ATUH'"},
		"error in a list":  {[]any{"command", []any{"EVAL", "return {1, redis.pcall('nosuch')}", 0}, "expect", "1"}, 500, "Sent EVAL, got back a list with an error: "},
		"hides a password": {[]any{"command", "GET secret", "expect", "x", "username", "limited", "password", "pa55"}, 500, "Sent GET, got back -NOPERM"},
		"with a role":      {[]any{"role", "primary", "command", "GET beat", "expect", "18"}, 503, "Sent GET, got back 17; 18 wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			r := buildAt(t, check.Defaults{}, "redis", servertest.Host, s.Port, c.options...).Check(t.Context(), check.Target{})
			if r.Code != c.code || !strings.HasPrefix(string(r.Body), c.body) || strings.Contains(string(r.Body), "s3cret") {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, c.body)
			}
		})
	}
	for _, reply := range []string{"*-1\r\n", "*2\r\n$-1\r\n:1\r\n"} {
		fake := checktest.Serve(t, redisServer(func(command []string) string {
			if command[0] == "PING" {
				return "+PONG\r\n"
			}
			return reply
		}))
		r := buildAt(t, check.Defaults{}, "redis", fake.Host, fake.Port, "command", "X", "expect", "2").Check(t.Context(), check.Target{})
		if r.Code != 503 || r.Reason != check.ReasonFailed {
			t.Errorf("%q: %d %s %q", reply, r.Code, r.Reason, r.Body)
		}
	}
	for reply, want := range map[string]string{
		"*1000000000\r\n":           "has an impossible length",
		"*-2\r\n":                   "has an impossible length",
		"*1\r\n?x\r\n":              "has an element that is not Redis's",
		strings.Repeat("*1\r\n", 9): "has arrays in arrays, more than 8 deep",
	} {
		fake := checktest.Serve(t, redisServer(func(command []string) string {
			if command[0] == "PING" {
				return "+PONG\r\n"
			}
			return reply
		}))
		r := buildAt(t, check.Defaults{}, "redis", fake.Host, fake.Port, "command", "X").Check(t.Context(), check.Target{})
		if r.Code != 503 || r.Reason != check.ReasonProtocol || !strings.Contains(string(r.Body), want) {
			t.Errorf("%q: %d %s %q, want %q", reply, r.Code, r.Reason, r.Body, want)
		}
	}
	wantOptionErrors(t, "redis", map[string][]any{
		"expect: needs command":              {"host", "cache", "expect", "x"},
		"command: expected a command and it": {"host", "cache", "command", []any{""}},
		"role: no such role":                 {"host", "cache", "role", "master"},
		"role: lag of the role replica":      {"host", "cache", "role", "replica", "lag", "9s"},
		"host: expected an IP address, a ho": {"host", "/" + strings.Repeat("x", 200)},
		"use_tls: the server speaks no TLS ": {"host", "/run/redis.sock", "use_tls", true},
	})
	wantOptionErrors(t, "sentinel", map[string][]any{"role: no such option": {"host", "cache", "role", "primary"}})
}

// TestRedisOneConnection: with one free place for a client every check passes.
func TestRedisOneConnection(t *testing.T) {
	s := servertest.Redis(t, "--maxclients", "10")
	for range 9 {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "PING\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "+PONG\r\n" {
			t.Fatal(line, err)
		}
	}
	for range 100 {
		if r := buildAt(t, check.Defaults{}, "redis", servertest.Host, s.Port).Check(t.Context(), check.Target{}); r.Code != 200 {
			t.Fatalf("%d %q", r.Code, r.Body)
		}
	}
}

// TestRedisQuiet: no check leaves a connection, or a line in the server's log.
func TestRedisQuiet(t *testing.T) {
	run := func(pairs ...any) func(host string, port uint16) check.Result {
		return func(host string, port uint16) check.Result {
			return buildAt(t, check.Defaults{}, "redis", host, port, pairs...).Check(t.Context(), check.Target{})
		}
	}
	plain := servertest.Redis(t)
	// A server writes its last lines after its port is open.
	until(t, func() check.Result { return check.Result{Body: []byte(plain.Log())} }, "Ready to accept connections")
	checktest.RunQuiet(t, plain.Addr(), plain.Log, 500, run("role", "primary"))
	secure := servertest.RedisTLS(t, issue(t, loopback(), newAuthority(t)))
	// The server logs the connection by which the test has found it ready.
	until(t, func() check.Result { return check.Result{Body: []byte(secure.Log())} }, "unexpected eof while reading")
	checktest.RunQuiet(t, secure.Addr(), secure.Log, 500, run("use_tls", true, "role", "primary"))
}

// TestRedisClientCertificate: tls-auth-clients yes is Redis's default.
func TestRedisClientCertificate(t *testing.T) {
	a := newAuthority(t)
	ca, cert, key := pemFiles(t, a)
	s := servertest.RedisTLS(t, issue(t, loopback(), a), "--tls-auth-clients", "yes", "--tls-ca-cert-file", ca)
	named := issue(t, &x509.Certificate{DNSNames: []string{"cache.example"}}, a)
	byName := servertest.RedisTLS(t, named)
	with := []any{"use_tls", true, "ca_file", ca, "cert_file", cert, "key_file", key}
	tryLogins(t, check.Defaults{}, "redis", s, map[string]loginCase{
		"certificate":    {with, 200, 0, "Sent PING, got back +PONG"},
		"no certificate": {with[:4], 503, check.ReasonProtocol, ""},
	})
	tryLogins(t, check.Defaults{}, "redis", byName, map[string]loginCase{
		"name":          {append([]any{"server_name", "cache.example"}, with[:4]...), 200, 0, "Sent PING, got back +PONG"},
		"the host's":    {with[:4], 503, check.ReasonFailed, "The certificate of "},
		"another":       {append([]any{"server_name", "web.example"}, with[:4]...), 503, check.ReasonFailed, "The certificate of "},
		"by its own CA": {[]any{"use_tls", true}, 200, 0, "Sent PING, got back +PONG"},
	})
}

// The authorities are read with the configuration: a file that is replaced or removed later changes neither the configured
// check nor the check URL until a reload.
func TestAuthoritiesAreReadOnce(t *testing.T) {
	a := newAuthority(t)
	ca, _, _ := pemFiles(t, a)
	s := servertest.RedisTLS(t, issue(t, loopback(), a))
	c := buildAt(t, check.Defaults{}, "redis", servertest.Host, s.Port, "use_tls", true, "ca_file", ca)
	o := check.Options{Services: map[string][]*check.ConfiguredCheck{"cache": {c}}}
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]check.Result{
		"configured": c.Check(t.Context(), check.Target{}),
		"URL":        ask(t, o, check.Target{Protocol: "redis", Service: "cache", Host: servertest.Host, Port: s.Port}),
	} {
		if r.Code != 200 {
			t.Errorf("%s: %d %q, want 200", name, r.Code, r.Body)
		}
	}
}

// pemFiles writes the certificate of an authority and a client's certificate with its key to files.
func pemFiles(t *testing.T, a *authority) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	client := issue(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a)
	der, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Chmod(dir, 0o755); err != nil { // servers run as other users
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", a.cert.Raw), write("cert.pem", "CERTIFICATE", client.Certificate[0]), write("key.pem", "PRIVATE KEY", der)
}

func TestRedisUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "redis.sock")
	servertest.Redis(t, "--unixsocket", path, "--requirepass", "s3cret")
	c := build(t, check.Defaults{}, "redis", map[string]any{"host": path, "password": "s3cret", "role": "primary"})
	if got := c.Steps; len(got) != 1 || got[0].Name != "redis:"+path+":connect with auth" || c.Endpoint != (check.Endpoint{}) {
		t.Errorf("steps: %v %v", got, c.Endpoint)
	}
	// The server listens on its port before it listens on its socket.
	if r := until(t, func() check.Result { return c.Check(t.Context(), check.Target{}) }, "primary"); r.Code != 200 {
		t.Errorf("%d %q", r.Code, r.Body)
	}
	c = build(t, check.Defaults{}, "redis", map[string]any{"host": path + "2"})
	if r := c.Check(t.Context(), check.Target{}); r.Code != 503 || r.Reason != check.ReasonRefused || !strings.Contains(string(r.Body), path+"2: no such file or directory") {
		t.Errorf("no socket: %d %s %q", r.Code, r.Reason, r.Body)
	}
}

// TestRedisURLConfigured: a URL asks as the service's configured check does, else with the global keys.
func TestRedisURLConfigured(t *testing.T) {
	s := servertest.Redis(t, "--requirepass", "s3cret")
	o := check.Options{RedisPassword: "s3cret", Services: map[string][]*check.ConfiguredCheck{
		"other": {build(t, check.Defaults{}, "redis", map[string]any{"host": "cache", "password": "wr0ng"})},
		"beat":  {build(t, check.Defaults{}, "redis", map[string]any{"host": "cache", "password": "s3cret", "role": "replica", "command": "GET beat", "expect": "17"})},
	}}
	for name, c := range map[string]struct {
		service, uri string
		code         int
		body         string
	}{
		"global":             {"cache", "", 200, "Sent PING, got back +PONG"},
		"global, role":       {"cache", "primary", 200, "primary"},
		"configured":         {"other", "", 500, s.Addr() + " refuses the password: WRONGPASS"},
		"configured role":    {"beat", "", 503, "primary; replica wanted"},
		"the URL's role":     {"beat", "primary", 503, "Sent GET, got back ; 17 wanted"},
		"unknown role":       {"cache", "master", 400, `The role in the URL of redis is wrong: no such role "master"; there are any, primary, replica`},
		"role that is wrong": {"cache", "replica", 503, "primary; replica wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(t, o, check.Target{Protocol: "redis", Service: c.service, Host: servertest.Host, Port: s.Port, URI: c.uri})
			if r.Code != c.code || string(r.Body) != c.body {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, c.body)
			}
		})
	}
}
