package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// askAgent returns the answer of an agent to a text: "" if the agent closes without an answer, "closed" if nothing
// listens.
func askAgent(addr, text string) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "closed"
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	_, _ = io.WriteString(c, text)
	b, _ := io.ReadAll(c)
	return strings.TrimSuffix(string(b), "\n")
}

// agentPorts returns the addresses of the ports of -A.
func (p *process) agentPorts(n int) (addrs []string) {
	p.t.Helper()
	line := regexp.MustCompile(`agent answers.* listen=(\S+) service=all`)
	waitUntil(p.t, "the agents answer", func() bool {
		p.wantRunning()
		addrs = nil
		for _, m := range line.FindAllStringSubmatch(p.log(), -1) {
			addrs = append(addrs, m[1])
		}
		return len(addrs) == n
	})
	return addrs
}

func removeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestAgentPorts: two -A on the bind address; each answers for all and for the service in the text.
func TestAgentPorts(t *testing.T) {
	t.Parallel()
	spoolRoot := filepath.Join(t.TempDir(), "spool")
	p := startDaemon(t, "-A", "0", "--agent-port=0", "--spool-root", spoolRoot)
	agents := p.agentPorts(2)
	file := func(name string) string { return filepath.Join(spoolRoot, name) }
	want := func(text, want string) {
		t.Helper()
		for _, addr := range agents {
			if !strings.HasPrefix(addr, "127.0.0.1:") {
				t.Errorf("%s is not on the bind address", addr)
			}
			if got := askAgent(addr, text); got != want {
				t.Errorf("%q to %s: %q, want %q", text, addr, got, want)
			}
		}
	}
	want("\n", "up ready")
	writeFile(t, file("web"), `{"reason": "disk", "state": "drain"}`)
	want("\n", "up ready")
	want("web\n", "up drain")
	writeFile(t, file("web:8080"), "plain text")
	want("web:8080\n", "ready down #plain text")
	want("web:8081\n", "up drain")
	want("web:127.0.0.1:8080\r\n", "ready down #plain text")
	writeFile(t, file("all"), `{"reason": "kernel", "state": "maint"}`)
	want("", "maint down #kernel")
	want("web\n", "maint down #kernel")
	removeFile(t, file("all"))
	want("web\n", "up drain")
	want("db\n", "ready down #coming back")
	want("a/b\n", "")
	writeFile(t, file("db"), `{"state": "up"}`)
	want("db\n", "up ready")
	waitUntil(t, "the answer is among the balancers", func() bool { // it is recorded after the answer
		page := p.mustGet("/balancers", 200)
		return strings.Contains(page, `{"service":"db","address":"127.0.0.1","answer":"up ready",`) &&
			strings.Contains(page, `{"service":"web:8080","address":"127.0.0.1","answer":"ready down #plain text",`)
	})

	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	want("web\n", "closed")
}

// TestAgentComesBack: after maint of a service or of all has ended, by expiry or by haup, the agent says "coming back"
// until a check of the service has passed.
func TestAgentComesBack(t *testing.T) {
	t.Parallel()
	listening := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return port(t, ln.Addr().String())
	}
	web, db := listening(), listening()
	spoolRoot := filepath.Join(t.TempDir(), "spool")
	p := startDaemon(t, "-A", "0", "--spool-root", spoolRoot)
	addr := p.agentPorts(1)[0]
	file := func(name string) string { return filepath.Join(spoolRoot, name) }
	want := func(text, want string) {
		t.Helper()
		if got := askAgent(addr, text); got != want {
			t.Fatalf("%q: %q, want %q", text, got, want)
		}
	}
	for _, name := range []string{"web", "web:" + web, "all"} {
		p.mustGet("/tcp/web/"+web, 200) // cached; it does not count after maint
		writeFile(t, file(name), `{"reason": "disk", "state": "maint"}`)
		want("web:"+web+"\n", "maint down #disk")
		p.mustGet("/tcp/web/"+web, 503)
		removeFile(t, file(name))
		want("web:"+web+"\n", "ready down #coming back")
		p.mustGet("/spool/web/"+web, 200) // runs no check
		p.mustGet("/tcp/db/"+db, 200)     // another service
		want("web:"+web+"\n", "ready down #coming back")
		p.mustGet("/tcp/web/"+web, 200)
		want("web:"+web+"\n", "up ready")
		p.mustGet("/tcp/web/"+web, 200) // cached
		want("web:"+web+"\n", "up ready")
	}
	want("db\n", "up ready") // the check of db above came after the end of all
	// By expiry.
	writeFile(t, file("web"), fmt.Sprintf(`{"reason": "disk", "state": "maint", "expiration": %d}`, time.Now().Unix()+1))
	want("web\n", "maint down #disk")
	waitUntil(t, "it expires", func() bool { return askAgent(addr, "web\n") != "maint down #disk" })
	want("web\n", "ready down #coming back")
	p.mustGet("/tcp/web/"+web, 200)
	want("web\n", "up ready")
}

// TestAgentWasNotAskedInMaint: a check that passes after maint counts, although no agent was asked before.
func TestAgentWasNotAskedInMaint(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	spoolRoot := filepath.Join(t.TempDir(), "spool")
	p := startDaemon(t, "-A", "0", "--spool-root", spoolRoot)
	writeFile(t, filepath.Join(spoolRoot, "web"), `{"state": "maint"}`)
	p.waitForLog(regexp.MustCompile(`service=web state=maint`))
	removeFile(t, filepath.Join(spoolRoot, "web"))
	p.waitForLog(regexp.MustCompile(`override lifted`))
	p.mustGet("/tcp/web/"+port(t, ln.Addr().String()), 200)
	if got := askAgent(p.agentPorts(1)[0], "web\n"); got != "up ready" {
		t.Errorf("the agent says %q after a check has passed", got)
	}
}

// TestAgentWithNoCheckSpool: with -S, HTTP answers the check alone and the agent answers by overrides.
func TestAgentWithNoCheckSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spoolRoot, conf, own := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := port(t, ln.Addr().String())
	writeFile(t, conf, fmt.Sprintf("cache_time: 0\nservices: {web: {checks: [{type: tcp, port: %s}], http_listen: %q}}\n", web, own))
	p := startDaemon(t, "-S", "-A", "0", "--spool-root", spoolRoot, "-c", conf)
	agent := p.agentPorts(1)[0]
	for _, c := range []struct {
		state        string
		http, spool  int
		endpoint     int
		healthy      bool
		agent, whose string
	}{
		{"", 200, 200, 200, true, "up ready", "web"},
		{"down", 200, 503, 504, true, "ready down #why", "web"},
		{"drain", 200, 404, 504, true, "up drain", "web"},
		{"maint", 200, 503, 504, true, "maint down #why", "web"},
		{"up", 200, 200, 200, true, "up ready", "web"},
		{"down", 200, 503, 504, true, "ready down #why", "all"},
		{"down", 503, 503, 504, false, "ready down #why", "web"},
		{"up", 200, 200, 200, false, "up ready", "web"},
		{"", 503, 200, 504, false, "up ready", "web"},
	} {
		if c.state != "" {
			writeFile(t, filepath.Join(spoolRoot, c.whose), fmt.Sprintf(`{"reason": "why", "state": %q}`, c.state))
		}
		if !c.healthy {
			ln.Close()
		}
		p.mustGet("/tcp/web/"+web, c.http)
		p.mustGet("/spool/web/"+web, c.spool)
		if code, body := fetch(t, own, ""); code != c.endpoint {
			t.Errorf("%v: the service's own listener: %d %s", c, code, body)
		}
		if got := askAgent(agent, "web:"+web+"\n"); got != c.agent {
			t.Errorf("%v: the agent says %q", c, got)
		}
		if c.state != "" {
			removeFile(t, filepath.Join(spoolRoot, c.whose))
		}
	}
}

// TestAgentListen: agent_listen is opened, kept, moved and closed as the other listeners of a service are. An open
// connection gets no answer when it closes.
func TestAgentListen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spoolRoot, conf := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml")
	web, db, other := freeAddr(t), freeAddr(t), freeAddr(t)
	config := func(web string) string {
		return fmt.Sprintf("services: {web: {agent_listen: %q}, db: {agent_listen: %q}}\n", web, db)
	}
	writeFile(t, conf, config(web))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot)
	writeFile(t, filepath.Join(spoolRoot, "web"), "disk")
	want := func(addr, text, want string) {
		t.Helper()
		if got := askAgent(addr, text); got != want {
			t.Errorf("%q to %s: %q, want %q", text, addr, got, want)
		}
	}
	want(web, "\n", "ready down #disk")
	want(web, "", "ready down #disk")
	want(web, "db\n", "up ready")
	want(db, "\n", "up ready")
	want(db, "web\n", "ready down #disk")

	// One listener moves and one stays: a client that connects all the time never finds the second one closed.
	var done, closed atomic.Int64
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for done.Load() == 0 {
			if askAgent(db, "\n") != "up ready" {
				closed.Add(1)
			}
		}
	}()
	writeFile(t, conf, config(other))
	p.signal(syscall.SIGHUP)
	waitUntil(t, "the new agent answers", func() bool { return askAgent(other, "\n") == "ready down #disk" })
	waitUntil(t, "the old one is closed", func() bool { return askAgent(web, "\n") == "closed" })
	done.Add(1)
	<-gone
	if n := closed.Load(); n > 0 {
		t.Errorf("an agent that a reload keeps was closed to %d of those who asked", n)
	}
	p.mustGet("/spool/web/80", 503)

	c, err := net.Dial("tcp", other)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.signal(syscall.SIGTERM)
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	if b, _ := io.ReadAll(c); len(b) > 0 && string(b) != "ready down #disk\n" {
		t.Errorf("at the end a connection was told %q", b)
	}
	p.wantExit(0)
	want(other, "\n", "closed")
	want(db, "\n", "closed")
}

// TestAgentClosesFirst: agents close before the requests in flight are answered.
func TestAgentClosesFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spoolRoot, conf, own := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-answer
	}))
	t.Cleanup(web.Close)
	writeFile(t, conf, fmt.Sprintf("services: {web: {agent_listen: %q}}\n", own))
	p := startDaemon(t, "-A", "0", "-c", conf, "--spool-root", spoolRoot)
	agents := append(p.agentPorts(1), own)
	code := make(chan int, 1)
	go func() {
		c, _, _ := p.get("/http/web/" + port(t, web.Listener.Addr().String()) + "/")
		code <- c
	}()
	<-asked
	p.signal(syscall.SIGTERM)
	for _, addr := range agents {
		waitUntil(t, "the agent is closed", func() bool { return askAgent(addr, "web\n") == "closed" })
	}
	select {
	case c := <-code:
		t.Errorf("the request was answered with %d too early", c)
	default:
	}
	close(answer)
	if c := <-code; c != 200 {
		t.Errorf("the request in flight: %d", c)
	}
	p.wantExit(0)
}

// TestWeights: a weight is in the answers of the agent, on the pages and in the log. It is set by HTTP as by command, where
// a balancer asks the agent.
func TestWeights(t *testing.T) {
	t.Parallel()
	spoolRoot := filepath.Join(t.TempDir(), "spool")
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "allow_remote_spool_changes: true\n")
	p := startDaemon(t, "-A", "0", "--spool-root", spoolRoot, "-c", conf)
	addr := p.agentPorts(1)[0]
	want := func(service, want string) {
		t.Helper()
		if got := askAgent(addr, service+"\n"); got != want {
			t.Errorf("%s: %q, want %q", service, got, want)
		}
	}
	post := func(path, form string, want int) {
		t.Helper()
		r, err := client.Post("http://"+p.addrs[0]+path, "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if body, _ := io.ReadAll(r.Body); r.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", form, r.StatusCode, body, want)
		}
	}
	post("/spool/web/0/", "status=up&weight=25", 409)
	for range 3 { // before that the client may be a person
		want("web", "up ready")
		want("web:81", "up ready")
	}
	waitUntil(t, "the agent's answers are recorded", func() bool {
		return strings.Count(p.mustGet("/balancers?service=web", 200), `"known":true`) == 2
	})
	post("/spool/web/80/", "status=up&weight=25", 409) // the agent was asked about another instance
	post("/spool/web/81/", "status=up&weight=5", 200)
	post("/spool/web/0/", "status=up&weight=25%25", 200)
	want("web", "up ready 25%")
	want("web:80", "up ready 25%")
	want("web:81", "up ready 5%")
	want("db", "up ready")
	p.waitForLog(regexp.MustCompile(`msg="weight set" service=web weight=25 since=\S+ by="remote 127.0.0.1"`))
	if page := p.mustGet("/metrics", 200); !strings.Contains(page, "\nhacheck_weights 2\n") {
		t.Errorf("two weights are not in the metrics:\n%s", page)
	}
	if page := p.mustGet("/overview", 200); !strings.Contains(page, `"weights":[{"service":"web","weight":25,"set_by":"remote 127.0.0.1",`) {
		t.Errorf("the weights are not on the page: %s", page)
	}
	post("/spool/web/0/", "status=up", 200)
	want("web", "up ready 100%")
	want("web:81", "up ready 5%")
	p.waitForLog(regexp.MustCompile(`msg="weight ended" service=web weight=25`))
}
