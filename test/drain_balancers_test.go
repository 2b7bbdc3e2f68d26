package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// testBalancerDies: hadown --wait does not wait for a balancer that dies after its server was out and had no
// sessions.
func testBalancerDies(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	f.services[0].startLongRequest(f.httpAddrs[0], "a")
	f.waitForSessions(map[string]int{"lb1 web/web1": 1})
	p := f.startHadown("--wait")
	p.waitForOutput(t, "lb2 (web/web1): DOWN, 0 sessions open: out", "lb2 (raw/web1): DOWN, 0 sessions open: out")
	_ = f.balancers[1].cmd.Process.Kill()
	<-f.balancers[1].done
	p.waitForOutput(t, "lb2 (web/web1): silent, was out")
	f.expectWaiting(p, "a request of the other is")
	f.services[0].release("a")
	f.expectExit(p, 0, f.service+": out with 4 balancers")
}

// reload starts a new HAProxy process with the same file. The old process ends after its last session. reload returns
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

// testReload: a balancer that reloads while the command waits must report again that the server is out. No header
// contains the open sessions of the old process, as docs/haproxy.md says.
func testReload(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	f.services[0].startLongRequest(f.httpAddrs[0], "old")
	f.services[0].startLongRequest(f.httpAddrs[1], "other")
	f.waitForSessions(map[string]int{"lb1 web/web1": 1, "lb2 web/web1": 1})
	p := f.startHadown("--wait")
	f.waitForStates("DOWN", "UP")
	old := f.balancers[0]
	f.balancers[0] = old.reload(t)
	f.waitForSessions(map[string]int{"lb1 web/web1": 0})
	f.waitForStates("DOWN", "UP")
	f.expectWaiting(p, "a request of the other is")
	f.services[0].release("other")
	f.expectExit(p, 0, f.service+": out with 4 balancers")
	if old.hasEnded() {
		t.Error("the old process has ended, with a request open")
	}
	f.services[0].release("old")
	old.waitForExit(t)
}

// testRestart: the command waits for a balancer that stops and starts again meanwhile.
func testRestart(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{})
	f.services[0].startLongRequest(f.httpAddrs[1], "other")
	raw := openTunnel(t, f.tcpAddrs[0], "web1")
	f.waitForSessions(map[string]int{"lb1 raw/web1": 1, "lb2 web/web1": 1})
	p := f.startHadown("--wait")
	f.waitForStates("DOWN", "UP")
	raw.expectEcho()
	_ = f.balancers[0].stop() // it reports the signal as an error
	f.balancers[0] = f.balancers[0].reload(t)
	f.waitForSessions(map[string]int{"lb1 raw/web1": 0})
	f.expectWaiting(p, "a request of the other is")
	f.services[0].release("other")
	f.expectExit(p, 0, f.service+": out with 4 balancers")
}

// testNoSendState: without send-state, a server is out after --fall answers, and its sessions are unknown.
func testNoSendState(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{noSendState: true, extraLines: map[int][]string{1: {"source 127.0.0.7"}}}) // otherwise hacheck cannot tell the two apart
	f.hosts[0].waitForBalancers(f.service, 4)
	f.services[0].startLongRequest(f.httpAddrs[0], "a")
	if out, exit := f.hosts[0].runCommand("hadown", f.service, "--safe", "-r", "new release"); exit != 1 || !strings.Contains(out, "http-check send-state") {
		t.Errorf("--safe: exit %d, want 1 and what to do:\n%s", exit, out)
	}
	f.expectNoOverride()
	p := f.startHadown("--wait", "--fall", "5")
	f.expectExit(p, 0, "got 5 of 5 answers with the override, open sessions unknown: out")
	f.waitForStates("DOWN", "UP")
	f.expectExit(f.hosts[0].startCommand("haup", f.service, "--wait"), 0)
	f.services[0].release("a")
}

// testSameNode: the addresses tell two balancers with the same node name apart.
func testSameNode(t *testing.T, both []*host) {
	f := newFarm(t, both, farmOptions{node: "lb", extraLines: map[int][]string{1: {"source 127.0.0.7"}}})
	f.services[0].startLongRequest(f.httpAddrs[1], "a")
	p := f.startHadown("--wait")
	p.waitForOutput(t, "lb at 127.0.0.1 (web/web1): DOWN, 0 sessions open: out", "lb at 127.0.0.7 (web/web1): DOWN, 1 session open")
	f.waitForStates("DOWN", "UP")
	f.expectWaiting(p, "a request of the second is")
	f.services[0].release("a")
	f.expectExit(p, 0, f.service+": out with 4 balancers")
}

// simulatedBalancer is a balancer without HAProxy: it sends checks with a state header, and its state follows the
// answers.
type simulatedBalancer struct {
	addr, from, node, path string

	mu       sync.Mutex
	state    string
	sessions int
	lastSent string // state and sessions in the last check
}

// check sends one check from the balancer's address.
func (s *simulatedBalancer) check() error {
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(s.from)}, Timeout: waitLimit}).Dial("tcp", s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(waitLimit))
	s.mu.Lock()
	sent := fmt.Sprintf("%s %d", s.state, s.sessions)
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
	s.lastSent = sent
	s.state = map[bool]string{true: "UP", false: "DOWN"}[resp.StatusCode == http.StatusOK]
	return nil
}

// testHundredBalancers: hadown waits for the last of a hundred balancers.
func testHundredBalancers(t *testing.T, both []*host) {
	one := both[0].forTest(t)
	var lbs []*simulatedBalancer
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for i := range 100 {
		s := &simulatedBalancer{
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
	one.waitForBalancers("hundred", 100)
	f := &farm{t: t, service: "hundred", hosts: []*host{one}, inter: 500 * time.Millisecond}
	p := f.startHadown("--wait")
	out := func(want int) {
		t.Helper()
		eventually(t, func() error {
			n := 0
			for _, s := range lbs {
				s.mu.Lock()
				if s.lastSent == "DOWN 0" {
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
	f.expectWaiting(p, "sessions of the 98th are")
	lbs[97].mu.Lock()
	lbs[97].sessions = 0
	lbs[97].mu.Unlock()
	f.expectExit(p, 0, "hundred: out with 100 balancers")
	out(100)
}

// testFloodOfBalancers: ten thousand node names from one client, some with headers of 60 KB, do not displace the real
// balancers.
func testFloodOfBalancers(t *testing.T) {
	// It has daemons of its own, because their report names the dropped requests to every command.
	both := startHosts(t, 2, "cache_time: 0\n")
	one := both[0]
	f := newFarm(t, both, farmOptions{})
	f.services[0].startLongRequest(f.httpAddrs[1], "a")
	before := one.rss()
	parallel(8, func(worker int) {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.66")}}).Dial("tcp", one.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(waitLimit))
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
	r := one.balancerReport(f.service)
	if n := len(r.Balancers); n > 200 || r.UnrecordedRequests < 9_000 {
		t.Errorf("of ten thousand names %d are remembered, and %d were not", n, r.UnrecordedRequests)
	}
	if grown := one.rss() - before; grown > 64<<20 {
		t.Errorf("the daemon has grown by %d bytes", grown)
	}
	p := f.startHadown("--wait")
	p.waitForOutput(t, "lb1 (web/web1): DOWN, 0 sessions open: out", "lb2 (web/web1): DOWN, 1 session open")
	f.services[0].release("a")
	p.waitForOutput(t, "lb2 (web/web1): DOWN, 0 sessions open: out")
	f.expectWaiting(p, "those of the flood are") // to hacheck they are silent balancers
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	f.expectExit(p, 130)
}
