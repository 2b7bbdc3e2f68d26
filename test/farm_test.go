package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// farm is two HAProxy processes in front of one service on two hosts. Each balancer has a backend "web" for HTTP and
// a backend "raw" for TCP, with the servers web1 and web2 of the two hosts.
type farm struct {
	t         testing.TB
	service   string
	inter     time.Duration // between two checks
	hosts     []*host
	services  []*blockingService
	balancers []*haproxy
	httpAddrs []string // addresses of the balancers' HTTP proxies
	tcpAddrs  []string // and of the TCP proxies
	port      int      // of the services
}

// farmOptions changes a farm. The zero value has send-state, disable-on-404 and a check every 200 ms.
type farmOptions struct {
	inter       time.Duration    // between two checks
	noSendState bool             // no send-state
	fall        int              // HAProxy's, 1 when 0
	agentPort   int              // port for agent-check, which is not used when it is 0
	node        string           // of both balancers; otherwise they are lb1 and lb2
	extraLines  map[int][]string // further lines of a balancer's backends
}

// newFarm starts a farm in front of hosts whose hachecks run. The name of the service is the last part of the name of
// the test.
func newFarm(t testing.TB, both []*host, l farmOptions) *farm {
	t.Helper()
	f := &farm{t: t, service: strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:])}
	port := freePort(t)
	f.port = port
	for i, h := range both {
		f.hosts = append(f.hosts, h.forTest(t))
		f.services = append(f.services, startBlockingService(t, h.ip, port, fmt.Sprintf("web%d", i+1)))
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
		lines := slices.Concat(l.extraLines[lb], []string{"http-check disable-on-404"})
		if !l.noSendState {
			lines = append(lines, "http-check send-state")
		}
		if l.agentPort != 0 {
			lines = append(lines, fmt.Sprintf(`default-server agent-check agent-port %d agent-inter %s agent-send "%s\n"`, l.agentPort, inter, f.service))
		}
		urlPort := 0
		if l.noSendState {
			urlPort = port
		}
		httpPort, tcpPort := freePort(t), freePort(t)
		f.httpAddrs = append(f.httpAddrs, fmt.Sprintf("127.0.0.1:%d", httpPort))
		f.tcpAddrs = append(f.tcpAddrs, fmt.Sprintf("127.0.0.1:%d", tcpPort))
		f.balancers = append(f.balancers, startHAProxy(t, fmt.Sprintf(`
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
	f.waitForStates("UP", "UP")
	if !l.noSendState {
		for _, h := range f.hosts {
			h.waitForBalancers(f.service, 4)
		}
	}
	return f
}

// waitForBalancers waits until hacheck knows n balancers of the service, each with its check interval.
func (h *host) waitForBalancers(service string, n int) {
	h.t.Helper()
	eventually(h.t, func() error {
		r := h.balancerReport(service)
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

// waitForStates waits until every running balancer has these states of the two servers.
func (f *farm) waitForStates(web1, web2 string) {
	f.t.Helper()
	for _, lb := range f.balancers {
		if !lb.hasEnded() {
			lb.waitForStates(map[string]string{"web/web1": web1, "raw/web1": web1, "web/web2": web2, "raw/web2": web2})
		}
	}
}

// waitForSessions waits until the balancers have reported these session counts to the first host's hacheck, by "node
// server".
func (f *farm) waitForSessions(want map[string]int) {
	f.t.Helper()
	eventually(f.t, func() error {
		got := map[string]int{}
		for _, b := range f.hosts[0].balancerReport(f.service).Balancers {
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

// startHadown starts hadown on the first host.
func (f *farm) startHadown(args ...string) *process {
	f.t.Helper()
	return f.hosts[0].startCommand("hadown", append([]string{f.service, "-r", "new release"}, args...)...)
}

// expectWaiting fails the test if the command ends within two check intervals and the command's own poll interval.
// open says what is still open, for the message.
func (f *farm) expectWaiting(p *process, open string) {
	f.t.Helper()
	select {
	case <-p.done:
		f.t.Fatalf("%s has ended (%v) while %s open, after printing:\n%s", p.name, p.err, open, p.out.String())
	case <-time.After(2*f.inter + 300*time.Millisecond):
	}
}

// waitForOutput waits until the command has printed all texts.
func (p *process) waitForOutput(t testing.TB, texts ...string) {
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

// expectExit waits for the end of the command. The exit code must be want, and the output must contain the texts.
func (f *farm) expectExit(p *process, want int, texts ...string) {
	f.t.Helper()
	if exit := p.waitForExit(f.t); exit != want {
		f.t.Fatalf("%s: exit %d, want %d, after printing:\n%s", p.name, exit, want, p.out.String())
	}
	p.waitForOutput(f.t, texts...)
}

// readOverride returns the first host's spool file of the service.
func (f *farm) readOverride() string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.hosts[0].spool, f.service))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// expectNoOverride fails the test if the first host has an override of the service.
func (f *farm) expectNoOverride() {
	f.t.Helper()
	if _, err := os.Stat(filepath.Join(f.hosts[0].spool, f.service)); err == nil {
		f.t.Errorf("there is an override: %s", f.readOverride())
	}
}

// subtest is a subtest for runSubtests.
type subtest struct {
	name string
	test func(t *testing.T)
}

// runSubtests runs six subtests at a time. They mostly wait for HAProxy, so the number of processors is no limit.
func runSubtests(t *testing.T, scenarios []subtest) {
	t.Helper()
	next := make(chan subtest)
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
