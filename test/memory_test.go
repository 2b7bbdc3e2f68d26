package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// These tests ask several times on one kept connection, whose read buffer each request overwrites. What the daemon
// remembers of an earlier request must not change with it.

// keptConn is a connection that asks more than once. Its first request goes through net/http, all later ones are
// answered by the fast path.
type keptConn struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func keepConn(t testing.TB, d *daemon) *keptConn {
	t.Helper()
	c, err := dial(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k := &keptConn{t, c, bufio.NewReader(c)}
	if got := k.get("/spool/first/0"); got.code != 200 {
		t.Fatalf("the first request: %+v", got)
	}
	return k
}

// send writes a request without waiting for its answer.
func (k *keptConn) send(path string) {
	k.t.Helper()
	if _, err := fmt.Fprintf(k, "GET %s HTTP/1.1\r\nHost: balancer\r\n\r\n", path); err != nil {
		k.t.Fatal(err)
	}
}

// receive reads the next answer.
func (k *keptConn) receive() answer {
	k.t.Helper()
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return answer{resp.StatusCode, string(body), resp.Header}
}

func (k *keptConn) get(path string) answer {
	k.t.Helper()
	k.send(path)
	return k.receive()
}

// TestLaterRequestDoesNotRenamePassedCheck: the agent waits after a maintenance until a check of the service has
// passed. The next request on the connection that ran this check must not change whose check it was.
func TestLaterRequestDoesNotRenamePassedCheck(t *testing.T) {
	t.Parallel()
	s := startService(t, "127.0.0.1", 0, ok)
	agent := freePort(t)
	d := startDaemon(t, fmt.Sprintf("services: {web: {agent_listen: '127.0.0.1:%d'}}\n", agent))
	askAgent := func() string {
		c, err := dial(net.JoinHostPort("127.0.0.1", strconv.Itoa(agent)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "web\n")
		line, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(line))
	}
	k := keepConn(t, d)
	d.do("hadown", "--maint", "-r", "disk", "web")
	if got, want := askAgent(), "maint down #disk"; got != want {
		t.Fatalf("in maint the agent says %q, want %q", got, want)
	}
	d.do("haup", "web")
	if got, want := askAgent(), "ready down #coming back"; got != want {
		t.Fatalf("after maint the agent says %q, want %q", got, want)
	}
	for _, service := range []string{"web", "zzz"} {
		if got := k.get(fmt.Sprintf("/tcp/%s/%d", service, s.port)); got.code != 200 {
			t.Fatalf("%s: %+v", service, got)
		}
	}
	if got, want := askAgent(), "up ready"; got != want {
		t.Errorf("after a check has passed the agent says %q, want %q", got, want)
	}
}

// TestLaterRequestDoesNotRenameScript: a script waits for a slot, the request that asked for it first is answered
// because its time is up, and the next request on its connection comes. The script must find the name of its own
// service in its environment.
func TestLaterRequestDoesNotRenameScript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hold, found := filepath.Join(dir, "release"), filepath.Join(dir, "found")
	// As many services as scripts run at once keep a slot each until the file "release" is there.
	const slots = 64
	config := "healthcheck_timeout: 8\nservices:\n"
	services := []string{"web"}
	for i := range slots {
		config += fmt.Sprintf("  hold%d: {checks: [{type: script, timeout: 60, command: [/bin/sh, -c, 'touch %s/run-%d; until [ -e %s ]; do sleep 0.1; done']}]}\n", i, dir, i, hold)
		services = append(services, fmt.Sprintf("hold%d", i))
	}
	config += fmt.Sprintf("  web: {checks: [{type: script, timeout: 60, command: [/bin/sh, -c, 'echo \"$HACHECK_SERVICE\" >%s']}]}\n", found)
	d := startDaemon(t, config)
	var asked sync.WaitGroup
	t.Cleanup(asked.Wait)
	var askedWeb atomic.Bool
	var overriding sync.Mutex
	keepAsking := make(chan struct{})
	asked.Go(func() {
		// A script that no request waits for is killed. After an override has ended the next request has a check of its
		// own, which joins the run that is there: so all are asked again before the time of the last requests is up.
		for {
			for _, service := range services {
				if service != "web" || askedWeb.Load() {
					asked.Go(func() { _, _ = get(d.url + "/checks/" + service + "/0/") })
				}
			}
			select {
			case <-keepAsking:
				return
			case <-time.After(time.Second):
			}
			overriding.Lock()
			d.do("hadown", "all")
			d.do("haup", "all")
			overriding.Unlock()
		}
	})
	t.Cleanup(sync.OnceFunc(func() { close(keepAsking) }))
	release := sync.OnceFunc(func() {
		if err := os.WriteFile(hold, nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(release) // the scripts end first

	k := keepConn(t, d)
	eventually(t, func() error {
		if running, _ := filepath.Glob(filepath.Join(dir, "run-*")); len(running) < slots {
			return fmt.Errorf("%d scripts run", len(running))
		}
		return nil
	})
	inFlight := func() (n int) {
		var status struct {
			N int `json:"outbound_request_queue_size"`
		}
		if err := json.Unmarshal([]byte(d.get("/status").body), &status); err != nil {
			t.Fatal(err)
		}
		return status.N
	}
	overriding.Lock()
	before := inFlight()
	k.send("/checks/web/0/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	eventually(t, func() error {
		if n := inFlight(); n <= before {
			return fmt.Errorf("%d checks are in flight, as many as before or fewer", n)
		}
		return nil
	})
	overriding.Unlock()
	askedWeb.Store(true)
	if got := k.receive(); got.code != 503 || !strings.Contains(got.body, "has not ended") {
		t.Fatalf("the first request is answered %+v, want 503 because its time is up", got)
	}
	k.send("/checks/zzz/0/%../;`id`$(x)zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz")
	_ = k.receive()
	release()
	eventually(t, func() error {
		name, err := os.ReadFile(found)
		if err == nil && string(name) != "web\n" {
			t.Fatalf("the script of web finds HACHECK_SERVICE=%q", name)
		}
		return err
	})
}
