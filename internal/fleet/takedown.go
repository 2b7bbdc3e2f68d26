package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"hacheck/internal/spool"
)

const (
	// maxClaims bounds the commands that ask at the same time.
	maxClaims = 64
	// decideTime is how long a claim that may not wait gives the claims before it to be decided.
	decideTime = 3 * time.Second
	// balancersPause is how long a claim whose balancers refuse lets others pass until it asks them again.
	balancersPause = 5 * time.Second
	// heldPause is how long a claim waits while this host grants nothing after a loss.
	heldPause = 5 * time.Second
	// stoppedPause is how long a claim whose command is stopped waits until it looks again.
	stoppedPause = time.Second
	// cleanupTime bounds what a claim does in etcd after its command has ended. cleanUp does the rest.
	cleanupTime = 2 * callTimeout
	// verifiedFor is how long the permit counts after it was read, until the override is written.
	verifiedFor = time.Second
	// obeyTime is how long the index may take to show an override that was written.
	obeyTime  = 10 * time.Second
	obeyEvery = 10 * time.Millisecond
)

// claim is one request for a permit.
type claim struct {
	id       string
	keys     []spool.Key
	services []string // sorted
	override spool.Entry
	at       time.Time
	progress Progress
	canWait  bool

	isStopped func() bool // the command is stopped

	entered   session // whose lease the queue entry has; zero: it has to be written
	created   int64   // create revision of the queue entry
	isPassing bool    // the entry lets others pass

	granted   heldPermit
	isHeld    bool // the permit was used before the claim; it stays when the claim fails
	uncounted bool // granted because an override takes the host out already
	isWritten bool // the override is in the spool
}

// waitError says what a claim waits for.
type waitError struct {
	reason   string
	isQueue  bool // for the claims before it
	revision int64
	keys     []watchedKey  // one of them has to change
	limit    time.Duration // look again after it; 0: watchLimit
}

func (e *waitError) Error() string { return e.reason }

// errChanged makes a claim decide again at once: etcd has changed since it read.
var errChanged = errors.New("etcd has changed meanwhile")

// TakeDown does the whole of `hadown --safe`. See Service.
func (f *Fleet) TakeDown(ctx context.Context, t Takedown, progress Progress) error {
	p := f.permits
	if !t.Override.State.TakesOut() {
		return &RefusedError{"only an override that takes the host out needs a permit"}
	}
	services, err := p.servicesOf(t.Keys)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(string) {}
	}
	c := &claim{
		id: newClaim(f.o.Host), keys: t.Keys, services: services, override: t.Override, at: p.now(), progress: progress,
		canWait: t.WaitTurn > 0, isStopped: t.IsStopped,
	}
	if c.isStopped == nil {
		c.isStopped = func() bool { return false }
	}
	if !p.addClaim(c.id) {
		return &RefusedError{fmt.Sprintf("%d commands of this host wait for a permit already", maxClaims)}
	}
	defer p.removeClaim(c.id)
	limit := decideTime
	if c.canWait {
		limit = t.WaitTurn
	}
	err = p.claim(ctx, c, limit)
	if err != nil && !c.isWritten {
		p.abandon(c)
		message := "hadown --safe is refused"
		if ctx.Err() != nil {
			message = "hadown --safe has ended before its override was written"
		}
		f.o.Log.Info(message, "services", services, "by", t.Override.By, "reason", t.Override.Reason, "error", err.Error())
	}
	return err
}

// servicesOf returns the services of keys. All is every service of which this host is a member.
func (p *permits) servicesOf(keys []spool.Key) ([]string, error) {
	names := map[string]bool{}
	for _, k := range keys {
		if k.Service != spool.All {
			names[k.Service] = true
			continue
		}
		p.mu.Lock()
		list := p.members.names()
		p.mu.Unlock()
		if len(list) == 0 {
			return nil, &RefusedError{"all: this host is a member of no service yet, because no balancer has reported it UP"}
		}
		for _, s := range list {
			names[s] = true
		}
	}
	if len(names) == 0 {
		return nil, &RefusedError{"no service is given"}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// claim tries until the override is written, until it is refused, or until limit is over.
func (p *permits) claim(ctx context.Context, c *claim, limit time.Duration) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	var unreachable time.Time // since when
	last := ""
	for {
		err := p.try(ctx, c)
		var w *waitError
		var u *UnavailableError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && !c.isWritten:
			return ctx.Err()
		case errors.Is(err, errChanged):
			continue
		case errors.As(err, &w):
			unreachable = time.Time{}
		case errors.As(err, &u) && !u.Unknown && c.canWait:
			// A claim that waits for an hour need not end because etcd elects a leader. Its place lives as long as its lease.
			if unreachable.IsZero() {
				unreachable = p.now()
			}
			if p.now().Sub(unreachable) > 2*p.f.o.Lease {
				return err
			}
			w = &waitError{reason: err.Error(), limit: watchPause}
		default:
			return err
		}
		if !c.canWait && !w.isQueue {
			return &RefusedError{w.reason}
		}
		if c.canWait && w.reason != last {
			last = w.reason
			c.progress(w.reason)
		}
		switch isOver := p.waitTurn(ctx, w, deadline.C); {
		case isOver && c.canWait:
			return &RefusedError{fmt.Sprintf("its turn has not come within %s: %s", shortAge(limit), w.reason)}
		case isOver:
			return &RefusedError{w.reason}
		}
	}
}

// waitTurn waits for what w names. It returns true when the deadline has passed.
func (p *permits) waitTurn(ctx context.Context, w *waitError, deadline <-chan time.Time) (isOver bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		limit := w.limit
		if limit == 0 {
			limit = watchLimit
		}
		if len(w.keys) == 0 {
			sleep(ctx, limit)
			return
		}
		p.waitChange(ctx, w.revision, limit, w.keys...)
		if !w.isQueue {
			sleep(ctx, coalesceTime)
		}
	}()
	select {
	case <-deadline:
		cancel()
		<-done
		return true
	case <-done:
		return false
	}
}

// try decides about the claim once. If it is granted and the balancers agree, it writes the override.
func (p *permits) try(ctx context.Context, c *claim) error {
	if c.isStopped() {
		return p.passWhileStopped(ctx, c)
	}
	if c.isPassing {
		if reason := p.balancersRefuse(c); reason != "" {
			return &waitError{reason: reason, limit: balancersPause}
		}
	}
	select {
	case p.claimLock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.claimLock }()
	if reason, held := p.f.applier.permitsHeld(); held {
		return &waitError{reason: reason, limit: heldPause}
	}
	s, err := p.conn().registration()
	if err != nil {
		return err
	}
	if err := p.enqueue(ctx, c, s); err != nil {
		return err
	}
	if err := p.checkQueue(ctx, c); err != nil {
		return err
	}
	snap, err := p.readSnapshot(ctx, c.services)
	if err != nil {
		return err
	}
	if err := p.grant(ctx, c, s, snap); err != nil {
		return err
	}
	if err := p.askBalancers(ctx, c, s); err != nil {
		return err
	}
	return p.write(ctx, c, s)
}
