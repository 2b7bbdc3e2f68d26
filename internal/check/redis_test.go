package check_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// redisServer answers each command with the result of answer. It closes the connection for "".
func redisServer(answer func(command []string) string) func(net.Conn) {
	return func(conn net.Conn) {
		r := bufio.NewReader(conn)
		line := func(kind byte) int {
			s, err := r.ReadString('\n')
			if err != nil || s[0] != kind {
				return -1
			}
			n, err := strconv.Atoi(strings.TrimSpace(s[1:]))
			if err != nil {
				return -1
			}
			return n
		}
		for {
			n := line('*')
			if n < 1 {
				return
			}
			var command []string
			for range n {
				size := line('$')
				if size < 0 {
					return
				}
				b := make([]byte, size+2)
				if _, err := io.ReadFull(r, b); err != nil {
					return
				}
				command = append(command, string(b[:size]))
			}
			reply := answer(command)
			if reply == "" {
				_ = conn.(*net.TCPConn).CloseWrite()
				return
			}
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	}
}

// bulk encodes s as a bulk string.
func bulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

const redisInfo = "# Server\r\nredis_version:7.0.15\r\nexecutable:/usr/bin/redis-server\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"

// healthyRedis is a server that requires a password, so that the suite sees every command of the check.
func healthyRedis(conn net.Conn) { serveRedis(conn, redisInfo) }

// serveRedis is healthyRedis with another INFO.
func serveRedis(conn net.Conn, info string) {
	loggedIn := false
	redisServer(func(command []string) string {
		switch {
		case command[0] == "AUTH":
			loggedIn = strings.Join(command[1:], " ") == "operator s3cret"
			if !loggedIn {
				return "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
			}
			return "+OK\r\n"
		case !loggedIn:
			return "-NOAUTH Authentication required.\r\n"
		case command[0] == "PING":
			return "+PONG\r\n"
		case command[0] == "INFO":
			return bulk(info)
		}
		return "-ERR unknown command\r\n"
	})(conn)
}

func TestRedisAnswers(t *testing.T) {
	secret := check.Options{RedisPassword: "s3cret"}
	leaky := func(reply string) func([]string) string {
		return func(command []string) string {
			if command[0] == "AUTH" {
				return strings.ReplaceAll(reply, "PASSWORD", command[1])
			}
			return "-NOAUTH Authentication required.\r\n"
		}
	}
	always := func(reply string) func([]string) string { return func([]string) string { return reply } }
	for name, c := range map[string]struct {
		options check.Options
		answer  func([]string) string
		code    int
		reason  check.Reason
		body    string // ADDR is replaced by the server's address
	}{
		"healthy":      {check.Options{}, always("+PONG\r\n"), 200, 0, "Sent PING, got back +PONG"},
		"not asked":    {secret, always("+PONG\r\n"), 200, 0, "Sent PING, got back +PONG"},
		"loading":      {check.Options{}, always("-LOADING Redis is loading the\x1b dataset in memory\r\n"), 500, check.ReasonFailed, "Sent PING, got back -LOADING Redis is loading the  dataset in memory"},
		"no password":  {check.Options{}, always("-NOAUTH Authentication required.\r\n"), 500, check.ReasonConfig, "Sent PING, got back -NOAUTH Authentication required. (no redis_password is configured)"},
		"before 2.8":   {check.Options{}, always("-ERR operation not permitted\r\n"), 500, check.ReasonConfig, "Sent PING, got back -ERR operation not permitted (no redis_password is configured)"},
		"other status": {check.Options{}, always("+PING\r\n"), 503, check.ReasonProtocol, "Sent PING, got back +PING"},
		"number":       {check.Options{}, always(":1\r\n"), 503, check.ReasonProtocol, `Sent PING, got back ":1" from ADDR`},
		"bulk":         {check.Options{}, always("$4\r\nPONG\r\n"), 503, check.ReasonProtocol, "Sent PING, got back $PONG"},
		"null":         {check.Options{}, always("$-1\r\n"), 503, check.ReasonProtocol, "The answer of ADDR has an impossible length"},
		"huge":         {check.Options{}, always("$999999999999\r\n"), 503, check.ReasonProtocol, "The answer of ADDR has an impossible length"},
		"no length":    {check.Options{}, always("$x\r\n"), 503, check.ReasonProtocol, "The answer of ADDR has an impossible length"},
		"more than it": {check.Options{}, always("$2\r\nPONG\r\n"), 503, check.ReasonProtocol, "The answer of ADDR is longer than it says"},
		"closes":       {check.Options{}, always(""), 503, check.ReasonProtocol, "Connection closed early (waiting for an answer from ADDR)"},
		// A server without AUTH repeats its arguments in the error.
		"leaky unknown": {secret, leaky("-ERR unknown command 'AUTH', with args beginning with: 'PASSWORD'\r\n"), 500, check.ReasonFailed, "ADDR refuses redis_password: ERR"},
		"leaky error":   {secret, leaky("-PASSWORD\r\n"), 500, check.ReasonFailed, "ADDR refuses redis_password: an unknown error"},
		"leaky number":  {secret, leaky(":PASSWORD\r\n"), 503, check.ReasonProtocol, "Sent AUTH, got back something that is not Redis from ADDR"},
		"leaky length":  {secret, leaky("$PASSWORD\r\n"), 503, check.ReasonProtocol, "The answer of ADDR has an impossible length"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, redisServer(c.answer))
			for _, protocol := range []string{"redis", "sentinel"} {
				r := ask(t, c.options, check.Target{Protocol: protocol, Host: s.Host, Port: s.Port})
				if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || r.Reason != c.reason || string(r.Body) != want {
					t.Errorf("%s: %d %s %q, want %d %s %q", protocol, r.Code, r.Reason, r.Body, c.code, c.reason, want)
				}
				if strings.Contains(fmt.Sprint(string(r.Body), r.Err), "s3cret") {
					t.Errorf("%s: shows the password: %s %v", protocol, r.Body, r.Err)
				}
			}
		})
	}
}

func TestRedisInfo(t *testing.T) {
	big := redisInfo
	for i := range 3000 {
		big += fmt.Sprintf("db%d:keys=%d,expires=0,avg_ttl=0\r\n", i, i)
	}
	sentinel := redisInfo + "# Sentinel\r\nsentinel_masters:2\r\n" +
		"master0:name=a,status=ok,address=10.0.0.1:6379,slaves=1,sentinels=3\r\nmaster1:name=b,status=ok,address=[2001:db8::1]:6379,slaves=1,sentinels=3\r\n"
	for name, c := range map[string]struct {
		info, uri string
		code      int
		body      string
		kind      string
	}{
		"all":              {redisInfo, "/", 200, `{"redis_version": "7.0.15", "executable": "/usr/bin/redis-server", "role": "master", "connected_slaves": "0"}`, "application/json"},
		"empty path":       {redisInfo, "", 200, `{"redis_version": "7.0.15", "executable": "/usr/bin/redis-server", "role": "master", "connected_slaves": "0"}`, "application/json"},
		"same name twice":  {"a:1\r\nb:2\r\na:3\r\n", "/", 200, `{"a": "3", "b": "2"}`, "application/json"},
		"odd bytes":        {"a\"\xff:<\x01:b\r\n", "/", 200, `{"a\"\ufffd": "\u003c\u0001:b"}`, "application/json"},
		"match":            {redisInfo, "/match?role=master", 200, "Match found: field role, value master", ""},
		"match any":        {redisInfo, "/match?nothing=1&role=slave&role=master", 200, "Match found: field role, value master", ""},
		"match escaped":    {redisInfo, "/match/?executable=%2Fusr%2Fbin%2Fredis-server", 200, "Match found: field executable, value /usr/bin/redis-server", ""},
		"match value":      {redisInfo, "/match?role=slave", 500, "No matching field found", ""},
		"match field":      {redisInfo, "/match?Role=master", 500, "No matching field found", ""},
		"match prefix":     {redisInfo, "/match?role=mast", 500, "No matching field found", ""},
		"match nothing":    {redisInfo, "/match", 500, "match needs a field and a value: /match?role=master", ""},
		"match empty":      {redisInfo, "/match?", 500, "match needs a field and a value: /match?role=master", ""},
		"match heading":    {redisInfo, "/match?%23%20Server=", 500, "No matching field found", ""},
		"sentinel":         {sentinel, "/match?redis_master=%5B2001:db8::1%5D:6379", 200, "Match found: field redis_master, value [2001:db8::1]:6379", ""},
		"sentinel, number": {sentinel, "/match?sentinel_masters=2", 200, "Match found: field sentinel_masters, value 2", ""},
		"no fields":        {"# Server\r\n", "/", 503, "Sent INFO, got back no fields from ADDR", ""},
		"last of many":     {big, "/match?db2999=keys%3D2999%2Cexpires%3D0%2Cavg_ttl%3D0", 200, "Match found: field db2999, value keys=2999,expires=0,avg_ttl=0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, redisServer(func(command []string) string { return bulk(c.info) }))
			for _, protocol := range []string{"redis-info", "sentinel-info"} {
				r := ask(t, check.Options{}, check.Target{Protocol: protocol, Host: s.Host, Port: s.Port, URI: c.uri})
				if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want || r.ContentType != c.kind {
					t.Errorf("%s: %d %q %q, want %d %q %q", protocol, r.Code, r.Body, r.ContentType, c.code, want, c.kind)
				}
			}
		})
	}
	t.Run("too long to pass on", func(t *testing.T) {
		s := checktest.Serve(t, redisServer(func([]string) string { return bulk(big) }))
		r := ask(t, check.Options{}, check.Target{Protocol: "redis-info", Host: s.Host, Port: s.Port, URI: "/"})
		var fields map[string]string
		if err := json.Unmarshal(r.Body, &fields); err != nil || len(r.Body) > check.MaxBody || len(fields) < 1000 || r.Code != 200 {
			t.Errorf("%d, %d bytes, %d fields: %v", r.Code, len(r.Body), len(fields), err)
		}
	})
	t.Run("error", func(t *testing.T) {
		s := checktest.Serve(t, redisServer(func([]string) string { return "-NOPERM this user has no permissions to run the 'info' command\r\n" }))
		r := ask(t, check.Options{}, check.Target{Protocol: "redis-info", Host: s.Host, Port: s.Port, URI: "/"})
		if want := "Sent INFO, got back -NOPERM this user has no permissions to run the 'info' command"; r.Code != 500 || string(r.Body) != want {
			t.Errorf("%d %q, want %q", r.Code, r.Body, want)
		}
	})
}

// TestRedisServers checks real servers: with and without a password and a user, a replica and a Sentinel.
func TestRedisServers(t *testing.T) {
	open := servertest.Redis(t)
	locked := servertest.Redis(t, "--requirepass", "s3cret", "--user", "operator", "on", ">pa55", "+@all")
	replica := servertest.Redis(t, "--replicaof", servertest.Host, fmt.Sprint(open.Port))
	sentinel := servertest.Sentinel(t, open, "")
	lockedSentinel := servertest.Sentinel(t, open, "requirepass s3cret")

	type answer struct {
		Code   int
		Reason check.Reason
		Body   string
	}
	pong := answer{200, 0, "Sent PING, got back +PONG"}
	for name, c := range map[string]struct {
		options  check.Options
		protocol string
		server   *servertest.Server
		uri      string
		want     answer
	}{
		"redis":                    {check.Options{}, "redis", open, "", pong},
		"redis, password unneeded": {check.Options{RedisPassword: "s3cret"}, "redis", open, "", pong},
		"redis, no password":       {check.Options{}, "redis", locked, "", answer{500, check.ReasonConfig, "Sent PING, got back -NOAUTH Authentication required. (no redis_password is configured)"}},
		"redis, password":          {check.Options{RedisPassword: "s3cret"}, "redis", locked, "", pong},
		"redis, wrong password":    {check.Options{RedisPassword: "wrong"}, "redis", locked, "", answer{500, check.ReasonFailed, locked.Addr() + " refuses redis_password: WRONGPASS"}},
		"redis, user":              {check.Options{RedisUsername: "operator", RedisPassword: "pa55"}, "redis", locked, "", pong},
		"redis, user, wrong":       {check.Options{RedisUsername: "operator", RedisPassword: "s3cret"}, "redis", locked, "", answer{500, check.ReasonFailed, locked.Addr() + " refuses redis_password: WRONGPASS"}},
		"sentinel":                 {check.Options{}, "sentinel", sentinel, "", pong},
		"sentinel, password":       {check.Options{RedisPassword: "s3cret"}, "sentinel", lockedSentinel, "", pong},
		"info, master":             {check.Options{}, "redis-info", open, "/match?role=master", answer{200, 0, "Match found: field role, value master"}},
		"info, replica":            {check.Options{}, "redis-info", replica, "/match?role=slave", answer{200, 0, "Match found: field role, value slave"}},
		"info, replica, no master": {check.Options{}, "redis-info", replica, "/match?role=master", answer{500, check.ReasonFailed, "No matching field found"}},
		"info, password":           {check.Options{RedisPassword: "s3cret"}, "redis-info", locked, "/match?role=master", answer{200, 0, "Match found: field role, value master"}},
		"info, sentinel":           {check.Options{}, "sentinel-info", sentinel, "/match?redis_mode=sentinel", answer{200, 0, "Match found: field redis_mode, value sentinel"}},
		"info, sentinel's master":  {check.Options{}, "sentinel-info", sentinel, "/match?redis_master=" + open.Addr(), answer{200, 0, "Match found: field redis_master, value " + open.Addr()}},
		"info, sentinel, password": {check.Options{RedisPassword: "s3cret"}, "sentinel-info", lockedSentinel, "/match?sentinel_masters=1", answer{200, 0, "Match found: field sentinel_masters, value 1"}},
		// Redis closes a connection that sends "Host:", as protection against web pages.
		"http asks redis": {check.Options{}, "http", open, "/", answer{503, check.ReasonProtocol, "Connection closed early (waiting for an answer from " + open.Addr() + ")"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(t, c.options, check.Target{Protocol: c.protocol, Host: servertest.Host, Port: c.server.Port, URI: c.uri})
			if diff := cmp.Diff(c.want, answer{r.Code, r.Reason, string(r.Body)}); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	r := ask(t, check.Options{}, check.Target{Protocol: "redis-info", Host: servertest.Host, Port: open.Port, URI: "/"})
	var fields map[string]string
	if err := json.Unmarshal(r.Body, &fields); err != nil || fields["tcp_port"] != fmt.Sprint(open.Port) || len(fields) < 50 {
		t.Errorf("INFO: %v %s", err, r.Body)
	}
}

func FuzzRedisAnswer(f *testing.F) {
	f.Add([]byte("+PONG\r\n"))
	f.Add([]byte("-NOAUTH\r\n+OK\r\n+PONG\r\n"))
	fuzzAnswers(f, "redis")
}

func FuzzRedisRoleAnswer(f *testing.F) {
	f.Add([]byte(bulk(redisInfo) + "+PONG\r\n"))
	f.Add([]byte(bulk("role:slave\r\nloading:0\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:1\r\nmaster_sync_in_progress:0\r\n") + "+PONG\r\n"))
	fuzzAnswersAt(f, "redis", "/replica?lag=10s")
}

func FuzzRedisInfoAnswer(f *testing.F) {
	f.Add([]byte(bulk(redisInfo)))
	f.Add([]byte("$-1\r\n"))
	fuzzAnswers(f, "redis-info")
}
