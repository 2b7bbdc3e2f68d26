package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDrain tests hadown --wait, hadown --safe and haup --wait on two hosts behind two HAProxies.
func TestDrain(t *testing.T) {
	t.Parallel()
	agent := freePort(t)
	both := startHosts(t, 2, "cache_time: 0\n", "-A", strconv.Itoa(agent))
	for _, h := range both {
		h.waitForUptime()
	}
	// Each subtest has its own service, so that all share the two daemons.
	runSubtests(t, []subtest{
		{"Rolling", func(t *testing.T) { testRolling(t, both, agent) }}, // the longest first
		{"FloodOfBalancers", testFloodOfBalancers},
		{"BalancerDies", func(t *testing.T) { testBalancerDies(t, both) }},
		{"Sessions", func(t *testing.T) { testSessions(t, both) }},
		{"Connections", func(t *testing.T) { testConnections(t, both) }},
		{"AgentStateOutlivesDaemon", testAgentStateOutlivesDaemon},
		{"Cookie", func(t *testing.T) { testCookie(t, both) }},
		{"Safe", func(t *testing.T) { testSafe(t, both) }},
		{"Drain", func(t *testing.T) { testDrain(t, both) }},
		{"Reload", func(t *testing.T) { testReload(t, both) }},
		{"Restart", func(t *testing.T) { testRestart(t, both) }},
		{"NoSendState", func(t *testing.T) { testNoSendState(t, both) }},
		{"SameNode", func(t *testing.T) { testSameNode(t, both) }},
		{"SafeOneBalancer", func(t *testing.T) { testSafeOneBalancer(t, both) }},
		{"Maint", func(t *testing.T) { testMaint(t, both, agent) }},
		{"Interrupt", func(t *testing.T) { testInterrupt(t, both, agent) }},
		{"Events", func(t *testing.T) { testEvents(t, both) }},
		{"HundredBalancers", func(t *testing.T) { testHundredBalancers(t, both) }},
		{"Kubernetes", func(t *testing.T) { testKubernetes(t, both, agent) }},
	})
}

// testSessions: hadown --wait returns after the last session has ended on both balancers, and within two check
// intervals. A session is a request, a tunnel through HTTP or a TCP connection.
func testSessions(t *testing.T, both []*host) {
	const inter = time.Second
	f := newFarm(t, both, farmOptions{inter: inter})
	web := f.services[0]
	web.startLongRequest(f.httpAddrs[0], "a")
	web.startLongRequest(f.httpAddrs[1], "b")
	upgraded := openTunnel(t, f.httpAddrs[1], "web1")
	raw := openTunnel(t, f.tcpAddrs[0], "web1")
	idle := dialBalancer(t, f.httpAddrs[0])
	if _, at := idle.get("/", "X-To: web1"); at != "web1" {
		t.Fatalf("the kept-alive connection is at %s", at)
	}
	f.waitForSessions(map[string]int{"lb1 web/web1": 1, "lb2 web/web1": 2, "lb1 raw/web1": 1, "lb2 raw/web1": 0})

	p := f.startHadown("--wait")
	f.waitForStates("DOWN", "UP")
	// Open sessions continue. The next request on a keep-alive connection goes to the other server.
	upgraded.expectEcho()
	raw.expectEcho()
	if _, at := idle.get("/", "X-To: web1"); at != "web2" {
		t.Errorf("after hadown the kept-alive connection is at %s", at)
	}
	web.release("a")
	web.release("b")
	f.waitForSessions(map[string]int{"lb1 web/web1": 0, "lb2 web/web1": 1, "lb1 raw/web1": 1})
	f.expectWaiting(p, "two tunnels are")
	raw.conn.Close()
	f.waitForSessions(map[string]int{"lb2 web/web1": 1, "lb1 raw/web1": 0})
	f.expectWaiting(p, "a tunnel through HTTP is")
	upgraded.conn.Close()
	released := time.Now()
	f.expectExit(p, 0, f.service+": out with 4 balancers")
	if late := time.Since(released); late > 2*inter {
		t.Errorf("it returned %v after the last session had ended, more than two intervals of %v:\n%s", late, inter, p.out.String())
	}
}

// testConnections: no balancer reports a connection that the old process of a reloaded HAProxy holds. hadown --wait shows
// it, and with --connections waits for it.
func testConnections(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	old := dialBalancer(t, fmt.Sprintf("127.0.0.1:%d", f.port))
	old.get("/")
	held := fmt.Sprintf("1 connection to port %d from 127.0.0.1", f.port)
	f.expectExit(f.startHadown("--wait"), 0, f.service+": out with 4 balancers after ", "; "+held)
	p := f.startHadown("--wait", "--connections")
	p.waitForOutput(t, f.service+": "+held)
	f.expectWaiting(p, "a connection is")
	old.conn.Close()
	f.expectExit(p, 0, f.service+": out with 4 balancers after ")
	if out := p.out.String(); strings.Contains(out, "; 1 connection") {
		t.Errorf("the last line has a connection that was closed:\n%s", out)
	}
}

// testDrain: with --drain, open sessions continue and new ones go to the other server. haup --wait returns when both
// balancers use the server again.
func testDrain(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	f.services[0].startLongRequest(f.httpAddrs[1], "a")
	f.waitForSessions(map[string]int{"lb2 web/web1": 1})
	p := f.startHadown("--drain", "--wait")
	f.waitForStates("NOLB", "UP")
	for range 10 {
		if a, err := get("http://" + f.httpAddrs[0] + "/"); err != nil || a.body != "web2" {
			t.Errorf("a new request under drain: %q, %v", a.body, err)
		}
	}
	for _, lb := range f.balancers {
		if row := lb.statByServer()["web/web1"]; row["chkfail"] != "0" || row["chkdown"] != "0" || row["downtime"] != "0" {
			t.Errorf("under drain HAProxy counts %s failed checks, %s times down, %s s", row["chkfail"], row["chkdown"], row["downtime"])
		}
	}
	f.expectWaiting(p, "a request is")
	overview := f.hosts[0].mustRunCommand("hastatus")
	for _, line := range []string{`drain +lb1 \(web/web1\) +NOLB +0 sessions +drain`, `drain +lb2 \(web/web1\) +NOLB +1 session +drain`} {
		if !regexp.MustCompile(line).MatchString(overview) {
			t.Errorf("hastatus has no line %q:\n%s", line, overview)
		}
	}
	f.services[0].release("a")
	f.expectExit(p, 0, "NOLB")
	if o := f.readOverride(); !strings.Contains(o, `"drain"`) {
		t.Errorf("the override is %s", o)
	}
	f.waitForStates("NOLB", "UP")

	up := f.hosts[0].startCommand("haup", f.service, "--wait")
	f.expectExit(up, 0, f.service+": up with 4 balancers")
	f.expectNoOverride()
	for _, lb := range f.balancers {
		if got := lb.serverStates(); got["web/web1"] != "UP" || got["raw/web1"] != "UP" {
			t.Errorf("haup --wait has returned, and the balancers show %v", got)
		}
	}
}

// testCookie: during a drain, clients with a cookie still reach the server. A later hadown --wait returns when they
// reach the other server.
func testCookie(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{inter: 400 * time.Millisecond, fall: 5})
	client := dialBalancer(t, f.httpAddrs[1])
	at := func(want string) {
		t.Helper()
		if resp, got := client.get("/", "Cookie: S=web1"); resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("a client with a cookie is answered %d by %s, want %s", resp.StatusCode, got, want)
		}
	}
	at("web1")
	f.expectExit(f.startHadown("--drain", "--wait"), 0)
	f.waitForStates("NOLB", "UP")
	at("web1")
	f.expectExit(f.startHadown("--wait"), 0)
	at("web2")
	// A drain does not bring a server up that is down.
	f.expectExit(f.startHadown("--drain", "--wait"), 0)
	f.waitForStates("DOWN", "UP")
	f.expectExit(f.hosts[0].startCommand("haup", f.service, "--wait"), 0)
	at("web1")
}

// testSafe: --safe writes the override if every balancer has another server, and nothing otherwise.
func testSafe(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	f.hosts[1].mustRunCommand("hadown", f.service, "-r", "memory", "--wait")
	f.waitForStates("UP", "DOWN")
	f.expectExit(f.startHadown("--safe", "--drain", "--wait"), 1, "nothing was changed", "no other server would be left, weight 1 of 1")
	f.expectNoOverride()
	f.hosts[1].mustRunCommand("haup", f.service, "--wait")
	f.expectExit(f.startHadown("--safe", "--drain", "--wait"), 0)
	f.waitForStates("NOLB", "UP")
	// The first server is out, so the second is the last one.
	if out, exit := f.hosts[1].runCommand("hadown", f.service, "--safe", "-r", "new release"); exit != 1 {
		t.Errorf("--safe for the last server: exit %d\n%s", exit, out)
	}
	f.waitForStates("NOLB", "UP")
}

// testSafeOneBalancer: --safe refuses if one balancer has no other server.
func testSafeOneBalancer(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	// An operator has taken the other server out of one backend of the second balancer.
	if out := f.balancers[1].adminCommand("set server raw/web2 state maint"); strings.TrimSpace(out) != "" {
		t.Fatal(out)
	}
	f.balancers[1].waitForStates(map[string]string{"raw/web2": "MAINT"})
	f.expectExit(f.startHadown("--safe"), 1, "lb2 (raw/web1)", "nothing was changed")
	f.expectNoOverride()
	for _, lb := range f.balancers {
		lb.waitForStates(map[string]string{"web/web1": "UP", "raw/web1": "UP"})
	}
}

// testMaint: --maint --wait drains first and writes maint after the last session. HAProxy's CSV has the reason.
func testMaint(t *testing.T, both []*host, agent int) {
	f := newFarm(t, both, farmOptions{agentPort: agent})
	f.services[0].startLongRequest(f.httpAddrs[1], "a")
	f.waitForSessions(map[string]int{"lb2 web/web1": 1})
	p := f.startHadown("--maint", "--wait")
	f.waitForStates("NOLB", "UP")
	f.expectWaiting(p, "a request is")
	if o := f.readOverride(); !strings.Contains(o, `"drain"`) {
		t.Errorf("while it waits the override is %s", o)
	}
	f.services[0].release("a")
	f.expectExit(p, 0)
	if o := f.readOverride(); !strings.Contains(o, `"maint"`) {
		t.Errorf("the override is %s", o)
	}
	f.waitForStates("MAINT", "UP")
	for _, lb := range f.balancers {
		eventually(t, func() error {
			if said := lb.statByServer()["web/web1"]["last_agt"]; said != "via agent : down (new release)" {
				return fmt.Errorf("HAProxy's CSV says of the agent %q", said)
			}
			return nil
		})
	}
	// Under MAINT HAProxy only asks the agent, so haup --wait first depends on the agent alone.
	f.expectExit(f.hosts[0].startCommand("haup", f.service, "--wait"), 0)
	f.waitForStates("UP", "UP")
}

// testInterrupt: an interrupt ends the wait, the override stays, and the command says so. HAProxy's page has the
// reason.
func testInterrupt(t *testing.T, both []*host, agent int) {
	f := newFarm(t, both, farmOptions{agentPort: agent})
	f.services[0].startLongRequest(f.httpAddrs[1], "a")
	f.waitForSessions(map[string]int{"lb2 web/web1": 1})
	for _, c := range []struct {
		args []string
		stay string // state in HAProxy afterwards
	}{
		{[]string{"--maint", "--wait"}, "NOLB"}, // the drain stays
		{[]string{"--wait"}, "DOWN (agent)"},
	} {
		p := f.startHadown(c.args...)
		p.waitForOutput(t, "lb2 (web/web1): "+strings.TrimSuffix(c.stay, " (agent)")+", 1 session open")
		_ = p.cmd.Process.Signal(syscall.SIGINT)
		f.expectExit(p, 130, "interrupt", "lb2 (web/web1)", f.service+" is ")
		if o := f.readOverride(); strings.Contains(o, `"drain"`) != (c.stay == "NOLB") { // which fails when there is none
			t.Errorf("%s, and then the override is %s", c.args, o)
		}
		f.waitForStates(c.stay, "UP")
	}
	// The same holds when the wait times out.
	f.expectExit(f.startHadown("--wait=1s"), 3, "time is up after 1s", "lb2 (web/web1): DOWN, 1 session open", f.service+" is down")
	f.waitForStates("DOWN (agent)", "UP")
	for _, addr := range f.httpAddrs {
		eventually(t, func() error {
			a, err := get("http://" + addr + "/stats")
			if err == nil && !strings.Contains(a.body, "via agent : down (new release)") {
				err = fmt.Errorf("HAProxy's page does not show why:\n%s", a.body)
			}
			return err
		})
	}
	f.services[0].release("a")
}

// testEvents: --json prints one event a line.
func testEvents(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	p := f.startHadown("--wait", "--json")
	f.expectExit(p, 0)
	var events []string
	for line := range strings.Lines(p.out.String()) {
		var e struct {
			Event, Result, Node, Status string
			Exit                        *int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		switch e.Event {
		case "written":
			events = append(events, e.Event)
		case "balancer":
			if e.Status == "done" {
				events = append(events, e.Node+" "+e.Status)
			}
		case "end":
			events = append(events, e.Event+" "+e.Result+" "+strconv.Itoa(*e.Exit))
		}
	}
	slices.Sort(events)
	if want := []string{"end out 0", "lb1 done", "lb1 done", "lb2 done", "lb2 done", "written"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q:\n%s", events, want, p.out.String())
	}
}

// TestDrainAfterDaemonRestart: hadown waits until a restarted daemon knows its balancers.
func TestDrainAfterDaemonRestart(t *testing.T) {
	t.Parallel()
	both := startHosts(t, 2, "cache_time: 0\n")
	f := newFarm(t, both, farmOptions{inter: 500 * time.Millisecond})
	f.services[0].startLongRequest(f.httpAddrs[1], "a")
	f.waitForSessions(map[string]int{"lb2 web/web1": 1})
	one := f.hosts[0]
	if err := one.stop(); err != nil {
		t.Errorf("hacheck: %v", err)
	}
	one.startHacheck(t)
	f.expectExit(f.startHadown("--wait=1s"), 3)
	p := f.startHadown("--wait")
	p.waitForOutput(t, "lb2 (web/web1): DOWN, 1 session open", "lb1 (web/web1): DOWN, 0 sessions open: out")
	f.expectWaiting(p, "a request is")
	f.services[0].release("a")
	f.expectExit(p, 0, f.service+": out with 4 balancers")
}

// testAgentStateOutlivesDaemon: the state from the agent stays when hacheck stops, and ends when hacheck runs again
// and sends another.
func testAgentStateOutlivesDaemon(t *testing.T) {
	agent := freePort(t)
	args := []string{"-A", strconv.Itoa(agent)}
	both := startHosts(t, 2, "cache_time: 0\n", args...)
	f := newFarm(t, both, farmOptions{agentPort: agent})
	one := f.hosts[0]
	one.mustRunCommand("hadown", f.service, "--maint", "-r", "new release")
	f.waitForStates("MAINT", "UP")
	if err := one.stop(); err != nil {
		t.Errorf("hacheck: %v", err)
	}
	for _, lb := range f.balancers {
		eventually(t, func() error {
			if row := lb.statByServer()["web/web1"]; row["agent_status"] != "L4CON" || row["status"] != "MAINT" {
				return fmt.Errorf("agent %s, server %s", row["agent_status"], row["status"])
			}
			return nil
		})
	}
	one.startHacheck(t, args...)
	f.waitForStates("MAINT", "UP")
	one.mustRunCommand("haup", f.service)
	f.waitForStates("UP", "UP")
}
