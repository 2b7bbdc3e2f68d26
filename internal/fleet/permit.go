package fleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/balancer"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
)

const (
	// cleanUpEvery is how often the permit of this host is looked at, without a call to etcd.
	cleanUpEvery = time.Second
	// rereadEvery is how often the keys of this host are read again without any notice of a change.
	rereadEvery = 5 * time.Minute
	// rereadBusy is the same while this host has a permit or a claim.
	rereadBusy = 20 * time.Second
)

// permits publishes the state of this host, and asks for, uses and returns its permit.
type permits struct {
	f    *Fleet
	keys keySpace
	now  func() time.Time

	balancers func() balancer.Report

	beforeWrite func() // of tests: called when everything is decided; nil otherwise
	reports     reportCache
	absences    absences

	publishNow chan struct{} // wakes the publisher
	cleanUpNow chan struct{} // wakes cleanUp
	isStale    atomic.Bool   // the publisher has to compare its keys with etcd's
	isUnread   atomic.Bool   // cleanUp has to read the keys of this host
	observeNow atomic.Bool   // the publisher has to look at the balancers at once

	// claimLock is held from the decision about a claim until its override is in force: one claim of this host at a time.
	claimLock chan struct{}

	mu       sync.Mutex
	members  *members
	own      heldPermit      // as last read or written; zero: none
	queued   []queuedClaim   // entries of this host, as last read
	claims   map[string]bool // the claims of living commands
	sessions chan struct{}   // closed when the session changes
	returns  returnTracker   // of own
	// published has the states of this host as the publisher wrote them last, by service; nil: it has written none.
	published map[string]state
	lastRead  time.Time // of own and queued
	// ownRevision is etcd's revision when own and queued were last read; 0: never.
	ownRevision int64
}

func newPermits(f *Fleet) *permits {
	p := &permits{
		f: f, keys: keySpace(f.o.Prefix), now: time.Now, publishNow: make(chan struct{}, 1), cleanUpNow: make(chan struct{}, 1),
		claimLock: make(chan struct{}, 1), members: newMembers(f.o.Member), claims: map[string]bool{}, sessions: make(chan struct{}),
	}
	p.reports.p = p
	p.isUnread.Store(true)
	if p.balancers = f.o.Balancers; p.balancers == nil {
		p.balancers = func() balancer.Report { return balancer.Report{} }
	}
	return p
}

func (p *permits) conn() *conn { return p.f.conn }

// run publishes the state of this host and returns its permits until ctx ends.
func (p *permits) run(ctx context.Context) {
	var wg sync.WaitGroup
	u := &publisher{p: p, published: map[string]string{}}
	wg.Go(func() { u.run(ctx) })
	wg.Go(func() { p.watchOwn(ctx) })
	wg.Go(func() { p.cleanUpLoop(ctx) })
	wg.Wait()
}

// sessionChanged makes everything that depends on the registration look again. It does not block.
func (p *permits) sessionChanged() {
	p.mu.Lock()
	close(p.sessions)
	p.sessions = make(chan struct{})
	p.mu.Unlock()
	p.isStale.Store(true)
	p.isUnread.Store(true)
	wake(p.publishNow)
	wake(p.cleanUpNow)
}

// wake wakes the receiver of c, which has room for one value. It does not block.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reread makes cleanUp read the keys of this host again.
func (p *permits) reread() {
	p.isUnread.Store(true)
	wake(p.cleanUpNow)
}

// fill adds what this host knows of its permit to a status.
func (p *permits) fill(s *report.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Permit, s.Queued = p.own.Phase, len(p.claims)
}

// newClaim returns a random claim id, which begins with the host.
func newClaim(host string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return host + "." + hex.EncodeToString(b[:])
}

// isRegistered compares the present key of this host with the session.
func (p *permits) isRegistered(s session) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(p.keys.presence(p.f.o.Host)), "=", s.created)
}

// hasLease compares the lease of the present key with that of the session.
func (p *permits) hasLease(s session) clientv3.Cmp {
	return clientv3.Compare(clientv3.LeaseValue(p.keys.presence(p.f.o.Host)), "=", s.lease)
}

// isUnchanged compares the mod revision of a key; 0: there is no such key.
func isUnchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// putGuard is part of every transaction that changes who may go out.
func (p *permits) putGuard(why string) clientv3.Op {
	return clientv3.OpPut(p.keys.guard(), encode(struct {
		V    int    `json:"v"`
		Host string `json:"host"`
		Why  string `json:"why"`
	}{version, p.f.o.Host, why}))
}

// setOwn records the permit of this host as etcd has it.
func (p *permits) setOwn(h heldPermit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.Claim != p.own.Claim || h.Phase != p.own.Phase {
		p.returns = returnTracker{}
	}
	p.own = h
}

// phase returns the phase of the permit of this host, "" without one.
func (p *permits) phase() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own.Phase
}

// isAlive reports whether a command of this daemon has the claim.
func (p *permits) isAlive(claim string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.claims[claim]
}

// addClaim records the claim of a command. It returns false if there are too many.
func (p *permits) addClaim(claim string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.claims) >= maxClaims {
		return false
	}
	p.claims[claim] = true
	return true
}

// removeClaim forgets a claim. From then on cleanUp removes what it finds of it in etcd.
func (p *permits) removeClaim(claim string) {
	p.mu.Lock()
	delete(p.claims, claim)
	p.mu.Unlock()
	p.reread()
}

// giveBack returns a permit, or what a claim has added to a used one. A permit that has changed meanwhile stays. more
// are operations of the same transaction.
//
// A full etcd refuses to write the guard but deletes keys. A return without the guard is safe: a host that counts at
// the same time counts one too many.
func (p *permits) giveBack(ctx context.Context, h heldPermit, why string, more ...clientv3.Op) (returned bool, err error) {
	key := p.keys.permit(h.Host)
	is := []clientv3.Cmp{isUnchanged(key, h.modified)}
	if len(h.Used) > 0 && h.Phase == phaseAsked {
		used := h.permit
		used.Services, used.Used, used.Phase = h.Used, nil, phaseUsed
		r, err := p.conn().commit(ctx, is, append(more, clientv3.OpPut(key, encode(used)), p.putGuard(why)), nil)
		return err == nil && r.Succeeded, err
	}
	ops := append(more, clientv3.OpDelete(key))
	r, err := p.conn().commit(ctx, is, append(slices.Clone(ops), p.putGuard(why)), nil)
	if isNotApplied(err) {
		r, err = p.conn().commit(ctx, is, slices.DeleteFunc(ops, clientv3.Op.IsPut), nil)
	}
	return err == nil && r.Succeeded, err
}

// isNotApplied reports whether etcd has certainly not applied a transaction.
func isNotApplied(err error) bool {
	var u *UnavailableError
	return errors.As(err, &u) && !u.Unknown
}

// markUsed writes that the override of a permit is in force, and removes the queue entry of its claim.
func (p *permits) markUsed(ctx context.Context, h heldPermit) error {
	key := p.keys.permit(h.Host)
	used := h.permit
	used.Phase, used.Used = phaseUsed, nil
	ops := []clientv3.Op{clientv3.OpPut(key, encode(used)), clientv3.OpDelete(p.keys.queue(h.Claim)), p.putGuard("used " + h.Host)}
	r, err := p.conn().commit(ctx, []clientv3.Cmp{isUnchanged(key, h.modified)}, ops, nil)
	if err != nil {
		return err
	}
	if r.Succeeded {
		p.setOwn(heldPermit{permit: used, modified: r.Header.Revision})
		p.f.o.Log.Info("permit is used", "services", used.Services, "by", used.By, "reason", used.Reason)
	}
	return nil
}

// coversAll reports whether overrides that take their targets out cover all keys.
func coversAll(keys []spool.Key, list []spool.Entry) bool {
	return !slices.ContainsFunc(keys, func(k spool.Key) bool {
		return !slices.ContainsFunc(list, func(e spool.Entry) bool { return e.State.TakesOut() && e.Key.Covers(k, true) })
	})
}
