package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/admin/wait"
	"hacheck/internal/spool"
)

// safeEvery is how often checkSafe asks the balancers, rereadSnapshotEvery how often it reads the permits of other hosts.
const (
	safeEvery           = 100 * time.Millisecond
	rereadSnapshotEvery = time.Second
)

// askBalancers returns nil if every balancer keeps another server. Otherwise it gives the permit back; with WaitTurn the
// claim keeps its place and lets others pass.
func (p *permits) askBalancers(ctx context.Context, c *claim, s session) error {
	reason, err := p.checkSafe(ctx, c)
	if err != nil {
		return err
	}
	if reason == "" {
		return nil
	}
	if err := p.letOthersPass(ctx, c, s, reason); err != nil {
		return err
	}
	return &waitError{reason: reason, limit: balancersPause}
}

// letOthersPass gives the permit of a claim back, unless this host had it before. With WaitTurn the entry of the claim
// keeps its place and lets others pass; reason says why.
func (p *permits) letOthersPass(ctx context.Context, c *claim, s session, reason string) error {
	if !c.isHeld {
		var more []clientv3.Op
		if c.canWait {
			more = append(more, p.putEntry(c, s, reason))
		}
		if _, err := p.giveBack(ctx, c.granted, "balancers of "+p.f.o.Host, more...); err != nil {
			return err
		}
		message := "permit is returned: the balancers refuse"
		if reason == reasonStopped {
			message = "permit is returned: the command is stopped"
		}
		p.f.o.Log.Info(message, "services", c.services, "by", c.override.By, "error", reason)
		c.granted = heldPermit{}
		p.setOwn(heldPermit{})
		p.reread()
	} else if c.canWait {
		if _, err := p.conn().commit(ctx, nil, []clientv3.Op{p.putEntry(c, s, reason)}, nil); err != nil {
			return err
		}
	}
	c.isPassing = true
	return nil
}

// reasonStopped is why a claim lets others pass whose command is stopped.
const reasonStopped = "its command is stopped; it goes on when the command does (fg, or SIGCONT)"

// passWhileStopped lets others pass as long as the command of a claim is stopped: it could not tell that it has got its
// turn, and the hosts behind it would wait for an operator who may have gone.
func (p *permits) passWhileStopped(ctx context.Context, c *claim) error {
	if s, err := p.conn().registration(); err == nil && s == c.entered && c.canWait && !c.isPassing {
		r, err := p.conn().commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(p.keys.queue(c.id)), "=", c.created)},
			[]clientv3.Op{p.putEntry(c, s, reasonStopped)}, nil)
		if err != nil {
			return err
		}
		c.isPassing = r.Succeeded // else the place is lost, and enqueue takes a new one
	}
	return &waitError{reason: reasonStopped, limit: stoppedPause}
}

// checkSafe returns why the balancers' view forbids to take the host out, "" if it does not. Only requests of balancers
// since the permits of the other hosts were read count: an older request may have the weight of a host that is out
// already.
func (p *permits) checkSafe(ctx context.Context, c *claim) (reason string, err error) {
	end := time.NewTimer(wait.SafeTimeout)
	defer end.Stop()
	tick := time.NewTicker(safeEvery)
	defer tick.Stop()
	var leaving map[string]int
	var since, readAt time.Time // since when requests count, and when the permits of other hosts were read
	for isOver := false; ; {
		if readAt.IsZero() || len(leaving) > 0 && time.Since(readAt) >= rereadSnapshotEvery {
			snap, err := p.readSnapshot(ctx, c.granted.Services)
			if err != nil {
				return "", err
			}
			next := snap.leaving(c.granted.Services, p.f.o.Host)
			readAt = time.Now()
			if since.IsZero() || !maps.Equal(leaving, next) {
				since = readAt
			}
			leaving = next
		}
		r := p.balancers()
		result := wait.CheckSafe(c.targets(), &r, time.Since(since), leaving)
		reason = result.Reason
		switch {
		case result.Safety == wait.Safe:
			return "", nil
		case isOver || result.Safety == wait.Unsafe && len(leaving) == 0:
			return reason, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-end.C:
			isOver = true
		case <-tick.C:
		}
	}
}

// balancersRefuse returns why the balancers' view forbids to take the host out for certain, without asking etcd.
func (p *permits) balancersRefuse(c *claim) string {
	r := p.balancers()
	if result := wait.CheckSafe(c.targets(), &r, wait.SafeTimeout, nil); result.Safety == wait.Unsafe {
		return result.Reason
	}
	return ""
}

func (c *claim) targets() []wait.Target {
	var list []wait.Target
	for _, k := range c.keys {
		list = append(list, wait.Target{Key: k, Label: k.Name()})
	}
	return list
}

// leaving returns the weight of the holders of permits, by service, that balancers may still count. The host except is
// left out.
func (snap *snapshot) leaving(services []string, except string) map[string]int {
	list := map[string]int{}
	for host, h := range snap.permits {
		if host == except {
			continue
		}
		for _, s := range services {
			if h.covers(s) && !snap.states[s][host].Out && h.Weights[s] > 0 {
				list[s] += h.Weights[s]
			}
		}
	}
	return list
}

// write writes the override, if the permit is still this claim's and the command lives. Then it marks the permit used.
func (p *permits) write(ctx context.Context, c *claim, s session) error {
	if err := p.verify(ctx, c, s); err != nil {
		return err
	}
	if c.uncounted && !coversAll(c.keys, p.f.o.Overrides.List()) {
		return p.countAgain(ctx, c)
	}
	if p.beforeWrite != nil {
		p.beforeWrite()
	}
	if c.isStopped() {
		if err := p.letOthersPass(ctx, c, s, reasonStopped); err != nil {
			return err
		}
		return &waitError{reason: reasonStopped, limit: stoppedPause}
	}
	if ctx.Err() != nil { // P4
		return ctx.Err()
	}
	keys, err := p.keysToWrite(c)
	if err != nil {
		return err
	}
	c.isWritten = len(keys) < len(c.keys)
	for _, k := range keys {
		e := c.override
		e.Key = k
		if err = p.f.o.Spool.Write(e); err != nil && !errors.Is(err, spool.ErrNotDurable) {
			break
		}
		c.isWritten = true
	}
	if !c.isWritten {
		return err
	}
	p.finish(context.WithoutCancel(ctx), c)
	if err != nil {
		return fmt.Errorf("the permit is used, but %w", err)
	}
	return nil
}

// keysToWrite returns the keys that get the override of c: all, but with --until-boot those without an override of an
// operator, who may have set one while the claim waited.
func (p *permits) keysToWrite(c *claim) ([]spool.Key, error) {
	if c.override.Boot == "" {
		return c.keys, nil
	}
	var list []spool.Key
	overrides := p.f.o.Overrides.List()
	for _, k := range c.keys {
		i := slices.IndexFunc(overrides, func(e spool.Entry) bool { return e.Key == k && e.Scope == "" && e.Boot == "" })
		switch {
		case i < 0:
			list = append(list, k)
		case overrides[i].State == spool.ForceUp:
			return nil, &RefusedError{fmt.Sprintf("%s was forced up meanwhile, and --until-boot replaces no override; lift that one first", k.Name())}
		default:
			c.progress(fmt.Sprintf("%s is %s already, and stays so", k.Name(), overrides[i].State.Word()))
		}
	}
	return list, nil
}

// verify reads the permit once more. An operator may have released it while this machine was suspended.
func (p *permits) verify(ctx context.Context, c *claim, s session) error {
	began := bootTime()
	r, err := p.conn().get(ctx, p.keys.permit(p.f.o.Host))
	if err != nil {
		return err
	}
	if len(r.Kvs) == 0 || r.Kvs[0].ModRevision != c.granted.modified {
		return errChanged
	}
	now, err := p.conn().registration()
	if err != nil {
		return err
	}
	if now != s || bootTime()-began > verifiedFor {
		return errChanged
	}
	return nil
}

// countAgain gives a permit back that was granted because an override took the host out already: that override has
// ended since.
func (p *permits) countAgain(ctx context.Context, c *claim) error {
	if _, err := p.giveBack(ctx, c.granted, "counted again"); err != nil {
		return err
	}
	c.granted = heldPermit{}
	p.setOwn(heldPermit{})
	p.reread()
	return errChanged
}

// finish waits until the override is in force and marks the permit used. It does not fail: the override is written.
// What it cannot do, cleanUp does.
func (p *permits) finish(ctx context.Context, c *claim) {
	for end := time.Now().Add(obeyTime); !coversAll(c.keys, p.f.o.Overrides.List()); {
		if time.Now().After(end) {
			p.f.o.Log.Warn("an override was written and is not in force; see the spool directory in /status", "services", c.services)
			break
		}
		sleep(ctx, obeyEvery)
	}
	wake(p.publishNow)
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	if c.isHeld {
		if _, err := p.conn().commit(ctx, nil, []clientv3.Op{clientv3.OpDelete(p.keys.queue(c.id))}, nil); err != nil {
			p.reread()
		}
		return
	}
	if err := p.markUsed(ctx, c.granted); err != nil {
		p.f.o.Log.Warn("permit cannot be marked as used yet", "services", c.services, "error", err.Error())
		p.reread()
	}
}

// abandon removes what a claim has in etcd after its command was refused or has ended. Without its queue entry a grant
// that is applied late changes nothing. cleanUp removes what abandon could not.
func (p *permits) abandon(c *claim) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	entry := clientv3.OpDelete(p.keys.queue(c.id))
	switch {
	case c.granted.modified != 0 && !c.isHeld:
		returned, err := p.giveBack(ctx, c.granted, "claim of "+p.f.o.Host, entry)
		if returned {
			p.f.o.Log.Info("permit is returned: nothing was changed", "services", c.services, "by", c.override.By)
		}
		if err == nil {
			p.setOwn(heldPermit{})
		}
		if returned || err != nil {
			return
		}
		fallthrough
	case c.created != 0:
		_, _ = p.conn().commit(ctx, nil, []clientv3.Op{entry}, nil) // cleanUp tries again
	}
}
