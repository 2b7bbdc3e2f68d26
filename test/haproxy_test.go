package test

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hacheck/test/servertest"
)

// haproxy is a running HAProxy with an admin socket.
type haproxy struct {
	*process
	t    testing.TB
	sock string
}

// startHAProxy starts HAProxy with the given proxies.
func startHAProxy(t testing.TB, proxies string) *haproxy {
	t.Helper()
	// A Unix socket's path holds 107 bytes, which a directory named after the test may exceed.
	dir, err := os.MkdirTemp("", "haproxy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &haproxy{t: t, sock: filepath.Join(dir, "admin.sock")}
	conf := filepath.Join(dir, "haproxy.cfg")
	text := `
global
    stats socket ` + h.sock + ` mode 600 level admin
    # On SIGTERM it ends at once: nothing has to be finished here.
    hard-stop-after 1s
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout check 5s
    # A check every 200 ms, and the first one decides, so that the tests are fast.
    default-server inter 200ms fastinter 200ms downinter 200ms rise 1 fall 1
` + proxies
	servertest.CheckHAProxyNames(t, text)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.process = start(t, servertest.FindHAProxy(t), "-db", "-f", conf)
	eventually(t, func() error {
		select {
		case <-h.done:
			t.Fatalf("haproxy ended at its start: %v\n%s\n%s", h.err, h.out.String(), text)
		default:
		}
		c, err := net.Dial("unix", h.sock)
		if err == nil {
			c.Close()
		}
		return err
	})
	return h
}

// adminCommand sends a command to the admin socket and returns the answer.
func (h *haproxy) adminCommand(command string) string {
	h.t.Helper()
	c, err := net.Dial("unix", h.sock)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		h.t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(answer)
}

// statByBackend returns the servers in "show stat", by backend: column to value.
func (h *haproxy) statByBackend() map[string]map[string]string {
	h.t.Helper()
	servers := map[string]map[string]string{}
	for _, row := range h.statByServer() {
		servers[row["pxname"]] = row
	}
	return servers
}

// statByServer returns the servers in "show stat", by "backend/server": column to value.
func (h *haproxy) statByServer() map[string]map[string]string {
	h.t.Helper()
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(h.adminCommand("show stat"), "# "))).ReadAll()
	if err != nil {
		h.t.Fatalf("read show stat: %v", err)
	}
	servers := map[string]map[string]string{}
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, column := range rows[0] {
			m[column] = row[i]
		}
		if m["type"] == "2" {
			servers[m["pxname"]+"/"+m["svname"]] = m
		}
	}
	return servers
}

// operStates returns srv_op_state of "show servers state" by backend: "2" is running, "0" is stopped.
func (h *haproxy) operStates() map[string]string {
	h.t.Helper()
	states := map[string]string{}
	for line := range strings.Lines(h.adminCommand("show servers state")) {
		if f := strings.Fields(line); len(f) > 5 && !strings.HasPrefix(line, "#") {
			states[f[1]] = f[5]
		}
	}
	return states
}

// waitForChecks waits until the server of every backend has the status and the check result of want, such as "UP L7OK
// 200". Both reports of HAProxy must agree.
func (h *haproxy) waitForChecks(want map[string]string) {
	h.t.Helper()
	eventually(h.t, func() error {
		servers, oper := h.statByBackend(), h.operStates()
		var wrong []string
		for backend, w := range want {
			s := servers[backend]
			if got := s["status"] + " " + s["check_status"] + " " + s["check_code"]; got != w {
				wrong = append(wrong, fmt.Sprintf("%s is %q (%s), want %q", backend, got, s["last_chk"], w))
			}
			op := map[bool]string{true: "2", false: "0"}[strings.HasPrefix(w, "UP ")]
			if oper[backend] != op {
				wrong = append(wrong, fmt.Sprintf("%s has srv_op_state %s, want %s", backend, oper[backend], op))
			}
		}
		if wrong != nil {
			return fmt.Errorf("%s", strings.Join(wrong, "; "))
		}
		return nil
	})
}

const (
	up   = "UP L7OK 200"
	down = "DOWN L7STS 503"
)

// TestHAProxyFollowsOverrides is the main job of hacheck: HAProxy takes every server out after `hadown all` and
// brings it back after `haup all`, with each way to configure its check.
func TestHAProxyFollowsOverrides(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "cache_time: 15\n")
	var asked sync.Map
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method+" "+r.RequestURI, true)
		serveOK(w, r)
	})
	backends := map[string]string{
		// by name: the lines that configure the check; PORT is the port of the service
		"get":       "option httpchk GET /http/get/PORT/get",
		"options":   "option httpchk /http/options/PORT/options", // no method: HAProxy sends OPTIONS
		"nohost":    "option httpchk GET /http/nohost/PORT/nohost HTTP/1.1",
		"sendstate": "option httpchk GET /http/sendstate/0/sendstate\n    http-check send-state",
		"slashes":   "option httpchk GET /http/slashes/PORT//slashes",
		"tcp":       "mode tcp\n    option httpchk GET /tcp/tcp/PORT/status",
		// The default check is "OPTIONS /". It names no service, so the answer must never be healthy.
		"plain": "option httpchk\n    http-check send-state",
	}
	var conf strings.Builder
	allUp, allDown := map[string]string{"plain": "DOWN L7STS 404"}, map[string]string{"plain": "DOWN L7STS 404"}
	for name, lines := range backends {
		fmt.Fprintf(&conf, "backend %s\n    %s\n    server s1 127.0.0.1:%d check addr 127.0.0.1 port %d\n",
			name, strings.ReplaceAll(lines, "PORT", strconv.Itoa(web.port)), web.port, d.port)
		if name != "plain" {
			allUp[name], allDown[name] = up, down
		}
	}
	h := startHAProxy(t, conf.String())
	h.waitForChecks(allUp)

	d.mustRun("hadown", "all", "-r", "kernel upgrade")
	if a := d.get("/http/get/" + strconv.Itoa(web.port) + "/get"); a.code != 503 {
		t.Errorf("the first request after hadown all: %d %s", a.code, a.body)
	}
	h.waitForChecks(allDown)
	d.mustRun("haup", "all")
	if a := d.get("/http/get/" + strconv.Itoa(web.port) + "/get"); a.code != 200 {
		t.Errorf("the first request after haup all: %d %s", a.code, a.body)
	}
	h.waitForChecks(allUp)

	// An override of one service: the state of the others must not change.
	flaps := func() string {
		var s []string
		for name, row := range h.statByBackend() {
			if name != "get" {
				s = append(s, name+" "+row["chkdown"])
			}
		}
		slices.Sort(s)
		return strings.Join(s, ", ")
	}
	before := flaps()
	d.mustRun("hadown", "get", "-r", "one alone")
	one := maps.Clone(allUp)
	one["get"] = down
	h.waitForChecks(one)
	d.mustRun("haup", "get")
	h.waitForChecks(allUp)
	if after := flaps(); after != before {
		t.Errorf("times down before and after hadown of one service:\n%s\n%s", before, after)
	}

	// With any check of HAProxy, the service gets the same request: GET with an unchanged path.
	var got []string
	asked.Range(func(request, _ any) bool {
		got = append(got, request.(string))
		return true
	})
	slices.Sort(got)
	if want := []string{"GET //slashes", "GET /get", "GET /nohost", "GET /options", "GET /sendstate"}; !slices.Equal(got, want) {
		t.Errorf("the service was asked %q, want %q", got, want)
	}
}

// TestHAProxyFollowsService: without an override, the answer of the service decides.
func TestHAProxyFollowsService(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "cache_time: 0\n") // HAProxy checks every 200 ms and must see a change at once
	var failing atomic.Bool
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !failing.Load():
			serveOK(w, r)
		case r.URL.Path == "/redirect":
			// HAProxy treats a 3xx as healthy. hacheck passes the code of the service on and follows no redirect.
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case r.URL.Path == "/elsewhere":
			t.Error("a redirect was followed")
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	h := startHAProxy(t, fmt.Sprintf(`
backend error
    option httpchk GET /http/web/%[1]d/error
    server s1 127.0.0.1:%[1]d check port %[2]d
backend redirect
    option httpchk GET /http/web/%[1]d/redirect
    server s1 127.0.0.1:%[1]d check port %[2]d
backend refused
    option httpchk GET /tcp/web/%[3]d
    server s1 127.0.0.1:%[1]d check port %[2]d
`, web.port, d.port, freePort(t)))
	h.waitForChecks(map[string]string{"error": up, "redirect": up, "refused": down})
	failing.Store(true)
	h.waitForChecks(map[string]string{"error": "DOWN L7STS 500", "redirect": "UP L7OK 302"})
	failing.Store(false)
	h.waitForChecks(map[string]string{"error": up, "redirect": up})
}
