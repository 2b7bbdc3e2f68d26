package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/config"
	"hacheck/test/servertest"
)

// otherClient is an address that is not an address of this machine, and that can reach the daemon.
const otherClient = "192.0.2.7"

// listKey is a key of the configuration that takes a list.
type listKey struct {
	// file is the configuration file: ENTRY stands for "key: value", PORT for the port of a service that answers 200.
	file   string
	filled string
	empty  []string // spellings of the empty value; nil: "[]"
	// observe returns the effect of the value that a client sees.
	observe func(l *listTest) string

	// What observe returns without the key, with an empty list, with "null" and with filled; rejected if the daemon does
	// not start.
	absent, emptyList, null, full string
}

const rejected = "the daemon exits with 2 and names the key"

// listTest is one daemon with one value of one key.
type listTest struct {
	*testing.T
	d       *daemon
	service *service
	last    atomic.Pointer[http.Request]
}

// request returns the status code that a client at an address gets.
func (l *listTest) request(address, method, path string, headers ...string) int {
	l.Helper()
	local := &net.TCPAddr{IP: net.ParseIP(address)}
	c := &http.Client{Timeout: waitLimit, Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: local}).DialContext}}
	var form url.Values
	if method == http.MethodPost {
		form = url.Values{"status": {"up"}}
	}
	return sendRequest(l.T, c, method, l.d.url+path, form, headers...).code
}

// requestFromBoth returns the status codes for another client and for this machine.
func (l *listTest) requestFromBoth(method, path string) string {
	l.Helper()
	return fmt.Sprintf("other client %d, this machine %d", l.request(otherClient, method, path), l.request("127.0.0.1", method, path))
}

// pageByPROXY returns the code that a client gets for a page, if its PROXY line says that it is 198.51.100.9.
func (l *listTest) pageByPROXY(address string) string {
	l.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: waitLimit}).Dial("tcp", l.d.addr)
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(waitLimit))
	fmt.Fprintf(c, "PROXY TCP4 198.51.100.9 %s 1 2\r\nGET /status HTTP/1.0\r\n\r\n", address)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		l.Fatal(err)
	}
	defer r.Body.Close()
	return fmt.Sprint(r.StatusCode)
}

// requestOfCheck runs the checks of web and returns part of the request that the service got.
func (l *listTest) requestOfCheck(part func(r *http.Request) string) string {
	l.Helper()
	if a := l.d.get("/checks/web/0/"); a.code != 200 {
		return fmt.Sprint(a.code, a.body)
	}
	return part(l.last.Load())
}

const (
	httpFile   = `services: {web: {checks: [{type: http, url: "http://127.0.0.1:PORT/", ENTRY}]}}`
	digestFile = `services: {web: {checks: [{type: http, url: "http://127.0.0.1:PORT/digest", ENTRY}]}}`
)

// listKeys has a row for every key of the configuration that takes a list. The keys of checks are "type.option".
var listKeys = map[string]listKey{
	"check_hosts_allowed": {
		file: "ENTRY\n", filled: "[192.0.2.0/24]",
		observe: func(l *listTest) string {
			return fmt.Sprint(l.request("127.0.0.1", "GET", fmt.Sprintf("/tcp/web/%d", startService(l.T, otherClient, 0, serveOK).port), "X-Nerve-Check-IP: "+otherClient))
		},
		absent: "403", emptyList: "403", null: "403", full: "200",
	},
	"http_headers_to_copy": {
		file: "ENTRY\n", filled: "[X-One]",
		observe: func(l *listTest) string {
			l.request("127.0.0.1", "GET", fmt.Sprintf("/http/web/%d/", l.service.port), "Host: balancer.example", "X-One: 1")
			r := l.last.Load()
			return strings.ReplaceAll(r.Host, fmt.Sprint(l.service.port), "PORT") + " " + r.Header.Get("X-One")
		},
		absent: "balancer.example ", emptyList: "127.0.0.1:PORT ", null: rejected, full: "127.0.0.1:PORT 1",
	},
	"remote_spool_allowed": {
		file: "allow_remote_spool_changes: true\nENTRY\n", filled: "[192.0.2.0/24]",
		observe: func(l *listTest) string { return l.requestFromBoth("POST", "/spool/web/0/") },
		absent:  "other client 403, this machine 200", emptyList: "other client 403, this machine 403",
		null: rejected, full: "other client 200, this machine 403",
	},
	"status_allowed": {
		file: "ENTRY\n", filled: "[192.0.2.0/24]",
		observe: func(l *listTest) string {
			seen := l.requestFromBoth("GET", "/status")
			for _, page := range []string{"/", "/overview", "/recent", "/status/count", "/balancers", "/metrics"} {
				if other := l.requestFromBoth("GET", page); other != seen {
					return page + ": " + other
				}
			}
			return seen
		},
		absent: "other client 200, this machine 200", emptyList: "other client 403, this machine 200",
		null: rejected, full: "other client 200, this machine 200",
	},
	"proxy_protocol_from": {
		file: "status_allowed: [198.51.100.0/24]\nENTRY\n", filled: "[192.0.2.0/24]",
		observe: func(l *listTest) string {
			return l.pageByPROXY(otherClient) + ", this machine " + l.pageByPROXY("127.0.0.1")
		},
		absent: "400, this machine 400", emptyList: "400, this machine 400", null: "400, this machine 400",
		full: "200, this machine 400",
	},
	"services.checks": {
		file: "services: {web: {ENTRY}}", filled: "[{type: tcp, port: PORT}]",
		observe: func(l *listTest) string { return fmt.Sprint(l.d.get("/checks/web/0/").code) },
		absent:  rejected, emptyList: rejected, null: rejected, full: "200",
	},
	"services.checks.tags": {
		file: "services: {web: {checks: [{type: tcp, port: PORT, ENTRY}]}}", filled: "[a]",
		observe: func(l *listTest) string { return fmt.Sprint(l.d.get("/checks/web/0/").code) },
		absent:  "200", emptyList: "200", null: "200", full: "200",
	},
	"script.command": {
		file: "services: {web: {checks: [{type: script, ENTRY}]}}", filled: "[/bin/sh, -c, exit 0]",
		observe: func(l *listTest) string { return fmt.Sprint(l.d.get("/checks/web/0/").code) },
		absent:  rejected, emptyList: rejected, null: rejected, full: "200",
	},
	"script.ports": {
		file: "services: {web: {checks: [{type: script, command: [/bin/sh, -c, env | grep -q =8080$], ENTRY}]}}", filled: "[8080]",
		observe: func(l *listTest) string { return fmt.Sprint(l.d.get("/checks/web/8080/").code) },
		absent:  "503", emptyList: "503", null: "503", full: "200",
	},
	"redis.command":    redisCommand("redis"),
	"sentinel.command": redisCommand("sentinel"),
	"http.expected_codes": {
		file: httpFile, filled: "[204, 404]",
		observe: func(l *listTest) string { return fmt.Sprint(l.d.get("/checks/web/0/").code) },
		absent:  "200", emptyList: rejected, null: "200", full: "503",
	},
	"http.headers": {
		file: httpFile, filled: "[[X-One, 1]]", empty: []string{"[]", "{}"},
		observe: func(l *listTest) string {
			return l.requestOfCheck(func(r *http.Request) string { return "X-One: " + r.Header.Get("X-One") })
		},
		absent: "X-One: ", emptyList: "X-One: ", null: "X-One: ", full: "X-One: 1",
	},
	"http.params": {
		file: httpFile, filled: "{a: [1, 2]}", empty: []string{"{}", "{a: []}"},
		observe: func(l *listTest) string {
			return l.requestOfCheck(func(r *http.Request) string { return "?" + r.URL.RawQuery })
		},
		absent: "?", emptyList: "?", null: "?", full: "?a=1&a=2",
	},
	"http.cookies": {
		file: httpFile, filled: "{a: [1, 2]}", empty: []string{"{}", "{a: []}"},
		observe: func(l *listTest) string {
			return l.requestOfCheck(func(r *http.Request) string { return "Cookie: " + r.Header.Get("Cookie") })
		},
		absent: "Cookie: ", emptyList: "Cookie: ", null: "Cookie: ", full: "Cookie: a=1; a=2",
	},
	"http.auth": {
		file: httpFile, filled: "[u, p]",
		observe: func(l *listTest) string {
			return l.requestOfCheck(func(r *http.Request) string { return "Authorization: " + r.Header.Get("Authorization") })
		},
		absent: "Authorization: ", emptyList: rejected, null: "Authorization: ", full: "Authorization: Basic dTpw",
	},
	"http.digest_auth": {
		file: digestFile, filled: "[u, p]",
		observe: func(l *listTest) string {
			return fmt.Sprint(l.d.get("/checks/web/0/").code)
		},
		absent: "503", emptyList: rejected, null: "503", full: "200",
	},
}

// redisCommand is the row of a command that the server does not know.
func redisCommand(typ string) listKey {
	return listKey{
		file: "services: {web: {checks: [{type: " + typ + ", port: REDIS, ENTRY}]}}", filled: "[NOSUCHCOMMAND, a]",
		observe: func(l *listTest) string { return fmt.Sprint(l.d.get("/checks/web/0/").code) },
		absent:  "200", emptyList: rejected, null: "200", full: "503",
	}
}

// TestLists: every key that takes a list has its documented effect when it is absent, empty, null and filled. An
// empty list never admits a client.
func TestLists(t *testing.T) {
	if os.Getenv(commandsEnv) == "" {
		keys := keysWithLists(t)
		for _, key := range keys {
			if _, ok := listKeys[key]; !ok {
				t.Errorf("the configuration takes a list for %s, and this test has no row for it", key)
			}
		}
		for key := range listKeys {
			if !slices.Contains(keys, key) {
				t.Errorf("this test has a row for %s, and the configuration takes no list for it", key)
			}
		}
	}
	runInNamespace(t, syscall.CLONE_NEWNET, func(t *testing.T) {
		servertest.RunIP(t, "link set lo up")
		servertest.RunIP(t, "route add local 192.0.2.0/24 dev lo") // reachable, but no address of an interface
		for key, row := range listKeys {
			_, name, _ := cutLast(key, ".")
			t.Run(key, func(t *testing.T) {
				t.Parallel()
				row.expectState(t, name, "", row.absent)
				row.expectState(t, name, name+": null", row.null)
				row.expectState(t, name, name+": "+row.filled, row.full)
				empty := row.empty
				if empty == nil {
					empty = []string{"[]"}
				}
				for _, value := range empty {
					row.expectState(t, name, name+": "+value, row.emptyList)
				}
			})
		}
	})
}

// cutLast is strings.Cut at the last sep. Without sep, after is s.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// expectState starts a daemon whose file has the entry, and compares the effect that a client sees with want.
func (k listKey) expectState(t *testing.T, name, entry, want string) {
	t.Helper()
	l := &listTest{T: t}
	l.service = startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		l.last.Store(r)
		if r.URL.Path == "/digest" && r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Digest realm="r", nonce="n", qop="auth"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "OK")
	})
	file := strings.NewReplacer("ENTRY", entry).Replace(k.file)
	file = strings.ReplaceAll(file, "PORT", fmt.Sprint(l.service.port))
	if strings.Contains(file, "REDIS") {
		file = strings.ReplaceAll(file, "REDIS", fmt.Sprint(servertest.Redis(t).Port))
	}
	var got string
	if message := startupError(t, file); message == "" {
		l.d = startDaemon(t, file)
		got = k.observe(l)
	} else {
		got = rejected
		if !strings.Contains(message, name) {
			t.Errorf("%s: the error does not name %s: %s", file, name, message)
		}
	}
	if got != want {
		t.Errorf("with the file\n%s\ngot %q, want %q", file, got, want)
	}
}

// startupError returns the error output of a daemon that does not start with this file, or "" if the file is valid.
func startupError(t *testing.T, file string) string {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	if err := os.WriteFile(conf, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(bin(t, "hacheck"), "--check-config", "-c", conf).Run(); err == nil {
		return ""
	}
	out, err := exec.Command(bin(t, "hacheck"), "-B", "127.0.0.1", "-p", "0", "--spool-root", filepath.Join(t.TempDir(), "spool"), "-c", conf).CombinedOutput()
	if exitCode(err) != 2 {
		t.Errorf("the daemon ended with %v, want 2\n%s", err, out)
	}
	return string(out)
}

// keysWithLists returns the keys of the configuration and the options of checks that take a list.
func keysWithLists(t *testing.T) (keys []string) {
	t.Helper()
	for _, k := range config.Keys() {
		if k.Each != "" {
			keys = append(keys, k.Name)
		}
	}
	fields := 0
	for i := range reflect.TypeFor[config.Config]().NumField() {
		if f := reflect.TypeFor[config.Config]().Field(i); f.Type.Kind() == reflect.Slice && f.Name != "Services" {
			fields++
		}
	}
	if fields != len(keys) {
		t.Errorf("config.Config has %d lists, and %d keys say what each element has to be (Key.Each)", fields, len(keys))
	}
	for name, in := range map[string]reflect.Type{"services": reflect.TypeFor[config.Service](), "services.checks": reflect.TypeFor[check.Spec]()} {
		for i := range in.NumField() {
			if f := in.Field(i); f.Type.Kind() == reflect.Slice {
				keys = append(keys, name+"."+strings.ToLower(f.Name))
			}
		}
	}
	for _, typ := range check.Types() {
		for _, o := range typ.Options {
			if isListOption(typ.Name, o.Name) {
				keys = append(keys, typ.Name+"."+o.Name)
			}
		}
	}
	return keys
}

// isListOption reports whether an option of a check can be a list or a mapping of names to lists. It tries both.
func isListOption(typ, option string) bool {
	words := []any{"a", "b"}
	for _, value := range []any{words, []any{words}, []any{200}, map[string]any{"a": words}} {
		options := map[string]any{"use_tls": true, option: value} // some options are read with TLS only
		_, err := check.Build(check.Spec{Type: typ, Options: options}, check.Defaults{Host: "127.0.0.1"})
		if !namesOption(err, option) {
			return true
		}
	}
	return false
}

// namesOption reports whether an error of check.Build is about an option.
func namesOption(err error, option string) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return namesOption(err, option) })
	}
	var wrong *check.OptionError
	return errors.As(err, &wrong) && wrong.Option == option
}
