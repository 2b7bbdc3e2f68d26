package fleet

import (
	"context"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/textfmt"
)

const (
	// watchLimit is how long a waiting claim trusts a watch: one can hang without an error.
	watchLimit = 15 * time.Second
	// coalesceTime is the time in which changes that follow each other cause one decision.
	coalesceTime = 50 * time.Millisecond
	// watchPause follows a watch that has failed.
	watchPause = time.Second
)

// watchedKey is a key, or the prefix of keys, for whose change a claim waits.
type watchedKey struct {
	key      string
	isPrefix bool
}

// waitChange returns when one of keys has changed after revision, when the session changes, when limit is over, or when
// ctx ends. It also returns when a watch fails, after a pause.
func (p *permits) waitChange(ctx context.Context, revision int64, limit time.Duration, keys ...watchedKey) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p.mu.Lock()
	session := p.sessions
	p.mu.Unlock()
	changed, failed := make(chan struct{}, 1), make(chan struct{}, 1)
	client, err := p.conn().etcd()
	if err != nil {
		failed <- struct{}{}
		keys = nil
	}
	for _, k := range keys {
		opts := []clientv3.OpOption{clientv3.WithRev(revision + 1)}
		if k.isPrefix {
			opts = append(opts, clientv3.WithPrefix())
		}
		events := client.Watch(clientv3.WithRequireLeader(ctx), k.key, opts...)
		go func() {
			for r := range events {
				if r.Err() != nil {
					break
				}
				if len(r.Events) > 0 {
					wake(changed)
					return
				}
			}
			wake(failed)
		}()
	}
	select {
	case <-ctx.Done():
	case <-session:
	case <-changed:
	case <-failed:
		sleep(ctx, watchPause)
	}
}

// enqueue puts the claim into the queue, unless it is there with the session's lease. The place is lost with the lease.
func (p *permits) enqueue(ctx context.Context, c *claim, s session) error {
	if c.entered == s && !c.isPassing {
		return nil
	}
	cmps := []clientv3.Cmp{p.isRegistered(s), p.hasLease(s)}
	if c.entered == s {
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(p.keys.queue(c.id)), "=", c.created))
	}
	r, err := p.conn().commit(ctx, cmps, []clientv3.Op{p.putEntry(c, s, "")}, nil)
	switch {
	case err != nil:
		return err
	case !r.Succeeded:
		c.entered = session{}
		return &waitError{reason: "this host has lost its place in the queue and takes a new one", isQueue: true, limit: watchPause}
	}
	if c.entered != s {
		c.entered, c.created = s, r.Header.Revision
	}
	c.isPassing = false
	return nil
}

// putEntry writes the queue entry of a claim. waiting says why others pass; the entry keeps its place.
func (p *permits) putEntry(c *claim, s session, waiting string) clientv3.Op {
	return clientv3.OpPut(p.keys.queue(c.id), encode(queueEntry{
		V: version, Claim: c.id, Host: p.f.o.Host, Services: c.services, By: c.override.By,
		Reason: textfmt.Excerpt(c.override.Reason, maxStateSize/2), At: c.at.UTC(), Waiting: textfmt.Excerpt(waiting, maxStateSize/2),
	}), clientv3.WithLease(s.lease))
}

// checkQueue returns the error of a claim that may wait while other claims are before it in the queue. It reads only the
// queue and the permit of this host: of a hundred hosts that wait, only the first reads the states of all.
func (p *permits) checkQueue(ctx context.Context, c *claim) error {
	if !c.canWait || coversAll(c.keys, p.f.o.Overrides.List()) {
		return nil
	}
	r, err := p.conn().commit(ctx, nil, []clientv3.Op{
		clientv3.OpGet(p.keys.permit(p.f.o.Host)), clientv3.OpGet(p.keys.queue(""), clientv3.WithPrefix()),
	}, nil)
	if err != nil {
		return readError(err)
	}
	snap := p.parse(r)
	if own, ok := snap.permits[p.f.o.Host]; ok && !slices.ContainsFunc(c.services, func(s string) bool { return !own.covers(s) }) {
		return nil
	}
	return snap.checkTurn(p, c)
}

// checkTurn returns nil if a claim is the first in the queue that wants any of its services. Otherwise it returns an error
// that waits only for the last of the claims before it, so that one host wakes when another leaves the queue.
func (snap *snapshot) checkTurn(p *permits, c *claim) error {
	before := snap.blockers(c.services, c.id, c.created)
	if len(before) == 0 {
		return nil
	}
	first, last := before[0], before[len(before)-1]
	reason := fmt.Sprintf("%s waits before this host for %s", textfmt.OneLine(first.Host), nameServices(common(first.Services, c.services)))
	if len(before) > 1 {
		reason = fmt.Sprintf("%d hosts wait before this one for %s: %s is the first", len(before), nameServices(c.services), textfmt.OneLine(first.Host))
	}
	return &waitError{reason: reason, isQueue: true, revision: snap.revision, keys: []watchedKey{{last.key, false}, {p.keys.queue(c.id), false}}}
}

func common(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// nameServices joins names of services.
func nameServices(list []string) string {
	return nameList(list, func(s string) string { return textfmt.OneLine(s) })
}
