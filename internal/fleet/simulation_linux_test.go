package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"hacheck/test/servertest"
)

// The size of the simulation. `make fleet-simulation` sets it.
var (
	simHosts   = flag.Int("hosts", 30, "hosts of TestSimulation")
	simPermits = flag.Int("permits", 30, "permits of TestSimulation")
	simSeed    = flag.Uint64("seed", 0, "seed of the random faults of TestSimulation; 0: a random one")
)

const (
	simProcesses = 3 // that run workers
	simTimeout   = time.Hour
)

// simulation is the process that starts the workers, causes faults and observes.
type simulation struct {
	t        *testing.T
	etcd     *servertest.EtcdServer
	client   *clientv3.Client
	proxies  []*lossyProxy // one before each member
	workers  []*workerProcess
	history  *simHistory
	random   *rand.Rand
	lease    time.Duration
	isNight  bool // all faults, for longer than the lease
	budget   int  // of every service
	services []string
	faults   map[string]int // by name
}

// workerProcess is a process that runs runWorker.
type workerProcess struct {
	cmd      *exec.Cmd
	commands io.WriteCloser
	output   bytes.Buffer
	ended    chan struct{} // closed after eventEnded, or when the process has ended
}

// TestSimulation: hosts in three processes go out and come back while connections are cut, processes stop, and members
// of etcd die or do not reach each other. simHistory says what must not happen. `make fleet-simulation` runs it with
// 1,000 hosts.
func TestSimulation(t *testing.T) {
	if config := os.Getenv(workerEnv); config != "" {
		runWorker(t, config)
		return
	}
	servertest.Namespace{
		Flag: syscall.CLONE_NEWNET, Timeout: simTimeout,
		Args: []string{fmt.Sprintf("-hosts=%d", *simHosts), fmt.Sprintf("-permits=%d", *simPermits), fmt.Sprintf("-seed=%d", *simSeed)},
	}.Run(t, simulate)
}

func simulate(t *testing.T) {
	s := newSimulation(t)
	ctx, cancel := context.WithCancel(t.Context())
	var observers sync.WaitGroup
	observers.Go(func() { s.history.watch(ctx, s.client) })
	observers.Go(func() { s.history.writeClock(ctx, s.client) })
	t.Cleanup(func() { cancel(); observers.Wait() })
	s.setBudgets()
	for i := range simProcesses {
		s.startWorker(i)
	}
	s.waitMembers()
	began := time.Now()
	s.tell(workerStart)
	s.causeFaults()
	s.waitUntil("the permits", 30*time.Minute, func() bool { return s.granted() >= *simPermits })
	s.tell(workerEnd)
	for _, w := range s.workers {
		select {
		case <-w.ended:
		case <-time.After(3 * time.Minute):
			t.Fatal("a worker has not ended its claims within 3m")
		}
	}
	s.waitUntil("no permit and no queue entry is left", 2*time.Minute, func() bool {
		return s.count("permits/") == 0 && s.count("queue/") == 0
	})
	took := time.Since(began)
	s.closeWorkers()
	var last int64
	s.waitUntil("the observer has every revision", time.Minute, func() bool {
		if last == 0 {
			last = s.history.putClock(ctx, s.client)
		}
		s.history.mu.Lock()
		defer s.history.mu.Unlock()
		return last != 0 && s.history.revision >= last
	})
	cancel()
	observers.Wait()
	f := s.history.check(s.budget, s.services)
	for _, p := range s.history.problems {
		t.Error(p)
	}
	t.Logf("%d hosts, %d permits in %v, budget %d: most out %v, %d after a wait, answers %v, faults %v",
		*simHosts, s.history.granted, took.Round(time.Second), s.budget, f.most, f.waited, f.answers, s.faults)
}

func newSimulation(t *testing.T) *simulation {
	t.Helper()
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("run again with: make fleet-simulation HOSTS=%d PERMITS=%d SEED=%d", *simHosts, *simPermits, seed)
	s := &simulation{
		t: t, etcd: servertest.Etcd(t, servertest.EtcdMembers(3), servertest.EtcdApart(t)), history: newSimHistory(simProcesses),
		random: rand.New(rand.NewPCG(seed, 0)), lease: 5 * time.Second, services: []string{"web", "api"}, faults: map[string]int{},
	}
	if s.isNight = *simHosts > 100; s.isNight {
		s.lease = 15 * time.Second
	}
	s.budget = max(*simHosts/20, 3)
	for _, m := range s.etcd.Members() {
		s.proxies = append(s.proxies, newLossyProxy(t, m))
	}
	var err error
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: s.etcd.URLs(), DialTimeout: callTimeout, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

// setBudgets writes the budgets of the services.
func (s *simulation) setBudgets() {
	s.t.Helper()
	for _, service := range s.services {
		value := fmt.Sprintf(`{"v":1,"hosts":%d,"at":"2026-05-04T12:00:00Z"}`, s.budget)
		if _, err := s.client.Put(s.t.Context(), "/hacheck/budgets/"+service, value); err != nil {
			s.t.Fatal(err)
		}
	}
}

// startWorker starts the test again as a worker process.
func (s *simulation) startWorker(i int) {
	s.t.Helper()
	config := workerConfig{
		Index: i, Processes: simProcesses, Hosts: *simHosts / simProcesses, Claimers: s.budget, Services: s.services,
		Endpoints: s.etcd.URLs(), Lease: s.lease, Seed: s.random.Uint64(),
		// Hosts have to stay out for longer than it takes to grant as many permits as the budget has.
		MaxOut: max(time.Duration(s.budget)*500*time.Millisecond, 4*time.Second),
	}
	for _, p := range s.proxies {
		config.Lossy = append(config.Lossy, "http://"+p.listener.Addr().String())
	}
	text, err := json.Marshal(config)
	if err != nil {
		s.t.Fatal(err)
	}
	events, theirs, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	w := &workerProcess{cmd: exec.Command(os.Args[0], "-test.run=^TestSimulation$", "-test.timeout="+simTimeout.String()), ended: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	w.cmd.ExtraFiles = []*os.File{theirs}
	w.cmd.Stdout, w.cmd.Stderr = &w.output, &w.output
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if w.commands, err = w.cmd.StdinPipe(); err == nil {
		err = w.cmd.Start()
	}
	theirs.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer events.Close()
		s.readEvents(i, w, events)
	}()
	s.workers = append(s.workers, w)
	s.t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // has ended already if all is well
		_ = w.cmd.Wait()
		<-read
		if s.t.Failed() {
			s.t.Logf("worker %d: %s", i, w.output.String())
		}
	})
}

// readEvents records the events of a worker until its end.
func (s *simulation) readEvents(i int, w *workerProcess, events io.Reader) {
	isEnded := false
	for lines := bufio.NewScanner(events); lines.Scan(); {
		var e workerEvent
		err := json.Unmarshal(lines.Bytes(), &e)
		s.history.mu.Lock()
		if err != nil {
			s.history.violated("worker %d: %v: %s", i, err, lines.Text())
		}
		s.history.events[i] = append(s.history.events[i], e)
		s.history.mu.Unlock()
		if e.What == eventEnded {
			isEnded = true
			close(w.ended)
		}
	}
	if !isEnded {
		close(w.ended)
	}
}

// tell sends a command to all workers.
func (s *simulation) tell(command string) {
	s.t.Helper()
	for _, w := range s.workers {
		if _, err := io.WriteString(w.commands, command+"\n"); err != nil {
			s.t.Fatalf("a worker has ended: %v", err)
		}
	}
}

// closeWorkers ends the workers and waits for them.
func (s *simulation) closeWorkers() {
	s.t.Helper()
	for _, w := range s.workers {
		_ = w.commands.Close()
	}
	for i, w := range s.workers {
		if err := w.cmd.Wait(); err != nil {
			s.t.Errorf("worker %d: %v", i, err)
		}
	}
}

// granted returns how many permits were granted.
func (s *simulation) granted() int {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return s.history.granted
}

// count returns the number of keys below the prefix, -1 if etcd cannot be asked.
func (s *simulation) count(prefix string) int64 {
	ctx, cancel := context.WithTimeout(s.t.Context(), callTimeout)
	defer cancel()
	r, err := s.client.Get(ctx, "/hacheck/"+prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return -1
	}
	return r.Count
}

// waitMembers waits until all hosts are present and members.
func (s *simulation) waitMembers() {
	s.t.Helper()
	want := int64(*simHosts / simProcesses * simProcesses)
	s.waitUntil("all hosts are members", 5*time.Minute, func() bool {
		return s.count("present/") == want && s.count("state/") == want
	})
}

// waitUntil waits until ok returns true.
func (s *simulation) waitUntil(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(limit); !ok(); s.pause(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// pause returns after d.
func (s *simulation) pause(d time.Duration) {
	select {
	case <-s.t.Context().Done():
	case <-time.After(d):
	}
}
