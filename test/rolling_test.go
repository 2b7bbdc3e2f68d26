package test

import (
	"fmt"
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

// nginxServer is an nginx process that the test stops and starts as a service manager does.
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

// systemctl does what the command does to a unit.
func (s *nginxServer) systemctl(verb string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch verb {
	case "stop":
		_ = s.process.cmd.Process.Signal(os.Interrupt) // a fast stop: nginx closes open connections
		<-s.process.done
		return nil
	case "start":
		s.starts++
		s.process = start(s.t, findTool(s.t, "nginx"), "-e", "stderr", "-c", s.conf)
		return nil // returns at once, as for most units
	}
	return fmt.Errorf("systemctl %s", verb)
}

// testRolling: the script of docs/haproxy.md and the tasks for Ansible restart two servers under load without a lost
// request.
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

	// ssh runs a command for one of the two hosts, on its spool and its hacheck. systemctl sends a request to this test,
	// which is the parent process of the servers.
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

// quote returns text as one shell word.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// ansibleTasks returns the tasks of the recipe as shell commands.
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

// wrkLoad is a set of wrk processes.
type wrkLoad struct {
	t           *testing.T
	processes   []*process
	minRequests []int // requests of each
}

// start sends requests on four keep-alive connections until stop. stop expects at least that many requests.
func (l *wrkLoad) start(url string, least int) {
	l.t.Helper()
	l.minRequests = append(l.minRequests, least)
	l.processes = append(l.processes, start(l.t, findTool(l.t, "wrk"), "-t", "1", "-c", "4", "-d", "120s", "--timeout", "10s", url))
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkLost     = regexp.MustCompile(`(?m)^.*(Socket errors|Non-2xx).*$`)
)

// stop ends the load and fails the test if a request was lost.
func (l *wrkLoad) stop() {
	l.t.Helper()
	for i, p := range l.processes {
		_ = p.cmd.Process.Signal(os.Interrupt) // wrk then prints its summary
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
