package test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// fleetObserver checks the invariants of permits while hosts of a farm go out and come back. It takes the truth from the
// hosts' spool directories, from HAProxy and from the keys in etcd. It uses none of the code under test.
//
// In each pass it reads the permits, then the spools and HAProxy, then the permits again:
//
//   - A host that has an override, or that a balancer does not have UP, holds a permit. A permit may begin or end during
//     a pass, but not both.
//   - The hosts that are out, and the hosts that hold a permit, are at most the budget.
//   - Every backend has a server UP.
//
// Every write below permits/ and queue/ is recorded too. So a budget that is exceeded between two passes is found, and
// the order of the grants is known.
type fleetObserver struct {
	f       *fleetFarm
	budget  int
	started time.Time
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	// Written by the goroutines of the observer, read after they have ended.
	passes  int
	mostOut int
	broken  []string // violations
	writes  []fleetWrite
}

// fleetWrite is a change of a key in etcd.
type fleetWrite struct {
	key      string // without the prefix
	value    string // "" when it was deleted
	revision int64
	created  int64 // revision of the creation of the key; 0 when it was deleted
}

// maxBroken is how many violations are recorded.
const maxBroken = 20

// startObserver observes the farm until end.
func startObserver(f *fleetFarm, budget int) *fleetObserver {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	o := &fleetObserver{f: f, budget: budget, started: time.Now(), cancel: cancel}
	r, err := f.etcd.client.Get(ctx, "now")
	if err != nil {
		f.t.Fatal(err)
	}
	watch := f.etcd.client.Watch(ctx, fleetPrefix, clientv3.WithPrefix(), clientv3.WithRev(r.Header.Revision+1))
	o.ended.Go(func() {
		for r := range watch {
			for _, e := range r.Events {
				o.writes = append(o.writes, fleetWrite{strings.TrimPrefix(string(e.Kv.Key), fleetPrefix), string(e.Kv.Value), e.Kv.ModRevision, e.Kv.CreateRevision})
			}
		}
	})
	o.ended.Go(func() {
		for ctx.Err() == nil {
			o.observe(ctx)
		}
	})
	f.t.Cleanup(o.stop)
	return o
}

// observe makes one pass.
func (o *fleetObserver) observe(ctx context.Context) {
	before, err := o.f.etcd.values(ctx, "permits/")
	if err != nil {
		o.violated(ctx, "read permits: %v", err)
		return
	}
	out := map[string]string{} // by host: why
	for _, h := range o.f.hosts {
		if h.hasOverride() {
			out[h.name] = "has an override"
		}
	}
	for i, lb := range o.f.balancers {
		ups := 0
		for server, state := range lb.serverStates() {
			if state == "UP" {
				ups++
				continue
			}
			_, host, _ := strings.Cut(server, "/")
			out[host] = fmt.Sprintf("is %s at lb%d", state, i+1)
		}
		if ups == 0 {
			o.violated(ctx, "lb%d has no server UP", i+1)
		}
	}
	after, err := o.f.etcd.values(ctx, "permits/")
	if err != nil {
		o.violated(ctx, "read permits: %v", err)
		return
	}
	for host, why := range out {
		if before[host] == "" && after[host] == "" {
			o.violated(ctx, "%s %s and holds no permit", host, why)
		}
	}
	if len(out) > o.budget {
		o.violated(ctx, "%d hosts are out, the budget is %d: %v", len(out), o.budget, out)
	}
	o.mostOut = max(o.mostOut, len(out))
	o.passes++
}

// violated records a violation. An error at the end of the observation is none.
func (o *fleetObserver) violated(ctx context.Context, format string, args ...any) {
	if ctx.Err() == nil && len(o.broken) < maxBroken {
		o.broken = append(o.broken, fmt.Sprintf("after %v: ", time.Since(o.started).Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
}

func (o *fleetObserver) stop() {
	o.cancel()
	o.ended.Wait()
}

// fleetHistory is what the writes to etcd say.
type fleetHistory struct {
	grants      []string // hosts in the order of their permits
	mostPermits int
	claims      int
}

// end ends the observation and fails the test for each violation. No claim may be left in the queue.
func (o *fleetObserver) end() fleetHistory {
	t := o.f.t
	t.Helper()
	// The watch is behind by the time of a message: wait until it has seen a last write.
	last, err := o.f.etcd.client.Put(t.Context(), fleetPrefix+"observer", "end")
	if err != nil {
		t.Fatal(err)
	}
	claims, err := o.f.etcd.values(t.Context(), "queue/")
	if err != nil {
		t.Fatal(err)
	}
	if len(claims) > 0 {
		t.Errorf("claims are left in the queue: %v", claims)
	}
	o.waitForRevision(last.Header.Revision)
	o.stop()
	for _, b := range o.broken {
		t.Error(b)
	}
	t.Logf("the observer made %d passes in %v", o.passes, time.Since(o.started).Round(time.Second))
	return o.history(t.Errorf)
}

// waitForRevision waits until etcd has sent every event up to a revision to this client.
func (o *fleetObserver) waitForRevision(revision int64) {
	ctx, cancel := context.WithTimeout(o.f.t.Context(), waitLimit)
	defer cancel()
	for r := range o.f.etcd.client.Watch(ctx, fleetPrefix, clientv3.WithPrefix(), clientv3.WithRev(revision)) {
		if len(r.Events) > 0 {
			return
		}
	}
	o.f.t.Errorf("etcd has not sent revision %d", revision)
}

// history checks the recorded writes and reports violations to errorf: never more permits than the budget, and the
// claims of one service are granted in the order of their creation.
func (o *fleetObserver) history(errorf func(format string, args ...any)) fleetHistory {
	var h fleetHistory
	queued := map[string]int64{} // by claim
	permits := map[string]bool{} // by host
	var lastGranted int64
	slices.SortStableFunc(o.writes, func(a, b fleetWrite) int { return cmp.Compare(a.revision, b.revision) })
	for _, w := range o.writes {
		kind, name, _ := strings.Cut(w.key, "/")
		var value struct{ Claim, Host string }
		if w.value != "" && (kind == "queue" || kind == "permits") {
			if err := json.Unmarshal([]byte(w.value), &value); err != nil {
				errorf("%s at revision %d: %v", w.key, w.revision, err)
			}
		}
		switch {
		case kind == "queue" && w.created == w.revision:
			queued[value.Claim] = w.revision
			h.claims++
		case kind == "permits" && w.created == 0:
			delete(permits, name)
		case kind == "permits" && w.created == w.revision:
			permits[name] = true
			h.grants = append(h.grants, name)
			at, ok := queued[value.Claim]
			if !ok {
				errorf("%s got a permit for claim %s, which was never in the queue", name, value.Claim)
			}
			if at < lastGranted {
				errorf("%s got its permit after a host that came later", name)
			}
			lastGranted = at
		}
		h.mostPermits = max(h.mostPermits, len(permits))
		if len(permits) > o.budget {
			errorf("revision %d: %d permits, the budget is %d: %v", w.revision, len(permits), o.budget, slices.Sorted(maps.Keys(permits)))
		}
	}
	return h
}

// TestFleetObserver: the observer finds each violation in a history.
func TestFleetObserver(t *testing.T) {
	t.Parallel()
	permit := func(host, claim string, revision, created int64) fleetWrite {
		return fleetWrite{"permits/" + host, fmt.Sprintf(`{"claim":%q,"host":%q}`, claim, host), revision, created}
	}
	claim := func(claim string, revision int64) fleetWrite {
		return fleetWrite{"queue/" + claim, fmt.Sprintf(`{"claim":%q}`, claim), revision, revision}
	}
	for _, tt := range []struct {
		name   string
		writes []fleetWrite
		red    bool
	}{
		{"in order", []fleetWrite{claim("a", 1), claim("b", 2), permit("web1", "a", 3, 3), permit("web1", "a", 4, 3), {"permits/web1", "", 5, 0}, permit("web2", "b", 6, 6)}, false},
		{"over the budget", []fleetWrite{claim("a", 1), claim("b", 2), permit("web1", "a", 3, 3), permit("web2", "b", 4, 4)}, true},
		{"out of order", []fleetWrite{claim("a", 1), claim("b", 2), permit("web2", "b", 3, 3), {"permits/web2", "", 4, 0}, permit("web1", "a", 5, 5)}, true},
		{"without a claim", []fleetWrite{permit("web1", "a", 3, 3)}, true},
	} {
		var found []string
		o := &fleetObserver{budget: 1, writes: tt.writes}
		o.history(func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) })
		if red := len(found) > 0; red != tt.red {
			t.Errorf("%s: found %q, want some: %v", tt.name, found, tt.red)
		}
	}
}
