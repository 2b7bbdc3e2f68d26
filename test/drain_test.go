package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// farm is two HAProxy processes in front of one service on two hosts. Both balancers have a backend "web" that
// speaks HTTP and a backend "raw" that passes TCP on, with the servers web1 and web2 of the two hosts.
type farm struct {
	t       testing.TB
	service string
	inter   time.Duration // between two checks
	hosts   []*host
	works   []*work
	lbs     []*haproxy
	http    []string // addresses of the balancers' HTTP proxies
	tcp     []string // and of the TCP proxies
}

// layout says how a farm differs from one with send-state, disable-on-404 and a check every 200 ms.
type layout struct {
	inter time.Duration    // between two checks
	mute  bool             // no send-state
	fall  int              // HAProxy's, 1 when 0
	agent int              // port for agent-check, which is not used when it is 0
	node  string           // of both balancers; otherwise they are lb1 and lb2
	lines map[int][]string // further lines of a balancer's backends
}

// newFarm builds a farm on hosts whose hachecks run.
func newFarm(t testing.TB, both []*host, l layout) *farm {
	t.Helper()
	f := &farm{t: t, service: strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:])}
	port := freePort(t)
	for i, h := range both {
		f.hosts = append(f.hosts, h.in(t))
		f.works = append(f.works, startWork(t, h.ip, port, fmt.Sprintf("web%d", i+1)))
	}
	f.inter = l.inter
	if f.inter == 0 {
		f.inter = 200 * time.Millisecond
	}
	inter := f.inter.String()
	for lb := range 2 {
		node := l.node
		if node == "" {
			node = fmt.Sprintf("lb%d", lb+1)
		}
		lines := slices.Concat(l.lines[lb], []string{"http-check disable-on-404"})
		if !l.mute {
			lines = append(lines, "http-check send-state")
		}
		if l.agent != 0 {
			lines = append(lines, fmt.Sprintf(`default-server agent-check agent-port %d agent-inter %s agent-send "%s\n"`, l.agent, inter, f.service))
		}
		urlPort := 0
		if l.mute {
			urlPort = port
		}
		httpPort, tcpPort := freePort(t), freePort(t)
		f.http = append(f.http, fmt.Sprintf("127.0.0.1:%d", httpPort))
		f.tcp = append(f.tcp, fmt.Sprintf("127.0.0.1:%d", tcpPort))
		f.lbs = append(f.lbs, startHAProxy(t, fmt.Sprintf(`
global
    node %s
    hard-stop-after 60s
defaults
    mode http
    timeout connect 5s
    timeout client 90s
    timeout server 90s
    timeout check 5s
    default-server inter %[2]s fastinter %[2]s downinter %[2]s rise 1 fall %[10]d
frontend front-web
    bind 127.0.0.1:%[3]d
    stats uri /stats
    stats show-legends
    default_backend web
frontend front-raw
    mode tcp
    bind 127.0.0.1:%[4]d
    default_backend raw
backend web
    use-server web1 if { req.hdr(X-To) web1 }
    use-server web2 if { req.hdr(X-To) web2 }
    option httpchk GET /http/%[5]s/%[9]d/
    %[6]s
    cookie S insert indirect
    server web1 127.0.0.1:%[7]d check port %[8]d cookie web1
    server web2 127.0.0.2:%[7]d check port %[8]d cookie web2
backend raw
    mode tcp
    option httpchk GET /tcp/%[5]s/%[7]d/
    %[6]s
    server web1 127.0.0.1:%[7]d check port %[8]d
    server web2 127.0.0.2:%[7]d check port %[8]d
`, node, inter, httpPort, tcpPort, f.service, strings.Join(lines, "\n    "), port, f.hosts[0].port, urlPort, max(1, l.fall))))
	}
	f.show("UP", "UP")
	if !l.mute {
		for _, h := range f.hosts {
			h.asked(f.service, 4)
		}
	}
	return f
}

// asked waits until n rows of balancers are known to ask about the service, each with its interval.
func (h *host) asked(service string, n int) {
	h.t.Helper()
	eventually(h.t, func() error {
		r := h.balancers(service)
		known := 0
		for _, b := range r.Balancers {
			if b.Interval > 0 {
				known++
			}
		}
		if known < n {
			return fmt.Errorf("%s knows %d balancers, want %d: %+v", h.ip, known, n, r.Balancers)
		}
		return nil
	})
}

// show waits until every balancer that runs has the servers of the two hosts in these states.
func (f *farm) show(web1, web2 string) {
	f.t.Helper()
	for _, lb := range f.lbs {
		if !lb.ended() {
			lb.shows(map[string]string{"web/web1": web1, "raw/web1": web1, "web/web2": web2, "raw/web2": web2})
		}
	}
}

// tell waits until the balancers have told the first host's hacheck how many sessions they have with it, by "node server".
func (f *farm) tell(want map[string]int) {
	f.t.Helper()
	eventually(f.t, func() error {
		got := map[string]int{}
		for _, b := range f.hosts[0].balancers(f.service).Balancers {
			if b.Sessions != nil {
				got[b.Node+" "+b.Server] = *b.Sessions
			}
		}
		for row, n := range want {
			if m, ok := got[row]; !ok || m != n {
				return fmt.Errorf("the balancers tell of sessions %v, want %v", got, want)
			}
		}
		return nil
	})
}

// down starts hadown on the first host.
func (f *farm) down(args ...string) *process {
	f.t.Helper()
	return f.hosts[0].begin("hadown", append([]string{f.service, "-r", "new release"}, args...)...)
}

// waits fails the test if the command ends while something is open, for as long as two further checks of each
// balancer and the command's next look at them take.
func (f *farm) waits(p *process, open string) {
	f.t.Helper()
	select {
	case <-p.done:
		f.t.Fatalf("%s has ended (%v) while %s open, after printing:\n%s", p.name, p.err, open, p.out.String())
	case <-time.After(2*f.inter + 300*time.Millisecond):
	}
}

// says waits until the command has printed all of these.
func (p *process) says(t testing.TB, texts ...string) {
	t.Helper()
	eventually(t, func() error {
		for _, s := range texts {
			if out := p.out.String(); !strings.Contains(out, s) {
				return fmt.Errorf("%s has not printed %q but:\n%s", p.name, s, out)
			}
		}
		return nil
	})
}

// ends waits for the command to end with this exit code, having printed these.
func (f *farm) ends(p *process, want int, texts ...string) {
	f.t.Helper()
	if exit := p.exit(f.t); exit != want {
		f.t.Fatalf("%s: exit %d, want %d, after printing:\n%s", p.name, exit, want, p.out.String())
	}
	p.says(f.t, texts...)
}

// override returns the first host's spool file about the service.
func (f *farm) override() string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.hosts[0].spool, f.service))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// none fails the test if there is an override about the service on the first host.
func (f *farm) none() {
	f.t.Helper()
	if _, err := os.Stat(filepath.Join(f.hosts[0].spool, f.service)); err == nil {
		f.t.Errorf("there is an override: %s", f.override())
	}
}

// TestDrain is what hadown --wait, --safe and haup --wait are for, on two hosts behind two HAProxies.
func TestDrain(t *testing.T) {
	t.Parallel()
	agent := freePort(t)
	both := hosts(t, 2, "cache_time: 0\n", "-A", strconv.Itoa(agent))
	for _, h := range both {
		h.settled()
	}
	// One service each, so that all can do with the same two daemons.
	sideBySide(t, []scenario{
		{"Rolling", func(t *testing.T) { testRolling(t, both, agent) }}, // what takes long comes first
		{"Flood", testFlood},
		{"Dies", func(t *testing.T) { testDies(t, both) }},
		{"Sessions", func(t *testing.T) { testSessions(t, both) }},
		{"AgentStays", testAgentStays},
		{"Cookie", func(t *testing.T) { testCookie(t, both) }},
		{"Safe", func(t *testing.T) { testSafe(t, both) }},
		{"Drain", func(t *testing.T) { testDrain(t, both) }},
		{"Reload", func(t *testing.T) { testReload(t, both) }},
		{"Restart", func(t *testing.T) { testRestart(t, both) }},
		{"Mute", func(t *testing.T) { testMute(t, both) }},
		{"SameNode", func(t *testing.T) { testSameNode(t, both) }},
		{"SafeAlone", func(t *testing.T) { testSafeAlone(t, both) }},
		{"Maint", func(t *testing.T) { testMaint(t, both, agent) }},
		{"Interrupt", func(t *testing.T) { testInterrupt(t, both, agent) }},
		{"Events", func(t *testing.T) { testEvents(t, both) }},
		{"Hundred", func(t *testing.T) { testHundred(t, both) }},
		{"Kubernetes", func(t *testing.T) { testKubernetes(t, both, agent) }},
	})
}

// scenario is a test in a test.
type scenario struct {
	name string
	test func(t *testing.T)
}

// sideBySide runs scenarios, several at once: they wait for HAProxy more than they work, so that there is no
// reason to have as few of them at a time as there are processors.
func sideBySide(t *testing.T, scenarios []scenario) {
	t.Helper()
	next := make(chan scenario)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for s := range next {
				t.Run(s.name, s.test)
			}
		})
	}
	for _, s := range scenarios {
		next <- s
	}
	close(next)
	wg.Wait()
}

// testSessions: hadown --wait returns neither before the last session has ended on both balancers, be it a
// request, a tunnel through HTTP or one through TCP, nor later than two check intervals after.
func testSessions(t *testing.T, both []*host) {
	const inter = time.Second
	f := newFarm(t, both, layout{inter: inter})
	web := f.works[0]
	web.long(f.http[0], "a")
	web.long(f.http[1], "b")
	upgraded := tunnel(t, f.http[1], "web1")
	raw := tunnel(t, f.tcp[0], "web1")
	idle := keep(t, f.http[0])
	if _, at := idle.ask("/", "X-To: web1"); at != "web1" {
		t.Fatalf("the kept-alive connection is at %s", at)
	}
	f.tell(map[string]int{"lb1 web/web1": 1, "lb2 web/web1": 2, "lb1 raw/web1": 1, "lb2 raw/web1": 0})

	p := f.down("--wait")
	f.show("DOWN", "UP")
	// Nothing was cut, and a client that is kept alive goes on elsewhere.
	upgraded.echoes()
	raw.echoes()
	if _, at := idle.ask("/", "X-To: web1"); at != "web2" {
		t.Errorf("after hadown the kept-alive connection is at %s", at)
	}
	web.release("a")
	web.release("b")
	f.tell(map[string]int{"lb1 web/web1": 0, "lb2 web/web1": 1, "lb1 raw/web1": 1})
	f.waits(p, "two tunnels are")
	raw.conn.Close()
	f.tell(map[string]int{"lb2 web/web1": 1, "lb1 raw/web1": 0})
	f.waits(p, "a tunnel through HTTP is")
	upgraded.conn.Close()
	released := time.Now()
	f.ends(p, 0, f.service+": out with 4 balancers")
	if late := time.Since(released); late > 2*inter {
		t.Errorf("it returned %v after the last session had ended, more than two intervals of %v:\n%s", late, inter, p.out.String())
	}
}

// testDrain: --drain lets what is open go on and sends nothing new; haup --wait returns when both have it back.
func testDrain(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	f.works[0].long(f.http[1], "a")
	f.tell(map[string]int{"lb2 web/web1": 1})
	p := f.down("--drain", "--wait")
	f.show("NOLB", "UP")
	for range 10 {
		if a, err := get("http://" + f.http[0] + "/"); err != nil || a.body != "web2" {
			t.Errorf("a new request under drain: %q, %v", a.body, err)
		}
	}
	for _, lb := range f.lbs {
		if row := lb.rows()["web/web1"]; row["chkfail"] != "0" || row["chkdown"] != "0" || row["downtime"] != "0" {
			t.Errorf("under drain HAProxy counts %s failed checks, %s times down, %s s", row["chkfail"], row["chkdown"], row["downtime"])
		}
	}
	f.waits(p, "a request is")
	overview := f.hosts[0].must("hastatus")
	for _, line := range []string{`drain +lb1 \(web/web1\) +NOLB +0 sessions +drain`, `drain +lb2 \(web/web1\) +NOLB +1 session +drain`} {
		if !regexp.MustCompile(line).MatchString(overview) {
			t.Errorf("hastatus has no line %q:\n%s", line, overview)
		}
	}
	f.works[0].release("a")
	f.ends(p, 0, "NOLB")
	if o := f.override(); !strings.Contains(o, `"drain"`) {
		t.Errorf("the override is %s", o)
	}
	f.show("NOLB", "UP")

	up := f.hosts[0].begin("haup", f.service, "--wait")
	f.ends(up, 0, f.service+": up with 4 balancers")
	f.none()
	for _, lb := range f.lbs {
		if got := lb.status(); got["web/web1"] != "UP" || got["raw/web1"] != "UP" {
			t.Errorf("haup --wait has returned, and the balancers show %v", got)
		}
	}
}

// testDies: a balancer that dies while the command waits, out already and with nothing open, is done with.
func testDies(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	f.works[0].long(f.http[0], "a")
	f.tell(map[string]int{"lb1 web/web1": 1})
	p := f.down("--wait")
	p.says(t, "lb2 (web/web1): DOWN, 0 sessions open: out", "lb2 (raw/web1): DOWN, 0 sessions open: out")
	_ = f.lbs[1].cmd.Process.Kill()
	<-f.lbs[1].done
	p.says(t, "lb2 (web/web1): silent, was out")
	f.waits(p, "a request of the other is")
	f.works[0].release("a")
	f.ends(p, 0, f.service+": out with 4 balancers")
}

// testCookie: under drain clients with a cookie still come; hadown --wait after it returns when they go elsewhere.
func testCookie(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{inter: 400 * time.Millisecond, fall: 5})
	client := keep(t, f.http[1])
	at := func(want string) {
		t.Helper()
		if resp, got := client.ask("/", "Cookie: S=web1"); resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("a client with a cookie is answered %d by %s, want %s", resp.StatusCode, got, want)
		}
	}
	at("web1")
	f.ends(f.down("--drain", "--wait"), 0)
	f.show("NOLB", "UP")
	at("web1")
	f.ends(f.down("--wait"), 0)
	at("web2")
	// What is down stays down when it is drained.
	f.ends(f.down("--drain", "--wait"), 0)
	f.show("DOWN", "UP")
	f.ends(f.hosts[0].begin("haup", f.service, "--wait"), 0)
	at("web1")
}

// reload starts HAProxy anew with the same file, which has the old process finish what it has open. It returns
// the new one.
func (h *haproxy) reload(t testing.TB) *haproxy {
	t.Helper()
	n := &haproxy{t: t, sock: h.sock}
	n.process = start(t, servertest.FindHAProxy(t), "-db", "-f", filepath.Join(filepath.Dir(h.sock), "haproxy.cfg"), "-sf", strconv.Itoa(h.cmd.Process.Pid))
	pid := "Pid: " + strconv.Itoa(n.cmd.Process.Pid) + "\n"
	eventually(t, func() error {
		c, err := net.Dial("unix", n.sock)
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = io.WriteString(c, "show info\n")
		info, err := io.ReadAll(c)
		if err == nil && !strings.Contains(string(info), pid) {
			err = errors.New("the old haproxy answers at the socket")
		}
		return err
	})
	return n
}

// testReload: a balancer that is reloaded while the command waits has to say again that the server is out. What
// the old process still has open is in no header, as docs/haproxy.md says.
func testReload(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	f.works[0].long(f.http[0], "old")
	f.works[0].long(f.http[1], "other")
	f.tell(map[string]int{"lb1 web/web1": 1, "lb2 web/web1": 1})
	p := f.down("--wait")
	f.show("DOWN", "UP")
	old := f.lbs[0]
	f.lbs[0] = old.reload(t)
	f.tell(map[string]int{"lb1 web/web1": 0})
	f.show("DOWN", "UP")
	f.waits(p, "a request of the other is")
	f.works[0].release("other")
	f.ends(p, 0, f.service+": out with 4 balancers")
	if old.ended() {
		t.Error("the old process has ended, with a request open")
	}
	f.works[0].release("old")
	old.exit(t)
}

// testRestart: a balancer that is stopped and started again while the command waits is waited for.
func testRestart(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	f.works[0].long(f.http[1], "other")
	raw := tunnel(t, f.tcp[0], "web1")
	f.tell(map[string]int{"lb1 raw/web1": 1, "lb2 web/web1": 1})
	p := f.down("--wait")
	f.show("DOWN", "UP")
	raw.echoes()
	_ = f.lbs[0].stop() // by a signal, which it says
	f.lbs[0] = f.lbs[0].reload(t)
	f.tell(map[string]int{"lb1 raw/web1": 0})
	f.waits(p, "a request of the other is")
	f.works[0].release("other")
	f.ends(p, 0, f.service+": out with 4 balancers")
}

// testMute: a balancer that sends no state has a server out after --fall answers, and of its sessions nothing
// is known.
func testMute(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{mute: true, lines: map[int][]string{1: {"source 127.0.0.7"}}}) // or the two are one
	f.hosts[0].asked(f.service, 4)
	f.works[0].long(f.http[0], "a")
	if out, exit := f.hosts[0].command("hadown", f.service, "--safe", "-r", "new release"); exit != 1 || !strings.Contains(out, "http-check send-state") {
		t.Errorf("--safe: exit %d, want 1 and what to do:\n%s", exit, out)
	}
	f.none()
	p := f.down("--wait", "--fall", "5")
	f.ends(p, 0, "got 5 of 5 answers with the override, open sessions unknown: out")
	f.show("DOWN", "UP")
	f.ends(f.hosts[0].begin("haup", f.service, "--wait"), 0)
	f.works[0].release("a")
}

// testSameNode: two balancers with the same node name are told apart by their addresses.
func testSameNode(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{node: "lb", lines: map[int][]string{1: {"source 127.0.0.7"}}})
	f.works[0].long(f.http[1], "a")
	p := f.down("--wait")
	p.says(t, "lb at 127.0.0.1 (web/web1): DOWN, 0 sessions open: out", "lb at 127.0.0.7 (web/web1): DOWN, 1 session open")
	f.show("DOWN", "UP")
	f.waits(p, "a request of the second is")
	f.works[0].release("a")
	f.ends(p, 0, f.service+": out with 4 balancers")
}

// testSafe: --safe writes when every balancer has another server, and nothing at all when one has not.
func testSafe(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	f.hosts[1].must("hadown", f.service, "-r", "memory", "--wait")
	f.show("UP", "DOWN")
	f.ends(f.down("--safe", "--drain", "--wait"), 1, "nothing was changed", "no other server would be left, weight 1 of 1")
	f.none()
	f.hosts[1].must("haup", f.service, "--wait")
	f.ends(f.down("--safe", "--drain", "--wait"), 0)
	f.show("NOLB", "UP")
	// The first is out: the second is the last.
	if out, exit := f.hosts[1].command("hadown", f.service, "--safe", "-r", "new release"); exit != 1 {
		t.Errorf("--safe for the last server: exit %d\n%s", exit, out)
	}
	f.show("NOLB", "UP")
}

// testSafeAlone: one balancer without another server is enough to refuse.
func testSafeAlone(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	// Whoever runs the second balancer has taken the other server out of one of its backends.
	if out := f.lbs[1].ask("set server raw/web2 state maint"); strings.TrimSpace(out) != "" {
		t.Fatal(out)
	}
	f.lbs[1].shows(map[string]string{"raw/web2": "MAINT"})
	f.ends(f.down("--safe"), 1, "lb2 (raw/web1)", "nothing was changed")
	f.none()
	for _, lb := range f.lbs {
		lb.shows(map[string]string{"web/web1": "UP", "raw/web1": "UP"})
	}
}

// testMaint: --maint --wait drains first, and writes maint when nothing is open any more. HAProxy's CSV shows why.
func testMaint(t *testing.T, both []*host, agent int) {
	f := newFarm(t, both, layout{agent: agent})
	f.works[0].long(f.http[1], "a")
	f.tell(map[string]int{"lb2 web/web1": 1})
	p := f.down("--maint", "--wait")
	f.show("NOLB", "UP")
	f.waits(p, "a request is")
	if o := f.override(); !strings.Contains(o, `"drain"`) {
		t.Errorf("while it waits the override is %s", o)
	}
	f.works[0].release("a")
	f.ends(p, 0)
	if o := f.override(); !strings.Contains(o, `"maint"`) {
		t.Errorf("the override is %s", o)
	}
	f.show("MAINT", "UP")
	for _, lb := range f.lbs {
		eventually(t, func() error {
			if said := lb.rows()["web/web1"]["last_agt"]; said != "via agent : down (new release)" {
				return fmt.Errorf("HAProxy's CSV says of the agent %q", said)
			}
			return nil
		})
	}
	// HAProxy asks nothing under MAINT but the agent, so that this is all haup --wait has to go by at first.
	f.ends(f.hosts[0].begin("haup", f.service, "--wait"), 0)
	f.show("UP", "UP")
}

// testInterrupt: ^C ends the waiting and nothing else, and the command says so. HAProxy's page says why.
func testInterrupt(t *testing.T, both []*host, agent int) {
	f := newFarm(t, both, layout{agent: agent})
	f.works[0].long(f.http[1], "a")
	f.tell(map[string]int{"lb2 web/web1": 1})
	for _, c := range []struct {
		args []string
		stay string // in HAProxy
	}{
		{[]string{"--maint", "--wait"}, "NOLB"}, // the drain stays
		{[]string{"--wait"}, "DOWN (agent)"},
	} {
		p := f.down(c.args...)
		p.says(t, "lb2 (web/web1): "+strings.TrimSuffix(c.stay, " (agent)")+", 1 session open")
		_ = p.cmd.Process.Signal(syscall.SIGINT)
		f.ends(p, 130, "interrupt", "lb2 (web/web1)", f.service+" is ")
		if o := f.override(); strings.Contains(o, `"drain"`) != (c.stay == "NOLB") { // which fails when there is none
			t.Errorf("%s, and then the override is %s", c.args, o)
		}
		f.show(c.stay, "UP")
	}
	// Time that is up is no different.
	f.ends(f.down("--wait=1s"), 3, "time is up after 1s", "lb2 (web/web1): DOWN, 1 session open", f.service+" is down")
	f.show("DOWN (agent)", "UP")
	for _, addr := range f.http {
		eventually(t, func() error {
			a, err := get("http://" + addr + "/stats")
			if err == nil && !strings.Contains(a.body, "via agent : down (new release)") {
				err = fmt.Errorf("HAProxy's page does not show why:\n%s", a.body)
			}
			return err
		})
	}
	f.works[0].release("a")
}

// testEvents: --json prints one event a line.
func testEvents(t *testing.T, both []*host) {
	f := newFarm(t, both, layout{})
	p := f.down("--wait", "--json")
	f.ends(p, 0)
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

// simulated is a balancer as far as hacheck can tell: it sends checks with a state header every 200 ms and believes the answers.
type simulated struct {
	addr, from, node, path string

	mu       sync.Mutex
	state    string
	sessions int
	told     string // the state it sent last, and its sessions
}

// check sends one check from its own address.
func (s *simulated) check() error {
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(s.from)}, Timeout: patience}).Dial("tcp", s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	s.mu.Lock()
	told := fmt.Sprintf("%s %d", s.state, s.sessions)
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nX-Haproxy-Server-State: %s; name=be/srv; node=%s; weight=1/2; scur=%d/9; qcur=0\r\n\r\n", s.path, s.state, s.node, s.sessions)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = told
	s.state = map[bool]string{true: "UP", false: "DOWN"}[resp.StatusCode == http.StatusOK]
	return nil
}

// testHundred: hadown waits for the last of a hundred balancers.
func testHundred(t *testing.T, both []*host) {
	one := both[0].in(t)
	var lbs []*simulated
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for i := range 100 {
		s := &simulated{
			addr: one.addr, from: fmt.Sprintf("127.0.1.%d", i+1), node: fmt.Sprintf("lb%d", i+1), path: "/spool/hundred/0/",
			state: "UP", sessions: i % 3,
		}
		lbs = append(lbs, s)
		wg.Go(func() {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for {
				if err := s.check(); err != nil {
					t.Errorf("%s: %v", s.node, err)
				}
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	one.asked("hundred", 100)
	f := &farm{t: t, service: "hundred", hosts: []*host{one}, inter: 500 * time.Millisecond}
	p := f.down("--wait")
	out := func(want int) {
		t.Helper()
		eventually(t, func() error {
			n := 0
			for _, s := range lbs {
				s.mu.Lock()
				if s.told == "DOWN 0" {
					n++
				}
				s.mu.Unlock()
			}
			if n < want {
				return fmt.Errorf("%d of %d are out", n, want)
			}
			return nil
		})
	}
	out(34)
	for i, s := range lbs[:99] {
		if i == 97 { // which has one
			continue
		}
		s.mu.Lock()
		s.sessions = 0
		s.mu.Unlock()
	}
	out(99)
	f.waits(p, "sessions of the 98th are")
	lbs[97].mu.Lock()
	lbs[97].sessions = 0
	lbs[97].mu.Unlock()
	f.ends(p, 0, "hundred: out with 100 balancers")
	out(100)
}

// testFlood: ten thousand names from one client, and headers of 64 KB, take no place from the real balancers.
func testFlood(t *testing.T) {
	// A daemon of its own: what it could not keep, it tells everybody who asks.
	both := hosts(t, 2, "cache_time: 0\n")
	one := both[0]
	f := newFarm(t, both, layout{})
	f.works[0].long(f.http[1], "a")
	before := one.rss()
	parallel(8, func(worker int) {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.66")}}).Dial("tcp", one.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		r := bufio.NewReader(conn)
		for i := range 10_000 / 8 {
			long := ""
			if i%100 == 0 {
				long = strings.Repeat("x", 60<<10)
			}
			if _, err := fmt.Fprintf(conn, "GET /spool/%s/0/ HTTP/1.1\r\nHost: x\r\nX-Haproxy-Server-State: UP; name=be/srv%s; node=n%d-%d; scur=1/1\r\n\r\n", f.service, long, worker, i); err != nil {
				t.Error(err)
				return
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	r := one.balancers(f.service)
	if n := len(r.Balancers); n > 200 || r.UnrecordedRequests < 9_000 {
		t.Errorf("of ten thousand names %d are remembered, and %d were not", n, r.UnrecordedRequests)
	}
	if grown := one.rss() - before; grown > 64<<20 {
		t.Errorf("the daemon has grown by %d bytes", grown)
	}
	p := f.down("--wait")
	p.says(t, "lb1 (web/web1): DOWN, 0 sessions open: out", "lb2 (web/web1): DOWN, 1 session open")
	f.works[0].release("a")
	p.says(t, "lb2 (web/web1): DOWN, 0 sessions open: out")
	f.waits(p, "those of the flood are") // for all hacheck knows, they are balancers that have fallen silent
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	f.ends(p, 130)
}

// TestDrainNewDaemon: a daemon that has just been started waits to learn who asks, and so does hadown.
func TestDrainNewDaemon(t *testing.T) {
	t.Parallel()
	both := hosts(t, 2, "cache_time: 0\n")
	f := newFarm(t, both, layout{inter: 500 * time.Millisecond})
	f.works[0].long(f.http[1], "a")
	f.tell(map[string]int{"lb2 web/web1": 1})
	one := f.hosts[0]
	if err := one.stop(); err != nil {
		t.Errorf("hacheck: %v", err)
	}
	one.boot(t)
	f.ends(f.down("--wait=1s"), 3)
	p := f.down("--wait")
	p.says(t, "lb2 (web/web1): DOWN, 1 session open", "lb1 (web/web1): DOWN, 0 sessions open: out")
	f.waits(p, "a request is")
	f.works[0].release("a")
	f.ends(p, 0, f.service+": out with 4 balancers")
}

// testAgentStays: what the agent has said stands when hacheck stops, and ends when it is back and says otherwise.
func testAgentStays(t *testing.T) {
	agent := freePort(t)
	args := []string{"-A", strconv.Itoa(agent)}
	both := hosts(t, 2, "cache_time: 0\n", args...)
	f := newFarm(t, both, layout{agent: agent})
	one := f.hosts[0]
	one.must("hadown", f.service, "--maint", "-r", "new release")
	f.show("MAINT", "UP")
	if err := one.stop(); err != nil {
		t.Errorf("hacheck: %v", err)
	}
	for _, lb := range f.lbs {
		eventually(t, func() error {
			if row := lb.rows()["web/web1"]; row["agent_status"] != "L4CON" || row["status"] != "MAINT" {
				return fmt.Errorf("agent %s, server %s", row["agent_status"], row["status"])
			}
			return nil
		})
	}
	one.boot(t, args...)
	f.show("MAINT", "UP")
	one.must("haup", f.service)
	f.show("UP", "UP")
}
