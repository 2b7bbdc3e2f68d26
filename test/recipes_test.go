package test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

// docs/haproxy.md is tested as it stands: the blocks behind a line <!-- recipe: NAME --> are run, and no block of
// a configuration or a script is without one. Only addresses and ports are others, and HAProxy checks ten times as often.

const haproxyPage = "../docs/haproxy.md"

// recipe is one block of the page.
type recipe struct {
	line           int
	language, text string
}

// recipes returns the blocks of the page by name.
func recipes(t testing.TB) map[string]recipe {
	t.Helper()
	page, err := os.ReadFile(haproxyPage)
	if err != nil {
		t.Fatal(err)
	}
	found, err := recipesOf(string(page))
	if err != nil {
		t.Fatalf("%s: %v", haproxyPage, err)
	}
	return found
}

var recipeMarker = regexp.MustCompile(`^<!-- recipe: (.+) -->$`)

func recipesOf(page string) (map[string]recipe, error) {
	found := map[string]recipe{}
	name, fenced := "", false
	var r recipe
	n := 0
	for line := range strings.Lines(page) {
		n++
		line = strings.TrimRight(line, "\n")
		switch {
		case fenced && line == "```":
			if _, twice := found[name]; twice {
				return nil, fmt.Errorf("line %d: there are two recipes %q", r.line, name)
			}
			found[name], fenced, name = r, false, ""
		case fenced:
			r.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			if name == "" {
				return nil, fmt.Errorf("line %d: a block that is no recipe, and so is not tested", n)
			}
			r, fenced = recipe{line: n, language: line[3:]}, true
		case name != "":
			return nil, fmt.Errorf("line %d: recipe %q has no block right behind it", n, name)
		default:
			if m := recipeMarker.FindStringSubmatch(line); m != nil {
				name = m[1]
			}
		}
	}
	if fenced || name != "" {
		return nil, errors.New("the last recipe is not closed")
	}
	return found, nil
}

// TestRecipesOf tries the reader of the page.
func TestRecipesOf(t *testing.T) {
	t.Parallel()
	got, err := recipesOf("a\n<!-- recipe: one -->\n```sh\nx\n  y\n```\nb\n")
	if want := (map[string]recipe{"one": {3, "sh", "x\n  y\n"}}); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for page, want := range map[string]string{
		"```sh\nx\n```\n":                                   "is not tested",
		"<!-- recipe: one -->\n\n```sh\nx\n```\n":           "right behind",
		"<!-- recipe: one -->\n```sh\nx\n":                  "not closed",
		strings.Repeat("<!-- recipe: a -->\n```\n```\n", 2): "two recipes",
	} {
		if _, err := recipesOf(page); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", page, err, want)
		}
	}
}

// recipeSetup is what the page speaks of: two servers with a service, hacheck and its agent.
type recipeSetup struct {
	t                     *testing.T
	hosts                 []*host
	service, other, front int // ports
	replacer              *strings.Replacer
}

// startRecipeSetup starts the hachecks with the options of a line "hacheck ..." of the page, and the services.
func startRecipeSetup(t *testing.T, line string) *recipeSetup {
	t.Helper()
	agent := freePort(t)
	args := strings.Fields(line)
	if len(args) > 0 && args[0] != "hacheck" {
		t.Fatalf("%q does not start hacheck", line)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "3334", strconv.Itoa(agent))
	}
	s := newRecipeSetup(t, startHosts(t, 2, "cache_time: 0\n", args[min(1, len(args)):]...), agent)
	s.startServices()
	return s
}

// startServices starts the services.
func (s *recipeSetup) startServices() {
	s.t.Helper()
	for i, h := range s.hosts {
		startBlockingService(s.t, h.ip, s.service, fmt.Sprintf("web%d", i+1))
		startBlockingService(s.t, h.ip, s.other, "api")
	}
}

// newRecipeSetup is the scene on hosts whose hachecks run, without services.
func newRecipeSetup(t *testing.T, both []*host, agent int) *recipeSetup {
	s := &recipeSetup{t: t, hosts: both, service: freePort(t), other: freePort(t), front: freePort(t)}
	s.replacer = strings.NewReplacer(
		"10.0.0.5:", "127.0.0.1:", "10.0.0.6:", "127.0.0.2:", "8080", strconv.Itoa(s.service), "8081", strconv.Itoa(s.other),
		"3333", strconv.Itoa(both[0].port), "3334", strconv.Itoa(agent), "inter 2s", "inter 200ms",
	)
	return s
}

// startHAProxy starts HAProxy with a recipe and a frontend to its first backend.
func (s *recipeSetup) startHAProxy(r recipe, front int, lines ...string) *haproxy {
	s.t.Helper()
	if r.language != "haproxy" {
		s.t.Fatalf("line %d is not HAProxy's", r.line)
	}
	mode := "http"
	if strings.Contains(r.text, "mode tcp") {
		mode = "tcp"
	}
	return startHAProxy(s.t, fmt.Sprintf(`
%s
defaults
    mode http
    timeout connect 5s
    timeout client 90s
    timeout server 90s
frontend front
    mode %s
    bind 127.0.0.1:%d
    default_backend %s
%s`, strings.Join(lines, "\n"), mode, front, strings.Fields(r.text)[1], s.replacer.Replace(r.text)))
}

// setups are the recipes for HAProxy: the options of hacheck and the first server of each backend.
var setups = map[string]struct {
	hacheck string // the recipe with its command line
	service string
	server  string
}{
	"check":      {"", "web", "web/web1"},
	"send-state": {"", "web", "web/web1"},
	"drain":      {"", "web", "web/web1"},
	"agent":      {"agent's hacheck", "web", "web/web1"},
	"agent -S":   {"agent -S's hacheck", "web", "web/web1"},
	"tcp":        {"", "db", "db/db1"},
	"several":    {"agent's hacheck", "api", "api/api1"},
}

// TestRecipes: with each recipe HAProxy does what the page says.
func TestRecipes(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	for name, r := range all {
		if _, ok := setups[name]; r.language == "haproxy" && !ok {
			t.Errorf("%s:%d: recipe %q is not tested", haproxyPage, r.line, name)
		}
	}
	states := statesShown(t)
	var list []subtest
	for name, setup := range setups {
		list = append(list, subtest{name, func(t *testing.T) {
			s := startRecipeSetup(t, all[setup.hacheck].text)
			lb := s.startHAProxy(all[name], s.front)
			one := s.hosts[0]
			lb.waitForStates(map[string]string{setup.server: "UP"})
			other := setup.server[:len(setup.server)-1] + "2"
			weight := lb.statByServer()[setup.server]["weight"]

			// The table of what HAProxy shows, or for what it does not list the two lines that matter most.
			rows := states[name]
			if rows == nil {
				rows = [][2]string{{"haup web", "UP"}, {"hadown web", map[bool]string{true: "DOWN (agent)", false: "DOWN"}[setup.hacheck != ""]}, {"haup web", "UP"}}
			}
			for _, row := range rows {
				command := strings.Fields(row[0])
				command[len(command)-1] = setup.service
				one.mustRunCommand(command[0], command[1:]...)
				lb.waitForStates(map[string]string{setup.server: row[1], other: "UP"})
				if w := lb.statByServer()[setup.server]["weight"]; w != weight {
					t.Errorf("%s: weight %s, want %s as before", row[0], w, weight)
				}
				// A server that is out cannot be drained, so each row begins with one that is up.
				one.mustRunCommand("haup", setup.service)
				lb.waitForStates(map[string]string{setup.server: "UP", other: "UP"})
			}
			one.mustRunCommand("hadown", "all", "-r", "the host")
			lb.waitForStates(map[string]string{setup.server: rows[1][1], other: "UP"})
			one.mustRunCommand("haup", "all")
			lb.waitForStates(map[string]string{setup.server: "UP"})

			b := one.balancerReport(setup.service).Balancers
			if name != "check" && (len(b) != 1 || b[0].Server != setup.server || b[0].Sessions == nil) {
				t.Errorf("hacheck knows %+v, want one row with the sessions of %s", b, setup.server)
			}
		}})
	}
	runSubtests(t, list)
}

// statesShown reads the page's table of what HAProxy shows: by recipe, pairs of a command and a state.
func statesShown(t testing.TB) map[string][][2]string {
	t.Helper()
	page, err := os.ReadFile(haproxyPage)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "<!-- states -->\n")
	table, _, _ = strings.Cut(table, "\n\n")
	states := map[string][][2]string{}
	var names []string
	for i, line := range strings.Split(table, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for j := range cells {
			cells[j] = strings.Trim(cells[j], " `")
		}
		switch {
		case i == 0:
			names = cells
		case i > 1:
			for j, name := range names[1:] {
				states[name] = append(states[name], [2]string{cells[0], cells[j+1]})
			}
		}
	}
	if len(states) != 5 || len(states["agent"]) != 5 {
		t.Fatalf("the table of states is not what it was: %q", states)
	}
	return states
}

// TestRecipeAgentListen: the port that a service has of its own serves HAProxy without agent-send.
func TestRecipeAgentListen(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	agent := freePort(t)
	config := strings.ReplaceAll(all["agent_listen"].text, "0.0.0.0:3334", fmt.Sprintf("127.0.0.1:%d", agent))
	one := startHosts(t, 1, config)[0]
	startBlockingService(t, one.ip, agent+1, "web")
	lb := startHAProxy(t, fmt.Sprintf(`
backend web
    server web1 127.0.0.1:%d check agent-check agent-port %d agent-inter 200ms
`, agent+1, agent))
	one.mustRunCommand("hadown", "web", "-r", "memory")
	lb.waitForStates(map[string]string{"web/web1": "DOWN (agent)"})
	one.mustRunCommand("haup", "web")
	lb.waitForStates(map[string]string{"web/web1": "UP"})
}

// TestRecipeInstance: an agent that is asked for an instance tells of overrides of that instance.
func TestRecipeInstance(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	s := startRecipeSetup(t, all["agent's hacheck"].text)
	lb := s.startHAProxy(all["several"], s.front)
	lb.waitForStates(map[string]string{"web/web1": "UP", "api/api1": "UP"})
	s.hosts[0].mustRunCommand("hadown", "api", "-P", strconv.Itoa(s.other), "--maint", "-r", "memory")
	lb.waitForStates(map[string]string{"web/web1": "UP", "api/api1": "MAINT", "api/api2": "UP"})
}

// nginxServer is a real process, nginx, that is stopped and started as a host's service manager does.
type nginxServer struct {
	t    *testing.T
	conf string
	addr string

	mu      sync.Mutex
	process *process
	starts  int
}

func newNginxServer(t *testing.T, ip string, port int, name string) *nginxServer {
	t.Helper()
	dir := t.TempDir()
	s := &nginxServer{t: t, conf: filepath.Join(dir, "nginx.conf"), addr: net.JoinHostPort(ip, strconv.Itoa(port))}
	if err := os.WriteFile(s.conf, []byte(fmt.Sprintf(`
daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
    server {
        listen %[2]s;
        location / { return 200 "%[3]s"; }
        location /slow { limit_rate 1k; return 200 "%[4]s"; } # a second or two
    }
}
`, dir, s.addr, name, strings.Repeat("slow ", 300))), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// systemctl does to the server what the command would.
func (s *nginxServer) systemctl(verb string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch verb {
	case "stop":
		_ = s.process.cmd.Process.Signal(os.Interrupt) // fast: what is open is cut
		<-s.process.done
		return nil
	case "start":
		s.starts++
		s.process = start(s.t, findTool(s.t, "nginx"), "-e", "stderr", "-c", s.conf)
		return nil // at once, as with most units
	}
	return fmt.Errorf("systemctl %s", verb)
}

// testRolling: the script of docs/haproxy.md, and the tasks for Ansible, restart two servers under load without
// losing one request.
func testRolling(t *testing.T, both []*host, agent int) {
	all := recipes(t)
	s := newRecipeSetup(t, []*host{both[0].forTest(t), both[1].forTest(t)}, agent)
	var servers []*nginxServer
	for i, h := range s.hosts {
		srv := newNginxServer(t, h.ip, s.service, fmt.Sprintf("web%d", i+1))
		if err := srv.systemctl("start"); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, srv)
	}
	ports := []int{s.front, freePort(t)}
	var lbs []*haproxy
	for i, port := range ports {
		lb := s.startHAProxy(all["drain"], port, "global", fmt.Sprintf("    node lb%d", i+1))
		lb.waitForStates(map[string]string{"web/web1": "UP", "web/web2": "UP"})
		lbs = append(lbs, lb)
	}

	// ssh goes to one of the two hosts, where the commands act on its spool and its hacheck; systemctl there
	// asks this test, which is the parent of the servers.
	manager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := strings.Split(r.URL.Path, "/") // /web1/stop/web
		if len(f) != 4 || f[3] != "web" {
			http.Error(w, "no such unit", http.StatusNotFound)
			return
		}
		if err := servers[slices.Index([]string{"web1", "web2"}, f[1])].systemctl(f[2]); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	defer manager.Close()
	dir := t.TempDir()
	program := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"haup", "hadown"} {
		program(name, `exec `+bin(t, name)+` --spool-root "$SPOOL" -p "$DAEMON" "$@"`)
	}
	program("systemctl", `exec curl -sSf -X POST "`+manager.URL+`/$HOST/$1/$2"`)
	var cases strings.Builder
	for i, h := range s.hosts {
		fmt.Fprintf(&cases, "web%d) SPOOL=%s DAEMON=%s;;\n", i+1, h.spool, h.addr)
	}
	program("ssh", "HOST=$1\ncase $HOST in\n"+cases.String()+"*) echo no such host; exit 255;;\nesac\nexport HOST SPOOL DAEMON\nexec sh -c \"$2\"")
	shell := func(script string) {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "no_proxy=*")
		cmd.SysProcAttr = killWithParent()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		} else {
			t.Logf("%s", out)
		}
	}

	load := &wrkLoad{t: t}
	for _, port := range ports {
		load.start(fmt.Sprintf("http://127.0.0.1:%d/", port), 1000)
		load.start(fmt.Sprintf("http://127.0.0.1:%d/slow", port), 10)
	}
	script := all["rolling restart"]
	if n := strings.Count(script.text, "\n"); n > 10 {
		t.Errorf("the script of ten lines has %d", n)
	}
	shell(script.text)
	for _, task := range ansibleTasks(t, all["ansible"]) {
		shell("ssh web1 " + quote(task))
	}
	load.stop()
	for i, srv := range servers {
		if want := 3 - i; srv.starts != want {
			t.Errorf("web%d was started %d times, want %d", i+1, srv.starts, want)
		}
	}
	for _, lb := range lbs {
		for name, row := range lb.statByServer() {
			if lost := row["econ"] + row["eresp"] + row["wredis"]; strings.Trim(lost, "0") != "" {
				t.Errorf("%s: %s connections not opened, %s answers broken off, %s requests sent elsewhere", name, row["econ"], row["eresp"], row["wredis"])
			}
		}
	}
}

// quote makes one word of text for a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// ansibleTasks returns what the tasks of the recipe do on a host, as lines for a shell.
func ansibleTasks(t *testing.T, r recipe) []string {
	t.Helper()
	var plays []struct {
		Serial int
		Tasks  []struct {
			Command string                       `yaml:"ansible.builtin.command"`
			Unit    struct{ Name, State string } `yaml:"ansible.builtin.systemd_service"`
		}
	}
	if err := yaml.Unmarshal([]byte(r.text), &plays); err != nil {
		t.Fatalf("line %d: %v", r.line, err)
	}
	if len(plays) != 1 || plays[0].Serial != 1 || len(plays[0].Tasks) != 4 {
		t.Fatalf("line %d: not one play with four tasks, for one host at a time: %+v", r.line, plays)
	}
	var lines []string
	for _, task := range plays[0].Tasks {
		if task.Unit.State == "restarted" {
			lines = append(lines, "systemctl stop "+task.Unit.Name+" && systemctl start "+task.Unit.Name)
		} else {
			lines = append(lines, task.Command)
		}
	}
	return lines
}

// testKubernetes: the command of preStop drains.
func testKubernetes(t *testing.T, both []*host, agent int) {
	all := recipes(t)
	var pod struct {
		Spec struct {
			Containers []struct {
				Lifecycle struct {
					PreStop struct {
						Exec struct{ Command []string }
					} `yaml:"preStop"`
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(all["kubernetes"].text), &pod); err != nil {
		t.Fatal(err)
	}
	command := pod.Spec.Containers[0].Lifecycle.PreStop.Exec.Command
	command[len(command)-1] = "pod"
	r := all["drain"]
	r.text = strings.ReplaceAll(r.text, "/http/web/", "/http/pod/") // another test is at work with web
	s := newRecipeSetup(t, []*host{both[0].forTest(t), both[1].forTest(t)}, agent)
	s.startServices()
	lb := s.startHAProxy(r, s.front)
	lb.waitForStates(map[string]string{"web/web1": "UP", "web/web2": "UP"})
	s.hosts[0].mustRunCommand(command[0], command[1:]...)
	lb.waitForStates(map[string]string{"web/web1": "NOLB", "web/web2": "UP"})
}

// wrkLoad is wrk.
type wrkLoad struct {
	t           *testing.T
	processes   []*process
	minRequests []int // requests of each
}

// start asks url with eight connections that are kept alive, until end, and at least that many times.
func (l *wrkLoad) start(url string, least int) {
	l.t.Helper()
	l.minRequests = append(l.minRequests, least)
	l.processes = append(l.processes, start(l.t, findTool(l.t, "wrk"), "-t", "1", "-c", "4", "-d", "120s", "--timeout", "10s", url))
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkLost     = regexp.MustCompile(`(?m)^.*(Socket errors|Non-2xx).*$`)
)

// stop stops asking. Not one request may have been lost.
func (l *wrkLoad) stop() {
	l.t.Helper()
	for i, p := range l.processes {
		_ = p.cmd.Process.Signal(os.Interrupt) // upon which it sums up
		<-p.done
		out := p.out.String()
		m := wrkRequests.FindStringSubmatch(out)
		if m == nil {
			l.t.Errorf("wrk:\n%s", out)
			continue
		}
		l.t.Logf("%s requests", m[1])
		if n, err := strconv.Atoi(m[1]); err != nil || n < l.minRequests[i] {
			l.t.Errorf("no load:\n%s", out)
		}
		if lost := wrkLost.FindString(out); lost != "" {
			l.t.Errorf("requests were lost:%s\n%s", lost, out)
		}
	}
}
