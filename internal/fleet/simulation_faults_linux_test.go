package fleet

import (
	"context"
	"io"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/test/servertest"
)

// fault is something that goes wrong.
type fault struct {
	name  string
	when  faultTime
	cause func(s *simulation)
}

// faultTime says in which simulations a fault is caused.
type faultTime int

const (
	always    faultTime = iota // once in every simulation, and at random in those of the night
	night                      // once in those of the night, and at random
	nightOnce                  // once in those of the night
)

var simFaults = []fault{
	{"answer dropped", always, func(s *simulation) { s.cut(0) }},
	{"request late", always, func(s *simulation) { s.cut(5 * time.Second) }},
	{"worker stopped", always, func(s *simulation) { s.stopWorker(s.afterLease()) }},
	{"worker stopped for a minute", nightOnce, func(s *simulation) { s.stopWorker(time.Minute + s.upTo(time.Second)) }},
	{"leader stopped", night, func(s *simulation) { s.stopLeader(s.afterLease()) }},
	{"leader stopped for a minute", nightOnce, func(s *simulation) { s.stopLeader(time.Minute + s.upTo(time.Second)) }},
	{"member killed", always, (*simulation).killMember},
	{"member cut off", always, (*simulation).cutOffMember},
	{"compacted", always, (*simulation).compact},
	{"checks fail", night, (*simulation).failChecks},
}

// causeFaults causes every fault of this simulation once, and at night then random ones until the permits were granted.
func (s *simulation) causeFaults() {
	s.t.Helper()
	var once, random []fault
	for _, f := range simFaults {
		if f.when == always || s.isNight {
			once = append(once, f)
		}
		if f.when != nightOnce && s.isNight {
			random = append(random, f)
		}
	}
	s.random.Shuffle(len(once), func(i, k int) { once[i], once[k] = once[k], once[i] })
	for _, f := range once {
		s.causeFault(f)
	}
	for len(random) > 0 && s.granted() < *simPermits {
		s.causeFault(random[s.random.IntN(len(random))])
	}
}

func (s *simulation) causeFault(f fault) {
	s.t.Helper()
	s.pause(s.upTo(time.Second))
	s.t.Logf("%d permits: %s", s.granted(), f.name)
	f.cause(s)
	s.faults[f.name]++
}

// afterLease returns a random time after which a lease has ended.
func (s *simulation) afterLease() time.Duration { return s.lease + time.Second + s.upTo(s.lease/2) }

// upTo returns a random time below d.
func (s *simulation) upTo(d time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(d)))
}

// cut cuts the connections of the proxies at a transaction, see lossyProxy. A proxy that sees none within a second
// forwards everything again.
func (s *simulation) cut(late time.Duration) {
	texts := []string{"has its permit", `"why":"used `, `"why":"back"`, `"state":"down"`}
	text := texts[s.random.IntN(len(texts))]
	for _, p := range s.proxies {
		p.cut(text, late)
	}
	s.pause(time.Second)
	for _, p := range s.proxies {
		p.cut("", 0)
	}
}

// stopWorker stops a third of the hosts with their commands.
func (s *simulation) stopWorker(d time.Duration) {
	w := s.workers[s.random.IntN(len(s.workers))]
	s.signal(w, syscall.SIGSTOP)
	s.pause(d)
	s.signal(w, syscall.SIGCONT)
}

func (s *simulation) signal(w *workerProcess, signal syscall.Signal) {
	if err := w.cmd.Process.Signal(signal); err != nil {
		s.t.Errorf("send %v to a worker: %v", signal, err)
	}
}

// stopLeader stops the leader of etcd.
func (s *simulation) stopLeader(d time.Duration) {
	leader := leaderOf(s.t.Context(), s.client, s.etcd)
	leader.Pause()
	s.pause(d)
	leader.Resume()
}

// leaderOf returns the leader of a cluster, another member if none says so.
func leaderOf(ctx context.Context, client *clientv3.Client, etcd *servertest.EtcdServer) *servertest.EtcdServer {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, m := range etcd.Members() {
		if r, err := client.Status(ctx, m.URL); err == nil && r.Leader == r.Header.MemberId {
			return m
		}
	}
	return etcd
}

// killMember kills a member of etcd and starts it again.
func (s *simulation) killMember() {
	members := s.etcd.Members()
	m := members[s.random.IntN(len(members))]
	m.Kill()
	s.pause(time.Second + s.upTo(2*time.Second))
	m.Start()
}

// cutOffMember separates a member of etcd from the others. Hosts still reach it.
func (s *simulation) cutOffMember() {
	members := s.etcd.Members()
	m := members[s.random.IntN(len(members))]
	m.CutOff()
	s.pause(time.Second + s.upTo(s.lease))
	m.Reconnect()
}

// compact removes the revisions that the observer has received from etcd.
func (s *simulation) compact() {
	s.history.mu.Lock()
	revision := s.history.revision
	s.history.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.t.Context(), callTimeout)
	defer cancel()
	if _, err := s.client.Compact(ctx, revision); err != nil {
		s.t.Logf("compact: %v", err)
	}
}

// failChecks makes the checks of a third of the hosts fail for a while.
func (s *simulation) failChecks() {
	w := s.workers[s.random.IntN(len(s.workers))]
	if _, err := io.WriteString(w.commands, workerFail+"\n"); err != nil {
		s.t.Errorf("a worker has ended: %v", err)
	}
	s.pause(failFor)
}
