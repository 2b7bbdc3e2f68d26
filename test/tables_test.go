package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hacheck/internal/balancer"
)

// invent asks about n services that nobody else asks about, from one address.
func (d *daemon) invent(from, prefix string, n int) {
	d.t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	const atOnce = 50
	for i := 0; i < n; i += atOnce {
		_ = conn.SetDeadline(time.Now().Add(patience))
		var heads strings.Builder
		for j := i; j < min(i+atOnce, n); j++ {
			fmt.Fprintf(&heads, "GET /spool/%s%d/0/ HTTP/1.1\r\nHost: x\r\n\r\n", prefix, j)
		}
		if _, err := io.WriteString(conn, heads.String()); err != nil {
			d.t.Fatal(err)
		}
		for j := i; j < min(i+atOnce, n); j++ {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				d.t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
}

// balance has simulated balancers ask until the test ends, every 500 ms, and returns once each has asked.
func balance(t *testing.T, lbs ...*simulated) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
	for _, s := range lbs {
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if err := s.check(); err != nil {
					t.Errorf("%s: %v", s.node, err)
				}
			}
		})
	}
}

// report is the document at /balancers about a service.
func (d *daemon) report(service string) balancer.Report {
	d.t.Helper()
	var r balancer.Report
	if a := d.get("/balancers?service=" + service); json.Unmarshal([]byte(a.body), &r) != nil {
		d.t.Fatalf("not a report: %.200s", a.body)
	}
	return r
}

// TestInventedServices: a client that has filled the table of services before web is first asked about does not keep
// web's balancer out. hadown --wait waits for its sessions, and ends once they are over, while the flood goes on.
func TestInventedServices(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	d.invent("127.0.0.2", "invented-", 10_000)
	lb := &simulated{addr: d.addr, from: "127.0.0.3", node: "lb1", path: "/spool/web/0/", state: "UP", sessions: 1}
	balance(t, lb)
	if r := d.report("web"); len(r.Services) != 1 || len(r.Balancers) != 1 || r.Balancers[0].Node != "lb1" {
		t.Fatalf("web's balancer is not known: %+v", r)
	}
	out, err := d.try("hadown", "-p", strconv.Itoa(d.port), "web", "-r", "why", "--wait=3s")
	if code(err) != 3 || !strings.Contains(out, "lb1 (be/srv): DOWN, 1 session open") {
		t.Errorf("hadown with a session open: %v\n%s", err, out)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			default:
				d.invent("127.0.0.2", fmt.Sprintf("more-%d-", round), 1_000)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	lb.mu.Lock()
	lb.sessions = 0
	lb.mu.Unlock()
	out, err = d.try("hadown", "-p", strconv.Itoa(d.port), "web", "-r", "why", "--wait=60s")
	if code(err) != 0 || !strings.Contains(out, "web: out with 1 balancer") {
		t.Errorf("hadown when all sessions are over: %v\n%s", err, out)
	}
	out, err = d.try("haup", "-p", strconv.Itoa(d.port), "web", "--wait=60s")
	if code(err) != 0 || !strings.Contains(out, "web: up with 1 balancer") {
		t.Errorf("haup: %v\n%s", err, out)
	}
	if n := strings.Count(d.out.String(), "a table of clients is full"); n < 1 || n > 3 || !strings.Contains(d.out.String(), "client=127.0.0.2") {
		t.Errorf("%d lines about a full table:\n%s", n, d.out.String())
	}
}

// TestUnrecordedBalancer: where the balancer's own address has filled the table, the daemon cannot record that it asks
// about web. It says so, and no command takes its silence for that of a service that nobody asks about.
func TestUnrecordedBalancer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	lb := &simulated{addr: d.addr, from: "127.0.0.2", node: "lb1", path: "/spool/web/0/", state: "UP", sessions: 1}
	d.invent(lb.from, "invented-", 10_000)
	if err := lb.check(); err != nil {
		t.Fatal(err)
	}
	if r := d.report("web"); len(r.Unrecorded) != 1 || r.Unrecorded[0].Service != "web" || r.Unrecorded[0].Client != lb.from {
		t.Errorf("unrecorded: %+v", r.Unrecorded)
	}
	if r := d.report("other"); len(r.Unrecorded) != 0 {
		t.Errorf("unrecorded of a service that nobody asks about: %+v", r.Unrecorded)
	}
	port := strconv.Itoa(d.port)
	// 12 s are more than what the commands trust a silence after.
	for _, args := range [][]string{{"hadown", "-r", "why", "--wait=12s"}, {"haup", "--wait=2s"}} {
		out, err := d.try(args[0], append([]string{"-p", port, "web"}, args[1:]...)...)
		if code(err) != 3 || !strings.Contains(out, "127.0.0.2 asked about web") || !strings.Contains(out, "block it with a firewall and run the command again") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	if out, err := d.try("hadown", "-p", port, "web", "-r", "why", "--safe"); code(err) != 1 {
		t.Errorf("hadown --safe: %v\n%s", err, out)
	}
}

// TestInventedAgents: the same by way of the agent's port.
func TestInventedAgents(t *testing.T) {
	t.Parallel()
	d := startDaemonWith(t, "-A")
	ask := func(from string, names ...string) {
		t.Helper()
		for _, name := range names {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", d.agent)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, name+"\n")
			if _, err := io.ReadAll(conn); err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	}
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("invented-%d", i)
	}
	ask("127.0.0.2", names...)
	ask("127.0.0.3", "web", "web", "web")
	ask("127.0.0.2", "api")
	// "all" is of the connection that has waited for the port.
	if r := d.report("web"); len(r.Agents) != 2 || r.Agents[1].Address != "127.0.0.3" || len(r.Unrecorded) != 0 {
		t.Errorf("web: %+v, %+v", r.Agents, r.Unrecorded)
	}
	if r := d.report("api"); len(r.Agents) != 1 || len(r.Unrecorded) != 1 || r.Unrecorded[0].Client != "127.0.0.2" {
		t.Errorf("api: %+v, %+v", r.Agents, r.Unrecorded)
	}
	out, err := d.try("hadown", "-p", strconv.Itoa(d.port), "api", "-r", "why", "--wait=1s")
	if code(err) != 3 || !strings.Contains(out, "127.0.0.2 asked about api") {
		t.Errorf("hadown: %v\n%s", err, out)
	}
}

// TestManyServicesOfOneBalancer: thousands of services that one balancer asks about each have their row.
func TestManyServicesOfOneBalancer(t *testing.T) {
	t.Parallel()
	const services = 6_000
	d := startDaemon(t, "")
	conn, err := dial(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for i := range services {
		fmt.Fprintf(conn, "GET /spool/svc%d/0/ HTTP/1.1\r\nHost: x\r\nX-Haproxy-Server-State: UP; name=be%d/srv; node=lb1; weight=1/2; scur=0/9; qcur=0\r\n\r\n", i, i)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	var all balancer.Report
	if a := d.get("/balancers"); json.Unmarshal([]byte(a.body), &all) != nil {
		t.Fatalf("not a report: %.200s", a.body)
	}
	if len(all.Balancers) != services || len(all.Services) != services || len(all.Unrecorded) != 0 || all.UnrecordedRequests != 0 {
		t.Errorf("%d balancers, %d services, unrecorded %v", len(all.Balancers), len(all.Services), all.Unrecorded)
	}
}

// agentDaemon is a daemon with an agent port.
type agentDaemon struct {
	*daemon
	agent string
}

// startDaemonWith starts a daemon with an agent port at the given flag.
func startDaemonWith(t *testing.T, flag string) *agentDaemon {
	t.Helper()
	port, agent := freePort(t), freePort(t)
	d := &daemon{t: t, port: port, spool: t.TempDir() + "/spool", addr: "127.0.0.1:" + strconv.Itoa(port)}
	d.url = "http://" + d.addr
	d.process = start(t, bin(t, "hacheck"), "-B", "127.0.0.1", "-p", strconv.Itoa(port), flag, strconv.Itoa(agent), "--spool-root", d.spool)
	d.ready(t, d.addr)
	a := &agentDaemon{d, "127.0.0.1:" + strconv.Itoa(agent)}
	d.ready(t, a.agent)
	return a
}
