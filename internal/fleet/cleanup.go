package fleet

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchOwn watches the permit and the queue entries of this host. A transaction whose outcome was unknown may be applied
// much later.
func (p *permits) watchOwn(ctx context.Context) {
	keys := []watchedKey{{p.keys.permit(p.f.o.Host), false}, {p.keys.queueOf(p.f.o.Host), true}}
	last := int64(-1)
	for ctx.Err() == nil {
		p.mu.Lock()
		revision := p.ownRevision
		p.mu.Unlock()
		if revision == 0 || revision == last { // cleanUp has not read since
			sleep(ctx, overridesEvery)
			continue
		}
		last = revision
		p.waitChange(ctx, revision, rereadEvery, keys...)
		p.reread()
	}
}

// cleanUpLoop brings the keys of this host in line with its living commands and its overrides, until ctx ends.
func (p *permits) cleanUpLoop(ctx context.Context) {
	tick := time.NewTicker(cleanUpEvery)
	defer tick.Stop()
	failures, retryAt := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.cleanUpNow:
		case <-tick.C:
		}
		now := time.Now()
		if _, err := p.conn().registration(); err != nil || now.Before(retryAt) {
			continue
		}
		if err := p.cleanUp(ctx); err != nil {
			failures++
			retryAt = now.Add(retryDelay(failures))
			continue
		}
		failures = 0
	}
}

// cleanUp reads the keys of this host if they may have changed, removes claims without a living command, and returns a
// used permit when the host is back.
func (p *permits) cleanUp(ctx context.Context) error {
	if p.mustRead() {
		p.isUnread.Store(false)
		if err := p.readOwn(ctx); err != nil {
			p.isUnread.Store(true)
			return err
		}
	}
	// A claim that holds claimLock changes the permit itself.
	select {
	case p.claimLock <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-p.claimLock }()
	err := p.removeDead(ctx)
	if err == nil {
		err = p.returnUsed(ctx)
	}
	if err != nil {
		p.isUnread.Store(true)
	}
	return err
}

func (p *permits) mustRead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := rereadEvery
	if p.own.Claim != "" || len(p.queued) > 0 {
		limit = rereadBusy
	}
	return p.isUnread.Load() || time.Since(p.lastRead) >= limit
}

// readOwn reads the permit and the queue entries of this host.
func (p *permits) readOwn(ctx context.Context) error {
	host := p.f.o.Host
	r, err := p.conn().commit(ctx, nil, []clientv3.Op{
		clientv3.OpGet(p.keys.permit(host)), clientv3.OpGet(p.keys.queueOf(host), clientv3.WithPrefix()),
	}, nil)
	if err != nil {
		return readError(err)
	}
	snap := p.parse(r)
	p.setOwn(snap.permits[host])
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued, p.lastRead, p.ownRevision = nil, time.Now(), r.Header.Revision
	for _, q := range snap.queue {
		if q.Host == host {
			p.queued = append(p.queued, q)
		}
	}
	return nil
}

// removeDead removes the queue entries and the asked permit of commands that do not live any more. The permit becomes
// used instead if an override takes the host out: then the daemon was stopped after the override was written.
func (p *permits) removeDead(ctx context.Context) error {
	p.mu.Lock()
	own, entries := p.own, p.queued
	p.mu.Unlock()
	for _, q := range entries {
		if p.isAlive(q.Claim) {
			continue
		}
		if _, err := p.conn().commit(ctx, nil, []clientv3.Op{clientv3.OpDelete(q.key)}, nil); err != nil {
			return err
		}
		p.isUnread.Store(true)
	}
	if own.Phase != phaseAsked || p.isAlive(own.Claim) {
		return nil
	}
	return p.cleanUpAsked(ctx, own)
}

// cleanUpAsked returns an asked permit whose claim has no living command, or marks it used.
func (p *permits) cleanUpAsked(ctx context.Context, own heldPermit) error {
	p.isUnread.Store(true)
	asked := slices.DeleteFunc(slices.Clone(own.Services), func(s string) bool { return slices.Contains(own.Used, s) })
	overrides := p.f.o.Overrides.List()
	p.mu.Lock()
	out := p.members.overridden(asked, overrides)
	p.mu.Unlock()
	if len(out) > 0 {
		return p.markUsed(ctx, own)
	}
	returned, err := p.giveBack(ctx, own, "claim without a command", clientv3.OpDelete(p.keys.queue(own.Claim)))
	if returned {
		p.f.o.Log.Warn("permit is returned: its command has ended before its override was written",
			"services", own.Services, "by", own.By, "reason", own.Reason)
		p.setOwn(heldPermit{})
	}
	return err
}

// returnUsed returns a used permit when the balancers have this host up again.
func (p *permits) returnUsed(ctx context.Context) error {
	p.mu.Lock()
	own := p.own
	p.mu.Unlock()
	if own.Phase != phaseUsed {
		return nil
	}
	r, overrides := p.balancers(), p.f.o.Overrides.List()
	p.mu.Lock()
	isOut := len(p.members.overridden(own.Services, overrides)) > 0
	step := p.returns.observe(p.now(), own.permit, &r, isOut, p.members.local)
	isLate := step.isBack && p.isStateLate(own.Services)
	p.mu.Unlock()
	for _, text := range step.passedOver {
		p.f.o.Log.Warn("permit does not wait any longer for a balancer that is silent", "balancer", text, "services", own.Services)
	}
	if isLate {
		p.observeNow.Store(true)
		wake(p.publishNow) // which wakes cleanUp
		return nil
	}
	if step.isBack {
		returned, err := p.giveBack(ctx, own, "back")
		if returned {
			p.f.o.Log.Info("permit is returned", "services", own.Services, "by", own.By, "reason", own.Reason, "after", p.now().Sub(own.At).Round(time.Millisecond).String())
			p.setOwn(heldPermit{})
		}
		p.isUnread.Store(true)
		return err
	}
	return p.writeWaiting(ctx, own, step.waiting)
}

// isStateLate reports whether etcd still has this host out of one of the services of a permit that may be returned. Other
// hosts would count it as out after the return. It stays late for at most stateLimit: a full etcd takes no state. The
// caller holds p.mu.
func (p *permits) isStateLate(services []string) bool {
	if p.returns.backSince.IsZero() {
		p.returns.backSince = p.now()
	}
	if p.now().Sub(p.returns.backSince) >= stateLimit {
		return false
	}
	return p.published == nil || slices.ContainsFunc(services, func(service string) bool {
		s, isMember := p.published[service]
		return isMember && s.isOut()
	})
}

// writeWaiting writes what a used permit waits for, for people. It is not part of any decision.
func (p *permits) writeWaiting(ctx context.Context, own heldPermit, text string) error {
	p.mu.Lock()
	isDue := own.Waiting != text && p.now().Sub(p.returns.writtenAt) >= waitingEvery
	if isDue {
		p.returns.writtenAt = p.now()
	}
	p.mu.Unlock()
	if !isDue {
		return nil
	}
	next := own.permit
	next.Waiting = text
	key := p.keys.permit(own.Host)
	r, err := p.conn().commit(ctx, []clientv3.Cmp{isUnchanged(key, own.modified)}, []clientv3.Op{clientv3.OpPut(key, encode(next))}, nil)
	if err == nil && r.Succeeded {
		p.setOwn(heldPermit{permit: next, modified: r.Header.Revision})
	}
	return err
}
