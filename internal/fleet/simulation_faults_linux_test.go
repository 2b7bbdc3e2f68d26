package fleet

import (
	"context"
	"io"
	"syscall"
	"time"

	"hacheck/test/servertest"
)

// fault is something that goes wrong.
type fault struct {
	name  string
	isFor func(s *simulation) bool // nil: every simulation
	cause func(s *simulation)
}

func isNight(s *simulation) bool { return s.isNight }

// simFaults are the faults, each of which is caused at least once. Then they come at random.
var simFaults = []fault{
	{"answer dropped", nil, func(s *simulation) { s.cut(0) }},
	{"request late", nil, func(s *simulation) { s.cut(5 * time.Second) }},
	{"worker stopped", nil, (*simulation).stopWorker},
	{"leader stopped", isNight, (*simulation).stopLeader},
	{"member killed", nil, (*simulation).killMember},
	{"compacted", nil, (*simulation).compact},
	{"checks fail", isNight, (*simulation).failChecks},
}

// causeFaults causes every fault once, and in a long simulation then random ones until the permits were granted.
func (s *simulation) causeFaults() {
	s.t.Helper()
	var faults []fault
	for _, f := range simFaults {
		if f.isFor == nil || f.isFor(s) {
			faults = append(faults, f)
		}
	}
	order := s.random.Perm(len(faults))
	for i := 0; i < len(order) || s.isNight && s.granted() < *simPermits; i++ {
		next := s.random.IntN(len(faults))
		if i < len(order) {
			next = order[i]
		}
		s.pause(s.upTo(time.Second))
		s.t.Logf("%d permits: %s", s.granted(), faults[next].name)
		faults[next].cause(s)
		s.faults[faults[next].name]++
	}
}

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

// stopWorker stops a third of the hosts with their commands for longer than the lease.
func (s *simulation) stopWorker() {
	w := s.workers[s.random.IntN(len(s.workers))]
	s.signal(w, syscall.SIGSTOP)
	s.pause(s.lease + time.Second + s.upTo(s.lease/2))
	s.signal(w, syscall.SIGCONT)
}

func (s *simulation) signal(w *workerProcess, signal syscall.Signal) {
	if err := w.cmd.Process.Signal(signal); err != nil {
		s.t.Errorf("send %v to a worker: %v", signal, err)
	}
}

// stopLeader stops the leader of etcd for longer than the lease.
func (s *simulation) stopLeader() {
	leader := s.leader()
	leader.Pause()
	s.pause(s.lease + time.Second + s.upTo(s.lease/2))
	leader.Resume()
}

// leader returns the leader of etcd, another member if none says so.
func (s *simulation) leader() *servertest.EtcdServer {
	ctx, cancel := context.WithTimeout(s.t.Context(), callTimeout)
	defer cancel()
	for _, m := range s.etcd.Members() {
		if r, err := s.client.Status(ctx, m.URL); err == nil && r.Leader == r.Header.MemberId {
			return m
		}
	}
	return s.etcd
}

// killMember kills a member of etcd and starts it again.
func (s *simulation) killMember() {
	members := s.etcd.Members()
	m := members[s.random.IntN(len(members))]
	m.Kill()
	s.pause(time.Second + s.upTo(2*time.Second))
	m.Start()
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
