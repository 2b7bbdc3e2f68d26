package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// fleetPrefix is the prefix of all keys of the tests' fleets. Each fleet has an etcd of its own.
const fleetPrefix = "/hacheck/"

// etcdServer is an etcd with one member and the client of the observer.
type etcdServer struct {
	*servertest.EtcdServer
	t      testing.TB
	client *clientv3.Client
}

// startEtcd starts an etcd.
func startEtcd(t testing.TB) *etcdServer {
	t.Helper()
	e := &etcdServer{EtcdServer: servertest.Etcd(t), t: t}
	e.connect()
	return e
}

// connect gives the observer a new client. After etcd was away, an old one may wait for its back-off.
func (e *etcdServer) connect() {
	e.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: e.URLs(), Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = client.Close() })
	e.client = client
}

// values returns the keys below a part of the prefix, without it, and their values.
func (e *etcdServer) values(ctx context.Context, part string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	r, err := e.client.Get(ctx, fleetPrefix+part, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, kv := range r.Kvs {
		values[strings.TrimPrefix(string(kv.Key), fleetPrefix+part)] = string(kv.Value)
	}
	return values, nil
}

// waitForPresent waits until these hosts have registered in etcd.
func (e *etcdServer) waitForPresent(hosts ...*fleetHost) {
	e.t.Helper()
	eventually(e.t, func() error {
		present, err := e.values(e.t.Context(), "present/")
		if err != nil {
			return err
		}
		for _, h := range hosts {
			if _, ok := present[h.name]; !ok {
				return fmt.Errorf("%s is not registered, only %v", h.name, present)
			}
		}
		return nil
	})
}

// fleetHost is a host of a fleet.
type fleetHost struct {
	*host
	name  string
	nginx *nginxServer // its service "web"; nil without balancers
}

// fleetOptions changes a fleet of hosts.
type fleetOptions struct {
	hosts     int
	group     int    // how many hosts are in the group rack7, the first ones
	endpoint  string // address of etcd for all hosts but the first; that of etcd itself when it is empty
	startWait int    // seconds, 3 when 0
}

// startFleetHosts starts the daemons of a fleet at 127.0.0.1, 127.0.0.2, ..., all with the same port.
func startFleetHosts(t testing.TB, etcd *etcdServer, o fleetOptions) []*fleetHost {
	t.Helper()
	var hosts []*fleetHost
	port := freePort(t)
	for i := range o.hosts {
		// The name of the directory is short, because the path of a Unix socket has at most 107 bytes.
		dir, err := os.MkdirTemp("", "fleet-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		h := &fleetHost{name: fmt.Sprintf("web%d", i+1), host: &host{ip: fmt.Sprintf("127.0.0.%d", i+1), dir: dir, socket: filepath.Join(dir, "control.sock")}}
		h.daemon = &daemon{t: t, port: port}
		endpoint, groups := etcd.URL, ""
		if i > 0 && o.endpoint != "" {
			endpoint = "http://" + o.endpoint
		}
		if i < o.group {
			groups = "rack7"
		}
		config := fmt.Sprintf("cache_time: 1\nfleet:\n  etcd: [%s]\n  prefix: %s\n  host: %s\n  groups: [%s]\n  lease: 5\n  start_wait: %d\n  state_dir: %s\n",
			endpoint, fleetPrefix, h.name, groups, max(o.startWait, 1), filepath.Join(dir, "state"))
		if err := os.WriteFile(filepath.Join(dir, "hacheck.yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	parallel(len(hosts), func(i int) { hosts[i].launchFleet() })
	etcd.waitForPresent(hosts...)
	return hosts
}

// launchFleet starts the host's daemon, for the first time or after kill.
func (h *fleetHost) launchFleet() {
	h.t.Helper()
	h.daemon = newDaemon(h.t, h.ip, h.port, filepath.Join(h.dir, "spool"))
	h.launch(bin(h.t, "hacheck"), "-c", filepath.Join(h.dir, "hacheck.yaml"), "--control-socket", h.socket)
	p := h.process
	h.t.Cleanup(func() {
		_ = p.stop()
		if out := p.out.String(); checktest.ShowsBug(out) {
			h.t.Errorf("hacheck on %s panicked or has a data race:\n%s", h.name, out)
		}
	})
}

// kill ends the host's daemon at once.
func (h *fleetHost) kill() {
	_ = h.cmd.Process.Kill()
	<-h.done
}

// hacheckFleet runs hacheck fleet on the host. It returns the output and the exit code.
func (h *fleetHost) hacheckFleet(args ...string) (string, int) {
	h.t.Helper()
	out, err := exec.Command(bin(h.t, "hacheck"), append(append([]string{"fleet"}, args...), "--control-socket", h.socket)...).CombinedOutput()
	return string(out), exitCode(err)
}

// setBudget sets how many members of web may be out.
func (h *fleetHost) setBudget(budget string) {
	h.t.Helper()
	if out, exit := h.hacheckFleet("budget", "web", budget); exit != 0 {
		h.t.Fatalf("hacheck fleet budget web %s: exit %d\n%s", budget, exit, out)
	}
}

// hasOverride reports whether the host's spool has an override of web.
func (h *fleetHost) hasOverride() bool {
	_, err := os.Stat(filepath.Join(h.spool, "web"))
	return !errors.Is(err, os.ErrNotExist)
}

// fleetFarm is a fleet behind balancers. Each host has the service web, each balancer the backend web of all hosts.
type fleetFarm struct {
	t         *testing.T
	etcd      *etcdServer
	hosts     []*fleetHost
	balancers []*haproxy
	addrs     []string // of the balancers' frontends
}

// newFleetFarm starts an etcd, the hosts with their services, and the balancers. It returns when every balancer has
// every server UP, every host is a member, and every daemon has listened long enough to know its balancers.
func newFleetFarm(t *testing.T, balancers int, o fleetOptions) *fleetFarm {
	t.Helper()
	f := &fleetFarm{t: t, etcd: startEtcd(t)}
	port := freePort(t)
	f.hosts = startFleetHosts(t, f.etcd, o)
	var servers strings.Builder
	for _, h := range f.hosts {
		h.nginx = newNginxServer(t, h.ip, port, h.name)
		if err := h.nginx.systemctl("start"); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&servers, "    server %s %s:%d check port %d\n", h.name, h.ip, port, h.port)
	}
	for i := range balancers {
		front := freePort(t)
		f.addrs = append(f.addrs, fmt.Sprintf("127.0.0.1:%d", front))
		// There are no retries, so that every failed request is counted.
		f.balancers = append(f.balancers, startHAProxy(t, fmt.Sprintf(`
global
    node lb%d
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 5s
    default-server inter 200ms fastinter 200ms downinter 200ms rise 1 fall 1
frontend front
    bind 127.0.0.1:%d
    default_backend web
backend web
    option httpchk GET /http/web/0/
    http-check send-state
    http-check disable-on-404
%s`, i+1, front, &servers)))
	}
	f.waitForAllUp()
	for _, h := range f.hosts {
		h.waitForBalancers("web", balancers)
	}
	for _, h := range f.hosts {
		h.waitForUptime()
	}
	f.waitForMembers()
	return f
}

// waitForMembers waits until every host is a member of web.
func (f *fleetFarm) waitForMembers() {
	f.t.Helper()
	eventually(f.t, func() error {
		members, err := f.etcd.values(f.t.Context(), "state/web/")
		if err == nil && len(members) < len(f.hosts) {
			err = fmt.Errorf("web has %d members, want %d: %v", len(members), len(f.hosts), members)
		}
		return err
	})
}

// waitForAllUp waits until every balancer has every server UP.
func (f *fleetFarm) waitForAllUp() {
	f.t.Helper()
	want := map[string]string{}
	for _, h := range f.hosts {
		want["web/"+h.name] = "UP"
	}
	for _, lb := range f.balancers {
		lb.waitForStates(want)
	}
}

// waitForNoPermits waits until every permit has been returned.
func (f *fleetFarm) waitForNoPermits() {
	f.t.Helper()
	eventually(f.t, func() error {
		permits, err := f.etcd.values(f.t.Context(), "permits/")
		if err == nil && len(permits) > 0 {
			err = fmt.Errorf("permits are left: %v", permits)
		}
		return err
	})
}
