package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// These tests send several requests on one keep-alive connection. Each request overwrites the read buffer. What the
// daemon stores of an earlier request must not change.

// keepAliveConn is a keep-alive connection to the daemon. net/http answers its first request, and the fast path all
// later ones.
type keepAliveConn struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialDaemon(t testing.TB, d *daemon) *keepAliveConn {
	t.Helper()
	c, err := dial(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k := &keepAliveConn{t, c, bufio.NewReader(c)}
	if got := k.get("/spool/first/0"); got.code != 200 {
		t.Fatalf("the first request: %+v", got)
	}
	return k
}

// send writes a request without waiting for its answer.
func (k *keepAliveConn) send(path string) {
	k.t.Helper()
	if _, err := fmt.Fprintf(k, "GET %s HTTP/1.1\r\nHost: balancer\r\n\r\n", path); err != nil {
		k.t.Fatal(err)
	}
}

// receive reads the next answer.
func (k *keepAliveConn) receive() answer {
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

func (k *keepAliveConn) get(path string) answer {
	k.t.Helper()
	k.send(path)
	return k.receive()
}

// askAgent returns the answer of the agent on a port of 127.0.0.1 about a service.
func askAgent(t *testing.T, port int, service string) string {
	t.Helper()
	c, err := dial(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	fmt.Fprintln(c, service)
	line, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(line))
}

// TestLaterRequestDoesNotRenamePassedCheck: after maint, the agent waits until a check of the service has passed. The
// next request on the same connection must not change the service of that check.
func TestLaterRequestDoesNotRenamePassedCheck(t *testing.T) {
	t.Parallel()
	s := startService(t, "127.0.0.1", 0, serveOK)
	agent := freePort(t)
	d := startDaemon(t, fmt.Sprintf("services: {web: {agent_listen: '127.0.0.1:%d'}}\n", agent))
	askAgent := func() string { return askAgent(t, agent, "web") }
	k := dialDaemon(t, d)
	d.mustRun("hadown", "--maint", "-r", "disk", "web")
	if got, want := askAgent(), "maint down #disk"; got != want {
		t.Fatalf("in maint the agent says %q, want %q", got, want)
	}
	d.mustRun("haup", "web")
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
