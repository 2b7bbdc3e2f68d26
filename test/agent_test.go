package test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/internal/spool"
)

// setOverride writes an override of a service; spool.Ready removes it.
func (d *daemon) setOverride(service string, state spool.State, reason string) {
	d.t.Helper()
	dir, err := spool.OpenDir(d.spool)
	if err != nil {
		d.t.Fatal(err)
	}
	k := spool.Key{Service: service}
	if state == spool.Ready {
		err = dir.Remove(k)
	} else {
		err = dir.Write(spool.Entry{Key: k, State: state, Reason: reason})
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// waitForAgent waits until the server of every backend has the status of want, such as "DOWN (agent)". It returns
// statByBackend.
func (h *haproxy) waitForAgent(want map[string]string) map[string]map[string]string {
	h.t.Helper()
	var servers map[string]map[string]string
	eventually(h.t, func() error {
		servers = h.statByBackend()
		var wrong []string
		for _, backend := range slices.Sorted(maps.Keys(want)) {
			s := servers[backend]
			if s["status"] != want[backend] {
				wrong = append(wrong, fmt.Sprintf("%s is %q (%s; %s), want %q", backend, s["status"], s["last_chk"], s["last_agt"], want[backend]))
			}
		}
		if wrong != nil {
			return fmt.Errorf("%s", strings.Join(wrong, "; "))
		}
		return nil
	})
	return servers
}

// TestHAProxyShowsAgentState: HAProxy shows every state of an override and its reason, and keeps the configured
// weight. The checks of backend direct go to the service itself and those of proxied through hacheck. Backend own
// uses the agent port of the service and sends no text.
func TestHAProxyShowsAgentState(t *testing.T) {
	t.Parallel()
	own, page := freePort(t), freePort(t)
	d := startDaemon(t, fmt.Sprintf("cache_time: 0\nservices: {web: {agent_listen: \"127.0.0.1:%d\"}, other: {agent_listen: \"127.0.0.1:%d\"}}\n", own, freePort(t)))
	web := startService(t, "127.0.0.1", 0, serveOK)
	h := startHAProxy(t, fmt.Sprintf(`
listen page
    bind 127.0.0.1:%[4]d
    stats enable
    stats uri /
backend direct
    option httpchk GET /
    server s1 127.0.0.1:%[1]d weight 50 check agent-check agent-port %[3]d agent-inter 200ms agent-send "web\n"
backend proxied
    option httpchk GET /http/web/%[1]d/
    http-check disable-on-404
    server s1 127.0.0.1:%[1]d weight 50 check port %[2]d agent-check agent-port %[3]d agent-inter 200ms agent-send "web:%[1]d\n"
backend own
    option httpchk GET /
    server s1 127.0.0.1:%[1]d weight 50 check agent-check agent-port %[3]d agent-inter 500ms
backend other
    option httpchk GET /
    server s1 127.0.0.1:%[1]d weight 50 check agent-check agent-port %[3]d agent-inter 200ms agent-send "other\r\n"
`, web.port, d.port, own, page))
	all := func(status string) map[string]string {
		return map[string]string{"direct": status, "proxied": status, "own": status, "other": "UP"}
	}
	h.waitForAgent(all("UP"))
	for _, c := range []struct {
		state     spool.State
		reason    string
		status    string
		lastAgent string
	}{
		{spool.Down, "kernel #2, see <wiki> & größe", "DOWN (agent)", "via agent : down (kernel #2, see <wiki> & größe)"},
		{spool.Ready, "", "UP", "via agent : up"},
		{spool.Drain, "slowly", "DRAIN (agent)", "via agent : up"},
		{spool.Ready, "", "UP", "via agent : up"},
		{spool.Maint, "disk", "MAINT", "via agent : down (disk)"},
		{spool.Ready, "", "UP", "via agent : up"},
		{spool.Maint, "disk", "MAINT", "via agent : down (disk)"},
		{spool.Down, "still", "DOWN (agent)", "via agent : down (still)"},
		{spool.ForceUp, "trust me", "UP", "via agent : up"},
		{spool.Down, "", "DOWN (agent)", "via agent : down"},
		{spool.Ready, "", "UP", "via agent : up"},
	} {
		t.Logf("%v %s", c.state, c.reason)
		d.setOverride("web", c.state, c.reason)
		want := all(c.status)
		if c.state == spool.Drain {
			want["proxied"] = "NOLB" // the check drains as well, and HAProxy shows its state first
		}
		servers := h.waitForAgent(want)
		for backend := range all("") {
			if w := servers[backend]["weight"]; w != "50" {
				t.Errorf("%v: %s has weight %s, want it left alone", c.state, backend, w)
			}
			if backend != "other" {
				eventually(t, func() error { // during an agent check the text is empty
					if got := h.statByBackend()[backend]["last_agt"]; got != c.lastAgent {
						return fmt.Errorf("%v: %s shows %q, want %q", c.state, backend, got, c.lastAgent)
					}
					return nil
				})
			}
		}
		// HAProxy's page shows the reason with HTML escapes. For servers in maint it shows no check.
		if c.status == "DOWN (agent)" && c.reason != "" {
			shown, _, _ := strings.Cut(c.lastAgent, " <")
			eventually(t, func() error {
				a, err := get("http://127.0.0.1:" + strconv.Itoa(page) + "/")
				if err == nil && !strings.Contains(a.body, shown) {
					err = fmt.Errorf("HAProxy's page does not show %q", shown)
				}
				return err
			})
		}
	}
}

// TestAgentStateOutlivesDaemon: HAProxy keeps the last state of the agent after hacheck has stopped, also if hacheck
// stops during an agent check.
func TestAgentStateOutlivesDaemon(t *testing.T) {
	t.Parallel()
	states := map[string]spool.State{"ready": spool.Ready, "down": spool.Down, "drain": spool.Drain, "maint": spool.Maint}
	var config, conf strings.Builder
	config.WriteString("services:\n")
	web := startService(t, "127.0.0.1", 0, serveOK)
	want := map[string]string{}
	for service := range states {
		port := freePort(t)
		fmt.Fprintf(&config, "  %s: {agent_listen: \"127.0.0.1:%d\"}\n", service, port)
		status := map[string]string{"ready": "UP", "down": "DOWN (agent)", "drain": "DRAIN (agent)", "maint": "MAINT"}[service]
		// hacheck waits 250 ms for the line end, and for a client that sends nothing.
		for name, send := range map[string]string{"line": service + `\n`, "half": service, "none": ""} {
			if send != "" {
				send = `agent-send "` + send + `"`
			}
			fmt.Fprintf(&conf, "backend %s-%s\n    option httpchk GET /\n    server s1 127.0.0.1:%d check agent-check agent-port %d agent-inter 300ms %s\n",
				service, name, web.port, port, send)
			want[service+"-"+name] = status
		}
	}
	d := startDaemon(t, config.String())
	for service, state := range states {
		if state != spool.Ready {
			d.setOverride(service, state, "why")
		}
	}
	h := startHAProxy(t, conf.String())
	h.waitForAgent(want)
	changes := func() (n int) {
		for _, s := range h.statByBackend() {
			down, err := strconv.Atoi(s["chkdown"])
			if err != nil {
				t.Fatal(err)
			}
			n += down
		}
		return n
	}
	before := changes()
	asking := true
	eventually(t, func() error { // HAProxy has just connected, and hacheck waits for the line end
		was := asking
		asking = strings.HasPrefix(h.statByBackend()["ready-half"]["agent_status"], "*")
		if was || !asking {
			return fmt.Errorf("the agent is not being asked now: %v, before: %v", asking, was)
		}
		return nil
	})
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // HAProxy has tried to connect
		for backend, s := range h.statByBackend() {
			if s["agent_status"] != "L4CON" {
				return fmt.Errorf("%s: agent is %q", backend, s["agent_status"])
			}
		}
		return nil
	})
	for backend, s := range h.statByBackend() {
		if s["status"] != want[backend] {
			t.Errorf("%s is %q after hacheck has ended, want %q", backend, s["status"], want[backend])
		}
	}
	if after := changes(); after != before {
		t.Errorf("servers have gone down %d times since the stop", after-before)
	}
	if out := h.out.String(); strings.Contains(out, "Ignoring incomplete line") {
		t.Error("HAProxy has read half a line")
	}
}

// TestNoTrafficAfterMaintBeforeCheck: after maint a failing server gets no traffic before HAProxy has checked it. It
// gets traffic once a check has passed.
func TestNoTrafficAfterMaintBeforeCheck(t *testing.T) {
	t.Parallel()
	agent, front := freePort(t), freePort(t)
	d := startDaemon(t, fmt.Sprintf("cache_time: 0\nservices: {web: {agent_listen: \"127.0.0.1:%d\"}}\n", agent))
	var failing atomic.Bool
	var checks, early atomic.Int64
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/health":
			checks.Add(1)
		case failing.Load():
			early.Add(1)
		}
		if failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "OK")
	})
	h := startHAProxy(t, fmt.Sprintf(`
listen front
    bind 127.0.0.1:%d
    retries 0
    option httpchk GET /http/web/%[2]d/health
    server s1 127.0.0.1:%[2]d check port %[3]d inter 1s fastinter 1s downinter 1s agent-check agent-port %[4]d agent-inter 100ms agent-send "web\n"
`, front, web.port, d.port, agent))
	h.waitForAgent(map[string]string{"front": "UP"})

	// One client sends requests all the time.
	var answers, refusals atomic.Int64
	done, clientEnded := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { <-clientEnded })
	t.Cleanup(func() { close(done) })
	go func() {
		defer close(clientEnded)
		for {
			select {
			case <-done:
				return
			default:
			}
			switch a, err := get("http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(front)) + "/traffic"); {
			case err != nil:
				t.Errorf("ask HAProxy: %v", err)
				return
			case a.code == http.StatusServiceUnavailable:
				refusals.Add(1)
			default:
				answers.Add(1)
			}
		}
	}()
	waitForMore := func(what string, n *atomic.Int64, by int64) {
		t.Helper()
		from := n.Load()
		eventually(t, func() error {
			if got := n.Load() - from; got < by {
				return fmt.Errorf("%d %s, want %d more", got, what, by)
			}
			return nil
		})
	}
	waitForMore("answers", &answers, 10)
	for range 3 {
		d.setOverride("web", spool.Maint, "disk")
		h.waitForAgent(map[string]string{"front": "MAINT"})
		waitForMore("refusals", &refusals, 2)
		failing.Store(true)
		before := checks.Load()
		d.setOverride("web", spool.Ready, "")
		waitForMore("checks", &checks, 2)
		if n := early.Load(); n > 0 {
			t.Fatalf("%d requests reached a server that was not well, %d checks after maint", n, checks.Load()-before)
		}
		began := time.Now()
		failing.Store(false)
		waitForMore("answers", &answers, 10)
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("traffic came back after %v: it has waited for more than a check", took)
		}
	}
}
