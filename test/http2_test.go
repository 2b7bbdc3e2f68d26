package test

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// startGRPCService starts a gRPC service with the health protocol, which is healthy.
func startGRPCService(t *testing.T, ip string, port int) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
}

// TestRecipeGRPC: HAProxy checks servers with "proto h2" by HTTP/2, and obeys hadown, drain and --wait.
func TestRecipeGRPC(t *testing.T) {
	t.Parallel()
	s := newRecipeSetup(t, startHosts(t, 2, "cache_time: 0\n"), freePort(t))
	for _, h := range s.hosts {
		startGRPCService(t, h.ip, s.service)
	}
	lb := s.startHAProxy(recipes(t)["grpc"], s.front)
	both := func(one string) map[string]string { return map[string]string{"api/api1": one, "api/api2": "UP"} }
	lb.waitForStates(both("UP"))
	one := s.hosts[0]
	one.mustRunCommand("hadown", "api", "-r", "memory", "--wait")
	lb.waitForStates(both("DOWN"))
	if row := lb.statByServer()["api/api1"]; row["check_code"] != "503" {
		t.Errorf("HAProxy got %s %s", row["check_status"], row["check_code"])
	}
	one.mustRunCommand("haup", "api", "--wait")
	lb.waitForStates(both("UP"))
	if b := one.balancerReport("api").Balancers; len(b) != 1 || b[0].Server != "api/api1" || b[0].Sessions == nil {
		t.Errorf("hacheck knows %+v, want one row with the sessions of api/api1", b)
	}
}

// TestHTTP2OfServiceListener: http_listen answers HAProxy's checks by HTTP/2.
func TestHTTP2OfServiceListener(t *testing.T) {
	t.Parallel()
	listen := freePort(t)
	one := startHosts(t, 1, fmt.Sprintf(`
services:
  web:
    checks: [{type: script, command: "true"}]
    http_listen: 127.0.0.1:%d
`, listen))[0]
	lb := startHAProxy(t, fmt.Sprintf(`
backend web
    option httpchk GET /
    server web1 127.0.0.1:1 proto h2 check port %d
`, listen))
	lb.waitForStates(map[string]string{"web/web1": "UP"})
	one.mustRunCommand("hadown", "web", "-r", "memory")
	lb.waitForStates(map[string]string{"web/web1": "DOWN"})
}
