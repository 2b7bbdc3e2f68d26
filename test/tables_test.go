package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hacheck/internal/balancer"
)

// requestInventedServices sends requests for n invented services from one address.
func (d *daemon) requestInventedServices(from, prefix string, n int) {
	d.t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	const atOnce = 50
	for i := 0; i < n; i += atOnce {
		_ = conn.SetDeadline(time.Now().Add(waitLimit))
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

// runBalancers sends a check of each simulated balancer every 500 ms until the test ends. It returns after the first
// check of each.
func runBalancers(t *testing.T, lbs ...*simulatedBalancer) {
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

// balancerReport returns the document at /balancers about a service.
func (d *daemon) balancerReport(service string) balancer.Report {
	d.t.Helper()
	var r balancer.Report
	if a := d.get("/balancers?service=" + service); json.Unmarshal([]byte(a.body), &r) != nil {
		d.t.Fatalf("not a report: %.200s", a.body)
	}
	return r
}

// TestInventedServices: a client that has filled the table of services does not displace a balancer that comes later.
// hadown --wait waits for the balancer's sessions and ends after them, also during the flood.
func TestInventedServices(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	d.requestInventedServices("127.0.0.2", "invented-", 10_000)
	lb := &simulatedBalancer{addr: d.addr, from: "127.0.0.3", node: "lb1", path: "/spool/web/0/", state: "UP", sessions: 1}
	runBalancers(t, lb)
	if r := d.balancerReport("web"); len(r.Services) != 1 || len(r.Balancers) != 1 || r.Balancers[0].Node != "lb1" {
		t.Fatalf("web's balancer is not known: %+v", r)
	}
	out, err := d.run("hadown", "-p", strconv.Itoa(d.port), "web", "-r", "why", "--wait=3s")
	if exitCode(err) != 3 || !strings.Contains(out, "lb1 (be/srv): DOWN, 1 session open") {
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
				d.requestInventedServices("127.0.0.2", fmt.Sprintf("more-%d-", round), 1_000)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	lb.mu.Lock()
	lb.sessions = 0
	lb.mu.Unlock()
	out, err = d.run("hadown", "-p", strconv.Itoa(d.port), "web", "-r", "why", "--wait=60s")
	if exitCode(err) != 0 || !strings.Contains(out, "web: out with 1 balancer") {
		t.Errorf("hadown when all sessions are over: %v\n%s", err, out)
	}
	out, err = d.run("haup", "-p", strconv.Itoa(d.port), "web", "--wait=60s")
	if exitCode(err) != 0 || !strings.Contains(out, "web: up with 1 balancer") {
		t.Errorf("haup: %v\n%s", err, out)
	}
	if n := strings.Count(d.out.String(), "a table of clients is full"); n < 1 || n > 3 || !strings.Contains(d.out.String(), "client=127.0.0.2") {
		t.Errorf("%d lines about a full table:\n%s", n, d.out.String())
	}
}

// TestUnrecordedBalancer: if the balancer's own address has filled the table, the daemon cannot record its requests.
// It reports that, so that no command takes the service for one without balancers.
func TestUnrecordedBalancer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	lb := &simulatedBalancer{addr: d.addr, from: "127.0.0.2", node: "lb1", path: "/spool/web/0/", state: "UP", sessions: 1}
	d.requestInventedServices(lb.from, "invented-", 10_000)
	if err := lb.check(); err != nil {
		t.Fatal(err)
	}
	if r := d.balancerReport("web"); len(r.Unrecorded) != 1 || r.Unrecorded[0].Service != "web" || r.Unrecorded[0].Client != lb.from {
		t.Errorf("unrecorded: %+v", r.Unrecorded)
	}
	if r := d.balancerReport("other"); len(r.Unrecorded) != 0 {
		t.Errorf("unrecorded of a service that nobody asks about: %+v", r.Unrecorded)
	}
	port := strconv.Itoa(d.port)
	// After 12 s without a request, the commands would otherwise believe that there is no balancer.
	for _, args := range [][]string{{"hadown", "-r", "why", "--wait=12s"}, {"haup", "--wait=2s"}} {
		out, err := d.run(args[0], append([]string{"-p", port, "web"}, args[1:]...)...)
		if exitCode(err) != 3 || !strings.Contains(out, "127.0.0.2 asked about web") || !strings.Contains(out, "block it with a firewall and run the command again") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	if out, err := d.run("hadown", "-p", port, "web", "-r", "why", "--safe"); exitCode(err) != 1 {
		t.Errorf("hadown --safe: %v\n%s", err, out)
	}
}

// TestInventedAgents: invented services on the agent port do not displace the agent connections of a balancer.
func TestInventedAgents(t *testing.T) {
	t.Parallel()
	d := startAgentDaemon(t)
	ask := func(from string, names ...string) {
		t.Helper()
		for _, name := range names {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", d.agent)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(waitLimit))
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
	// The first row, "all", belongs to the connection of waitReady.
	if r := d.balancerReport("web"); len(r.Agents) != 2 || r.Agents[1].Address != "127.0.0.3" || len(r.Unrecorded) != 0 {
		t.Errorf("web: %+v, %+v", r.Agents, r.Unrecorded)
	}
	if r := d.balancerReport("api"); len(r.Agents) != 1 || len(r.Unrecorded) != 1 || r.Unrecorded[0].Client != "127.0.0.2" {
		t.Errorf("api: %+v, %+v", r.Agents, r.Unrecorded)
	}
	out, err := d.run("hadown", "-p", strconv.Itoa(d.port), "api", "-r", "why", "--wait=1s")
	if exitCode(err) != 3 || !strings.Contains(out, "127.0.0.2 asked about api") {
		t.Errorf("hadown: %v\n%s", err, out)
	}
}

// TestManyServicesOfOneBalancer: thousands of services of one balancer have a row each.
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

// startAgentDaemon starts a daemon with an agent port.
func startAgentDaemon(t *testing.T) *agentDaemon {
	t.Helper()
	agent := freePort(t)
	d := newDaemon(t, "127.0.0.1", freePort(t), filepath.Join(t.TempDir(), "spool"))
	d.launch(bin(t, "hacheck"), "-A", strconv.Itoa(agent))
	a := &agentDaemon{d, "127.0.0.1:" + strconv.Itoa(agent)}
	d.waitReady(t, a.agent)
	return a
}
