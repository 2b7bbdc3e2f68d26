package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// clockKey is written by the observer every clockEvery. The value is the monotonic time before the write. So the
// history of etcd says between which two times a revision was made.
const (
	clockKey   = "/observer/clock"
	clockEvery = 20 * time.Millisecond
)

// simHistory is what the observer of a simulation has recorded. Its check uses none of the code under test:
//
//   - At no revision has a service more permits than its budget, and at no time more hosts out.
//   - The life of a permit contains the time from the first "down" of its host until the host is up again.
//   - Every claim has one answer, and an override is written for a granted claim only.
//   - A permit is granted to no claim while an earlier one waits for the same service, except for its balancers.
//   - At some moment exactly as many hosts as the budget are out, of every service.
type simHistory struct {
	mu       sync.Mutex
	permits  []permitChange // in the order of their revisions
	queue    []queueChange  // likewise
	clocks   []clockWrite   // likewise
	acked    map[int64]int64
	events   [][]workerEvent // by worker
	revision int64           // the last one that was received
	granted  int             // permits that were created
	problems []string
}

// permitChange is a change of permits/<host>.
type permitChange struct {
	host     string
	services []string // nil: it was deleted
	claim    string
	revision int64
	isNew    bool
}

// queueChange is a change of queue/<claim>.
type queueChange struct {
	claim    string
	services []string // nil: it was deleted
	revision int64
	waits    bool // for its balancers: others may pass
}

// clockWrite is a write of clockKey.
type clockWrite struct{ revision, before int64 }

func newSimHistory(workers int) *simHistory {
	return &simHistory{acked: map[int64]int64{}, events: make([][]workerEvent, workers)}
}

// violated records a violation.
func (s *simHistory) violated(format string, args ...any) {
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

// watch records every revision from the first one on, until ctx ends.
func (s *simHistory) watch(ctx context.Context, client *clientv3.Client) {
	for r := range client.Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		s.mu.Lock()
		if err := r.Err(); err != nil && ctx.Err() == nil {
			s.violated("the history of etcd has a gap: %v", err)
		}
		for _, e := range r.Events {
			s.record(e)
		}
		s.revision = max(s.revision, r.Header.Revision)
		s.mu.Unlock()
	}
}

// record takes in an event of etcd. s.mu is held.
func (s *simHistory) record(e *clientv3.Event) {
	key, revision := string(e.Kv.Key), e.Kv.ModRevision
	if key == clockKey {
		before, _ := strconv.ParseInt(string(e.Kv.Value), 10, 64)
		s.clocks = append(s.clocks, clockWrite{revision, before})
		return
	}
	if claim, ok := strings.CutPrefix(key, "/hacheck/queue/"); ok {
		s.recordQueue(claim, e)
		return
	}
	host, ok := strings.CutPrefix(key, "/hacheck/permits/")
	if !ok {
		return
	}
	c := permitChange{host: host, revision: revision, isNew: e.IsCreate()}
	if e.Type == clientv3.EventTypePut {
		var value struct {
			Services []string
			Claim    string
		}
		if err := json.Unmarshal(e.Kv.Value, &value); err != nil || len(value.Services) == 0 {
			s.violated("revision %d: the permit of %s cannot be read: %q", revision, host, e.Kv.Value)
		}
		c.services, c.claim = value.Services, value.Claim
	}
	if c.isNew {
		s.granted++
	}
	s.permits = append(s.permits, c)
}

// recordQueue takes in a change of a queue entry. s.mu is held.
func (s *simHistory) recordQueue(claim string, e *clientv3.Event) {
	c := queueChange{claim: claim, revision: e.Kv.ModRevision}
	if e.Type == clientv3.EventTypePut {
		var value struct {
			Services []string
			Waiting  string
		}
		if err := json.Unmarshal(e.Kv.Value, &value); err != nil || len(value.Services) == 0 {
			s.violated("revision %d: the claim %s cannot be read: %q", c.revision, claim, e.Kv.Value)
		}
		c.services, c.waits = value.Services, value.Waiting != ""
	}
	s.queue = append(s.queue, c)
}

// writeClock writes clockKey until ctx ends.
func (s *simHistory) writeClock(ctx context.Context, client *clientv3.Client) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.putClock(ctx, client)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// putClock writes clockKey once and returns the revision, 0 after an error.
func (s *simHistory) putClock(ctx context.Context, client *clientv3.Client) int64 {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	before := monotonic()
	r, err := client.Put(ctx, clockKey, strconv.FormatInt(before, 10))
	if err != nil {
		return 0 // a member is down; without an answer the write bounds nothing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[before] = monotonic()
	return r.Header.Revision
}

// earliest returns a time before which a revision was certainly not made.
func (s *simHistory) earliest(revision int64) (at int64) {
	end, _ := slices.BinarySearchFunc(s.clocks, revision, func(c clockWrite, r int64) int { return cmp.Compare(c.revision, r) })
	// One of the last writes may have arrived late, from a connection that was cut.
	for _, c := range s.clocks[max(end-5, 0):end] {
		at = max(at, c.before)
	}
	return at
}

// latest returns a time at which a revision was certainly made.
func (s *simHistory) latest(revision int64) int64 {
	begin, _ := slices.BinarySearchFunc(s.clocks, revision, func(c clockWrite, r int64) int { return cmp.Compare(c.revision, r) })
	for _, c := range s.clocks[begin:] {
		if at, ok := s.acked[c.before]; ok {
			return at
		}
	}
	return 1<<63 - 1
}

// simFigures are the figures of a simulation.
type simFigures struct {
	answers map[string]int // claims by answer
	most    map[string]int // hosts out at one moment by service
	waited  int            // permits that were granted after a wait in the queue
}

// check looks for violations. budget is that of every service.
func (s *simHistory) check(budget int, services []string) simFigures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := simFigures{answers: map[string]int{}, most: map[string]int{}}
	lives := s.checkBudget(budget)
	var all []workerEvent
	for i, events := range s.events {
		s.checkClaims(i, events, &f)
		all = append(all, events...)
	}
	s.checkOut(budget, all, lives, &f)
	s.checkOrder(&f)
	for _, service := range services {
		if f.most[service] != budget {
			s.violated("%s: at most %d hosts were out at one moment, the budget is %d", service, f.most[service], budget)
		}
	}
	return f
}

// life is the life of a permit in revisions.
type life struct{ begin, end int64 }

// checkBudget counts the permits at every revision, and returns the lives of the permits of every host.
func (s *simHistory) checkBudget(budget int) map[string][]life {
	held, lives := map[string][]string{}, map[string][]life{}
	count := map[string]int{} // by service
	for _, c := range s.permits {
		for _, service := range held[c.host] {
			count[service]--
		}
		for _, service := range c.services {
			if count[service]++; count[service] > budget {
				s.violated("revision %d: %d permits for %s, the budget is %d", c.revision, count[service], service, budget)
			}
		}
		held[c.host] = c.services
		switch {
		case c.isNew:
			lives[c.host] = append(lives[c.host], life{begin: c.revision, end: 1<<63 - 1})
		case c.services == nil && len(lives[c.host]) > 0:
			lives[c.host][len(lives[c.host])-1].end = c.revision
		}
	}
	return lives
}

// checkClaims compares the claims, the answers and the overrides of a worker.
func (s *simHistory) checkClaims(worker int, events []workerEvent, f *simFigures) {
	asked, answers, writes := map[int64]bool{}, map[int64]int{}, map[string]int{}
	for _, e := range events {
		switch e.What {
		case eventAsk:
			asked[e.Claim] = true
			if writes[e.Host] != 0 {
				s.violated("%s wrote an override without a claim", e.Host)
			}
		case eventWrite:
			writes[e.Host]++
		case eventAnswer:
			f.answers[e.Answer]++
			answers[e.Claim]++
			want := 0
			if e.Answer == answerGranted {
				want = 1
			}
			if !asked[e.Claim] || writes[e.Host] != want {
				s.violated("claim %d of worker %d (%s): %s, and %d overrides were written", e.Claim, worker, e.Host, e.Answer, writes[e.Host])
			}
			writes[e.Host] = 0
		case eventDown, eventUp, eventEnded:
		}
	}
	for claim := range asked {
		if answers[claim] != 1 {
			s.violated("claim %d of worker %d has %d answers", claim, worker, answers[claim])
		}
	}
}

// checkOrder compares each new permit with the queue as it was before.
func (s *simHistory) checkOrder(f *simFigures) {
	waiting := map[string]queueChange{} // by claim; the revision is that of its creation
	next := 0
	for _, p := range s.permits {
		for ; next < len(s.queue) && s.queue[next].revision < p.revision; next++ {
			q := s.queue[next]
			if q.services == nil {
				delete(waiting, q.claim)
				continue
			}
			if before, ok := waiting[q.claim]; ok {
				q.revision, q.waits = before.revision, q.waits || before.waits
			}
			waiting[q.claim] = q
		}
		own, isQueued := waiting[p.claim]
		if !p.isNew || !isQueued {
			continue
		}
		f.waited++
		for _, q := range waiting {
			if q.revision < own.revision && !q.waits && slices.ContainsFunc(q.services, func(name string) bool { return slices.Contains(p.services, name) }) {
				s.violated("revision %d: %s got its permit before %s, which is %d revisions older", p.revision, p.claim, q.claim, own.revision-q.revision)
			}
		}
	}
}

// checkOut counts the hosts that are out, and looks for a permit around the time for which each is out.
func (s *simHistory) checkOut(budget int, events []workerEvent, lives map[string][]life, f *simFigures) {
	slices.SortStableFunc(events, func(a, b workerEvent) int { return cmp.Compare(a.At, b.At) })
	out, since := map[string]int{}, map[string]int64{}
	for _, e := range events {
		switch e.What {
		case eventDown:
			since[e.Host] = e.At
			if out[e.Service]++; out[e.Service] > budget {
				s.violated("%d hosts of %s are out, the budget is %d", out[e.Service], e.Service, budget)
			}
			f.most[e.Service] = max(f.most[e.Service], out[e.Service])
		case eventUp:
			out[e.Service]--
			down := since[e.Host]
			delete(since, e.Host)
			if !slices.ContainsFunc(lives[e.Host], func(l life) bool { return s.earliest(l.begin) <= down && e.At <= s.latest(l.end) }) {
				s.violated("%s was out for %v without a permit around it: %+v", e.Host, time.Duration(e.At-down), lives[e.Host])
			}
		case eventAsk, eventWrite, eventAnswer, eventEnded:
		}
	}
	for host := range since {
		s.violated("%s is still out at the end", host)
	}
}
