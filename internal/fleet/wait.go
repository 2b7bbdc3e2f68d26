package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/fleet/report"
)

// The times of a waiter.
const (
	progressEvery = 500 * time.Millisecond // between two progress texts
	maxNames      = 5                      // hosts in a progress text
)

// waiter waits until hosts have applied a change of overrides.
type waiter struct {
	f         *Fleet
	revisions map[string]int64    // of the change in each scope
	waits     map[string]int64    // by host that was present at the change and has not applied it: the revision to apply
	total     int                 // number of waits at the beginning
	present   map[string]presence // all hosts
	left      map[string]bool     // hosts of the scopes that ignore fleet overrides
	known     map[string]bool     // hosts that have ever written applied/<host>
	from      int64               // revision from which applied/ has to be watched; 0: it has to be read first
}

// newWaiter returns a waiter for the hosts among present whose scopes have changed. A host applies only the revisions
// of its own scopes.
func newWaiter(f *Fleet, revisions map[string]int64, present []*mvccpb.KeyValue) *waiter {
	w := &waiter{
		f: f, revisions: revisions, waits: map[string]int64{}, present: map[string]presence{}, left: map[string]bool{},
		known: map[string]bool{},
	}
	for _, kv := range present {
		host := strings.TrimPrefix(string(kv.Key), f.o.Prefix+"present/")
		var p presence
		_ = json.Unmarshal(kv.Value, &p) // a newer version is present too; its groups may not be known
		w.present[host] = p
		if revision := w.revisionOf(host, p.Groups); revision > 0 {
			w.waits[host] = revision
		}
	}
	w.total = len(w.waits)
	return w
}

// revisionOf returns the largest revision of the change that concerns a host, 0 if none does.
func (w *waiter) revisionOf(host string, groups []string) (revision int64) {
	for scope, r := range w.revisions {
		if covers(scope, host, groups) {
			revision = max(revision, r)
		}
	}
	return revision
}

func (w *waiter) covers(host string, groups []string) bool { return w.revisionOf(host, groups) > 0 }

// start takes over what the hosts had applied before the change.
func (w *waiter) start(before *clientv3.GetResponse) {
	w.observe(before.Kvs)
	w.from = before.Header.Revision + 1
}

// wait returns when every host has applied the change, or ctx has ended.
func (w *waiter) wait(ctx context.Context, p Progress) (report.Outcome, error) {
	err := w.follow(ctx, p)
	for delay := reloadRetry; err != nil && ctx.Err() == nil; delay = min(2*delay, maxBackoff) {
		sleepJittered(ctx, delay)
		err = w.follow(ctx, p)
	}
	// The lists of absent hosts need etcd a last time. ctx may have ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	o := report.Outcome{Missing: slices.Sorted(maps.Keys(w.waits)), Left: slices.Sorted(maps.Keys(w.left))}
	if o.Absent, o.Unknown, err = w.absent(ctx); err != nil && len(o.Missing) == 0 {
		return o, err
	}
	return o, nil
}

// follow watches applied/. It reads it before, unless start has. It returns nil when every host has applied the change.
func (w *waiter) follow(ctx context.Context, p Progress) error {
	client, err := w.f.conn.etcd()
	if err != nil {
		return err
	}
	prefix := w.f.o.Prefix + "applied/"
	from := w.from
	w.from = 0 // a watch that has failed may have missed something
	if from == 0 {
		r, err := w.f.conn.get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		w.observe(r.Kvs)
		from = r.Header.Revision + 1
	}
	if len(w.waits) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	reported := len(w.waits)
	if p != nil {
		p(w.progress())
	}
	for {
		changed := w.f.conn.changeSignal()
		if now, err := w.f.conn.etcd(); err != nil || now != client {
			return errCut
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
			if n := len(w.waits); n != reported && p != nil {
				reported = n
				p(w.progress())
			}
		case r, open := <-events:
			if !open {
				return errCut
			}
			if err := r.Err(); err != nil {
				return err
			}
			for _, e := range r.Events {
				if e.Type == clientv3.EventTypePut {
					w.observe([]*mvccpb.KeyValue{e.Kv})
				}
			}
			if len(w.waits) == 0 {
				return nil
			}
		}
	}
}

// observe takes over values of applied/<host>.
func (w *waiter) observe(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		host := strings.TrimPrefix(string(kv.Key), w.f.o.Prefix+"applied/")
		w.known[host] = true
		var a applied
		if json.Unmarshal(kv.Value, &a) != nil {
			continue
		}
		p, present := w.present[host]
		switch {
		case a.Left && present && w.covers(host, p.Groups):
			w.left[host] = true
			delete(w.waits, host)
		case a.Revision >= w.waits[host]:
			delete(w.waits, host)
		}
	}
}

// progress returns how far the hosts are.
func (w *waiter) progress() string {
	names := slices.Sorted(maps.Keys(w.waits))
	more := ""
	if len(names) > maxNames {
		more = fmt.Sprintf(" and %d more", len(names)-maxNames)
		names = names[:maxNames]
	}
	return fmt.Sprintf("%d of %d hosts have applied it; waiting for %s%s", w.total-len(w.waits), w.total, strings.Join(names, ", "), more)
}

// absent returns the hosts of the scopes that were absent at the change: hosts that the operator has named, and hosts of
// which etcd has a state or an applied revision. It knows the groups of a host from its state. unknown has the scopes of
// which etcd knows no host.
func (w *waiter) absent(ctx context.Context) (hosts, unknown []string, err error) {
	absent, isKnown := map[string]bool{}, map[string]bool{scopeAll: true}
	add := func(host string, groups []string) {
		if _, present := w.present[host]; !present && w.covers(host, groups) {
			absent[host] = true
		}
		for scope := range w.revisions {
			isKnown[scope] = isKnown[scope] || covers(scope, host, groups)
		}
	}
	states, err := w.f.readPrefix(ctx, "state/")
	for host, p := range w.present {
		add(host, p.Groups)
	}
	for host := range w.known {
		add(host, nil)
	}
	for name, kv := range states {
		var s state
		if _, host, ok := strings.Cut(name, "/"); ok && json.Unmarshal(kv.Value, &s) == nil {
			add(host, s.Groups)
		}
	}
	for scope := range w.revisions {
		if err == nil && !isKnown[scope] {
			unknown = append(unknown, scope)
		}
		if name, ok := strings.CutPrefix(scope, hostPrefix); ok {
			add(name, nil)
		}
	}
	slices.Sort(unknown)
	return slices.Sorted(maps.Keys(absent)), unknown, err
}
