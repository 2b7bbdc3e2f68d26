package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/fleet"
	"hacheck/internal/spool"
)

const (
	fleetLease   = time.Minute // with a shorter one, hosts on a machine of two cores lose their leases
	fleetTimeout = 2 * time.Minute
)

// fleetOverride measures how long an override for all hosts takes until it is applied everywhere.
func (b *bench) fleetOverride() error {
	if b.hosts > 0 {
		return b.fleetOf(b.hosts)
	}
	if err := b.fleetOf(1000); err != nil {
		return err
	}
	return b.fleetOf(5000)
}

// fleetOf is fleetOverride with n hosts. They are in this process, etcd has three members, and all share the processors of
// this machine.
func (b *bench) fleetOf(n int) error {
	floor := 0.5
	if n > 1000 {
		floor = 1.5
	}
	members, err := b.startEtcd(3)
	if err != nil {
		return err
	}
	defer stopAll(members)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, "http://"+m.addr)
	}
	// The garbage of all hosts is in one heap, which is collected as often as the heap of a single daemon.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	stateDir, err := os.MkdirTemp(memoryDir, "hacheck-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(stateDir) }()
	round := &atomic.Pointer[string]{}
	round.Store(new(string))
	hosts, err := b.openHosts(n, stateDir, endpoints, round)
	defer closeHosts(hosts)
	if err != nil {
		return err
	}
	if err := b.waitCounted(hosts); err != nil {
		return err
	}
	var p50, p99, acknowledged []float64
	for i := range 5 {
		applied, all, err := b.setForAll(hosts, round, fmt.Sprintf("round %d", i))
		if err != nil {
			return err
		}
		p50, p99, acknowledged = append(p50, quantile(applied, 0.5)), append(p99, quantile(applied, 0.99)), append(acknowledged, all)
	}
	b.addAtMost(fmt.Sprintf("fleet of %s hosts: an override is applied, p99 of the hosts", thousands(n)), p99, floor, "s",
		fmt.Sprintf("p50 %.3f s, all acknowledged after %.3f s (%s)", median(p50), median(acknowledged), spread(acknowledged, "%.3f")))
	return b.fleetAtRest(n, members)
}

// fleetAtRest measures what n hosts and the members of etcd do when nothing happens.
func (b *bench) fleetAtRest(n int, members []*server) error {
	const rest = 10 * time.Second
	// All hosts are in this process.
	hosts := &server{name: "the hosts", cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	written, err := members[0].proposals()
	if err != nil {
		return err
	}
	shares, err := cpuShares(func() error { return b.wait(rest) }, append(members, hosts)...)
	if err != nil {
		return err
	}
	after, err := members[0].proposals()
	if err != nil {
		return err
	}
	b.addInformation(fmt.Sprintf("fleet of %s hosts at rest: processor of each member of etcd", thousands(n)), shares[:len(members)], "% of a core",
		fmt.Sprintf("%.1f writes/s to etcd, all hosts together %.1f %% of a core; lease %v, measured for %v", (after-written)/rest.Seconds(), shares[len(members)], fleetLease, rest))
	return nil
}

// proposals returns how many writes a member of etcd has applied: changes of keys and leases, no renewals of leases.
func (s *server) proposals() (n float64, err error) {
	const name = "etcd_server_proposals_applied_total"
	_, text, err := s.get("/metrics")
	if err != nil {
		return 0, err
	}
	_, value, found := strings.Cut(text, "\n"+name+" ")
	if _, err := fmt.Sscan(value, &n); !found || err != nil {
		return 0, fmt.Errorf("the metrics of etcd have no number for %s", name)
	}
	return n, nil
}

// setForAll sets an override for all hosts and lifts it. It returns after how many seconds each host had applied it,
// and after how many all of them had acknowledged it.
func (b *bench) setForAll(hosts []*fleetHost, round *atomic.Pointer[string], reason string) (applied []float64, all float64, err error) {
	for _, h := range hosts {
		h.appliedAt.Store(0)
	}
	round.Store(&reason)
	ctx, cancel := context.WithTimeout(b.ctx, fleetTimeout)
	defer cancel()
	o := fleet.ScopedOverride{
		Scopes: []string{"all"}, Keys: []spool.Key{{Service: "web"}}, Override: spool.Entry{State: spool.Down, Reason: reason, By: "bench"},
	}
	began := time.Now()
	outcome, err := hosts[0].SetOverride(ctx, o, nil)
	all = time.Since(began).Seconds()
	if err != nil {
		return nil, 0, err
	}
	if len(outcome.Missing) > 0 {
		return nil, 0, fmt.Errorf("%d hosts have not applied the override", len(outcome.Missing))
	}
	for _, h := range hosts {
		at := h.appliedAt.Load()
		if at == 0 {
			return nil, 0, fmt.Errorf("%s acknowledged an override that it has not applied", h.name)
		}
		applied = append(applied, time.Unix(0, at).Sub(began).Seconds())
	}
	outcome, err = hosts[0].LiftOverride(ctx, o, nil)
	if err == nil && len(outcome.Missing) > 0 {
		err = fmt.Errorf("%d hosts have not applied the lift", len(outcome.Missing))
	}
	return applied, all, err
}

// fleetHost is a host of the fleet without a daemon around it. It records when it sees the override of the round.
type fleetHost struct {
	*fleet.Fleet
	name      string
	round     *atomic.Pointer[string]
	appliedAt atomic.Int64 // nanoseconds of unix time; 0: not yet
}

// SetFleet records the time at which the override of the round is among the entries.
func (h *fleetHost) SetFleet(list []spool.Entry) {
	for _, e := range list {
		if e.Reason == *h.round.Load() {
			h.appliedAt.CompareAndSwap(0, time.Now().UnixNano())
		}
	}
}

// List returns no overrides: the hosts publish no state.
func (h *fleetHost) List() []spool.Entry { return nil }

// memoryDir is where the hosts have their state directories. Each host of a fleet has a disk of its own: a thousand hosts
// that synchronize their copies to one disk measure that disk.
const memoryDir = "/dev/shm"

// openHosts opens n hosts, 50 at the same time, with their state directories below stateDir.
func (b *bench) openHosts(n int, stateDir string, endpoints []string, round *atomic.Pointer[string]) ([]*fleetHost, error) {
	hosts := make([]*fleetHost, n)
	errs := make([]error, n)
	slots := make(chan struct{}, 50)
	var wg sync.WaitGroup
	for i := range hosts {
		h := &fleetHost{name: fmt.Sprintf("host%d", i), round: round}
		hosts[i] = h
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			h.Fleet, errs[i] = fleet.Open(fleet.Options{
				Endpoints: endpoints, Prefix: "/bench/", Host: h.name, Lease: fleetLease, StartWait: fleetTimeout,
				StateDir: filepath.Join(stateDir, h.name), Version: "bench", Overrides: h,
				Credentials: func() (fleet.Credentials, error) { return fleet.Credentials{}, nil },
			})
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return hosts, err
		}
	}
	return hosts, nil
}

func closeHosts(hosts []*fleetHost) {
	var wg sync.WaitGroup
	for _, h := range hosts {
		if h.Fleet != nil {
			wg.Go(func() { _ = h.Close() }) // it never fails
		}
	}
	wg.Wait()
}

// waitCounted waits until each host knows how many hosts are present, as it does a minute after the last one has started.
func (b *bench) waitCounted(hosts []*fleetHost) error {
	ctx, cancel := context.WithTimeout(b.ctx, 2*fleetTimeout)
	defer cancel()
	for _, h := range hosts {
		for h.Status().Hosts != len(hosts) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s counts %d of %d hosts: %w", h.name, h.Status().Hosts, len(hosts), ctx.Err())
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// startEtcd starts the members of a new cluster.
func (b *bench) startEtcd(n int) ([]*server, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, fmt.Errorf("%w; install etcd-server", err)
	}
	var clients, peers, cluster []string
	var ports []int
	for i := range n {
		client, err := freePort()
		if err != nil {
			return nil, err
		}
		peer, err := freePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, client)
		clients, peers = append(clients, fmt.Sprintf("http://127.0.0.1:%d", client)), append(peers, fmt.Sprintf("http://127.0.0.1:%d", peer))
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	data, err := os.MkdirTemp(b.tmp, "etcd-") // with the data of another row, members look for each other on old ports
	if err != nil {
		return nil, err
	}
	var members []*server
	for i := range n {
		s, err := b.launch("etcd", ports[i], "etcd", "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(data, fmt.Sprintf("m%d", i)),
			"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i], "--listen-peer-urls", peers[i],
			"--initial-advertise-peer-urls", peers[i], "--initial-cluster", strings.Join(cluster, ","), "--logger", "zap", "--log-level", "error")
		if err != nil {
			stopAll(members)
			return nil, err
		}
		members = append(members, s)
	}
	for _, s := range members { // a member listens once it has joined a cluster with a leader
		if err := b.waitListening(s); err != nil {
			stopAll(members)
			return nil, err
		}
	}
	return members, nil
}
