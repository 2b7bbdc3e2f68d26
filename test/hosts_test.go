package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// host stands for a machine behind balancers: it has its own address from 127/8, a service, and a hacheck.
type host struct {
	*daemon
	ip     string
	dir    string // config, spool
	socket string // control socket of the daemon, "" for none
}

// startHosts starts n hosts at 127.0.0.1, 127.0.0.2, ..., each with a hacheck at the same port. All have the same
// configuration and the same further arguments.
func startHosts(t testing.TB, n int, config string, args ...string) []*host {
	t.Helper()
	port := freePort(t)
	var list []*host
	for i := range n {
		h := &host{ip: fmt.Sprintf("127.0.0.%d", i+1), dir: t.TempDir()}
		h.daemon = &daemon{t: t, port: port}
		if err := os.WriteFile(filepath.Join(h.dir, "hacheck.yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		h.startHacheck(t, args...)
		list = append(list, h)
	}
	return list
}

// startHacheck starts the host's hacheck, for the first time or after a stop. See expectCleanExit for its end.
func (h *host) startHacheck(t testing.TB, args ...string) {
	t.Helper()
	h.daemon = newDaemon(t, h.ip, h.port, filepath.Join(h.dir, "spool"))
	h.launch(bin(t, "hacheck"), append([]string{"-c", filepath.Join(h.dir, "hacheck.yaml")}, args...)...)
	h.expectCleanExit(t)
}

// forTest returns the host for a subtest: helpers then fail t instead of the test that started the host.
func (h *host) forTest(t testing.TB) *host {
	d, c := *h.daemon, *h
	d.t, c.daemon = t, &d
	return &c
}

// waitForUptime waits until the host's hacheck has listened for 10 s. Before that, it may not know all balancers: no
// --wait ends and no --safe agrees.
func (h *host) waitForUptime() {
	h.t.Helper()
	eventually(h.t, func() error {
		if up := h.balancerReport("none").Uptime; up < 10 {
			return fmt.Errorf("hacheck on %s has listened for %v s", h.ip, up)
		}
		return nil
	})
}

// options returns the options that make a command act on this host.
func (h *host) options() []string {
	options := []string{"--spool-root", h.spool, "-p", h.addr}
	if h.socket != "" {
		options = append(options, "--control-socket", h.socket)
	}
	return options
}

// runCommand runs a command on the host. It returns the output and the exit code.
func (h *host) runCommand(name string, args ...string) (string, int) {
	h.t.Helper()
	out, err := exec.Command(bin(h.t, name), append(args, h.options()...)...).CombinedOutput()
	return string(out), exitCode(err)
}

// mustRunCommand runs a command on the host and returns its output. It fails the test unless the exit code is 0.
func (h *host) mustRunCommand(name string, args ...string) string {
	h.t.Helper()
	out, exit := h.runCommand(name, args...)
	if exit != 0 {
		h.t.Fatalf("%s %s on %s: exit %d\n%s", name, strings.Join(args, " "), h.ip, exit, out)
	}
	return out
}

// startCommand starts a command on the host and does not wait for it.
func (h *host) startCommand(name string, args ...string) *process {
	h.t.Helper()
	return start(h.t, bin(h.t, name), append(args, h.options()...)...)
}

// hasEnded reports whether the process has ended.
func (p *process) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// waitForExit waits until the process has ended and returns the exit code.
func (p *process) waitForExit(t testing.TB) int {
	t.Helper()
	eventually(t, func() error {
		if !p.hasEnded() {
			return fmt.Errorf("%s still runs after printing:\n%s", p.name, p.out.String())
		}
		return nil
	})
	return exitCode(p.err)
}

// serverStates returns the column status of "show stat" by "backend/server".
func (h *haproxy) serverStates() map[string]string {
	h.t.Helper()
	m := map[string]string{}
	for name, row := range h.statByServer() {
		m[name] = row["status"]
	}
	return m
}

// waitForStates waits until every server of want ("backend/server") has its state.
func (h *haproxy) waitForStates(want map[string]string) {
	h.t.Helper()
	eventually(h.t, func() error {
		got := h.serverStates()
		for server, w := range want {
			if got[server] != w {
				return fmt.Errorf("%s is %q, want %q", server, got[server], w)
			}
		}
		return nil
	})
}

// blockingService is the service of a host. It answers a request for /long when the test calls release. A request for
// /tunnel opens a tunnel, which stays open until the client closes it.
type blockingService struct {
	t    testing.TB
	name string

	mu   sync.Mutex
	held map[string]chan struct{} // by the query of the long request
}

// startBlockingService serves on ip and port. Each answer is the name.
func startBlockingService(t testing.TB, ip string, port int, name string) *blockingService {
	t.Helper()
	w := &blockingService{t: t, name: name, held: map[string]chan struct{}{}}
	s := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(func() {
		w.mu.Lock()
		for _, c := range w.held {
			close(c)
		}
		w.held = map[string]chan struct{}{}
		w.mu.Unlock()
		s.CloseClientConnections()
		s.Close()
	})
	return w
}

func (w *blockingService) serve(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/long":
		c := make(chan struct{})
		w.mu.Lock()
		w.held[r.URL.RawQuery] = c
		w.mu.Unlock()
		<-c
	case "/tunnel":
		conn, rest, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"+w.name+"\n")
		_, _ = io.Copy(conn, rest)
		return
	}
	_, _ = io.WriteString(rw, w.name)
}

// release answers the long request with that query.
func (w *blockingService) release(query string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held[query] == nil {
		w.t.Errorf("%s holds no request %q", w.name, query)
		return
	}
	close(w.held[query])
	delete(w.held, query)
}

// isHolding reports whether the service holds the long request with that query.
func (w *blockingService) isHolding(query string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[query] != nil
}

// startLongRequest sends a long request through the balancer at addr, which must obey the header X-To. It returns
// when the service has the request. After release, the answer must be that of this service.
func (w *blockingService) startLongRequest(addr, query string) {
	w.t.Helper()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/long?"+query, nil)
		if err != nil {
			w.t.Error(err)
			return
		}
		req.Header.Set("X-To", w.name)
		resp, err := client.Do(req)
		if err != nil {
			w.t.Errorf("long request %s: %v", query, err)
			return
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != w.name {
			w.t.Errorf("long request %s to %s: %d %q, %v", query, w.name, resp.StatusCode, body, err)
		}
	}()
	eventually(w.t, func() error {
		if !w.isHolding(query) {
			return fmt.Errorf("the long request %s has not come to %s", query, w.name)
		}
		return nil
	})
	w.t.Cleanup(func() {
		if w.isHolding(query) { // the test has failed
			w.release(query)
		}
		<-answered
	})
}

// clientConn is a keep-alive connection of a client.
type clientConn struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dialBalancer connects to a balancer. The connection closes with the test.
func dialBalancer(t testing.TB, addr string) *clientConn {
	t.Helper()
	conn, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &clientConn{t, conn, bufio.NewReader(conn)}
}

// get sends a GET request with further header lines. It returns the answer and its body; after a 101 the body is the
// first line of the tunnel.
func (k *clientConn) get(path string, header ...string) (*http.Response, string) {
	k.t.Helper()
	if _, err := fmt.Fprintf(k.conn, "GET %s HTTP/1.1\r\nHost: web\r\n%s\r\n", path, strings.Join(append(header, ""), "\r\n")); err != nil {
		k.t.Fatal(err)
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatalf("answer to %s: %v", path, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatal(err)
		}
		return resp, strings.TrimSpace(line)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return resp, string(body)
}

// openTunnel opens a tunnel through a balancer's HTTP or TCP proxy to the server of that name.
func openTunnel(t testing.TB, addr, name string) *clientConn {
	t.Helper()
	for range 100 {
		k := dialBalancer(t, addr)
		if _, at := k.get("/tunnel", "Connection: upgrade", "Upgrade: echo"); at == name {
			return k
		}
		k.conn.Close()
	}
	t.Fatalf("no tunnel of a hundred came to %s", name)
	return nil
}

// expectEcho sends a line through a tunnel and waits for its echo: the tunnel is open.
func (k *clientConn) expectEcho() {
	k.t.Helper()
	if _, err := io.WriteString(k.conn, "still there\n"); err != nil {
		k.t.Fatal(err)
	}
	if line, err := k.r.ReadString('\n'); err != nil || line != "still there\n" {
		k.t.Fatalf("tunnel: %q, %v", line, err)
	}
}
