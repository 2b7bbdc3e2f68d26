package fleet

import (
	"context"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// grant decides with what etcd has, and writes the permit.
func (p *permits) grant(ctx context.Context, c *claim, s session, snap *snapshot) error {
	host := p.f.o.Host
	own, hasPermit := snap.permits[host]
	services := c.services
	switch {
	case !hasPermit:
	case own.unreadable:
		return &RefusedError{"the permit of this host cannot be read; remove it with hacheck fleet release " + c.services[0]}
	case own.Phase == phaseAsked: // of a command that has ended: this claim holds claimLock
		if err := p.cleanUpAsked(ctx, own); err != nil {
			return err
		}
		return errChanged
	default:
		services = slices.DeleteFunc(slices.Clone(services), own.covers)
	}
	if len(services) == 0 {
		return p.reuse(ctx, c, own)
	}
	if c.uncounted = coversAll(c.keys, p.f.o.Overrides.List()); !c.uncounted {
		if err := snap.checkTurn(p, c); err != nil {
			if reason, full := snap.overBudget(services, host, p.now()); !c.canWait && len(full) > 0 {
				return &RefusedError{reason}
			}
			return err
		}
		if reason, full := snap.overBudget(services, host, p.now()); len(full) > 0 {
			return &waitError{reason: reason, revision: snap.revision, keys: p.decisionKeys(full)}
		}
	}
	return p.commitGrant(ctx, c, s, snap, own)
}

// reuse lets c use the permit that this host has. The permit then says who uses it now and why. It is written even if
// it says so already: a return of the permit that etcd applies late then finds it changed, and fails.
func (p *permits) reuse(ctx context.Context, c *claim, own heldPermit) error {
	key := p.keys.permit(own.Host)
	next := own.permit
	next.By, next.Reason = c.override.By, cutText(c.override.Reason, spool.MaxReason)
	r, err := p.conn().commit(ctx, []clientv3.Cmp{isUnchanged(key, own.modified)}, []clientv3.Op{clientv3.OpPut(key, encode(next))}, nil)
	if err != nil {
		return err
	}
	if !r.Succeeded {
		return errChanged
	}
	c.granted, c.isHeld, c.uncounted = heldPermit{permit: next, modified: r.Header.Revision}, true, false
	p.setOwn(c.granted)
	return nil
}

// decisionKeys are the keys whose change may let the first claim of the queue go on.
func (p *permits) decisionKeys(full []string) []watchedKey {
	keys := []watchedKey{{p.keys.guard(), false}, {p.keys.presence(""), true}}
	if len(full) > maxServiceRanges {
		return append(keys, watchedKey{string(p.keys) + "state/", true})
	}
	for _, s := range full {
		keys = append(keys, watchedKey{p.keys.states(s), true})
	}
	return keys
}

// commitGrant writes the permit in one transaction, under what the decision was made with.
func (p *permits) commitGrant(ctx context.Context, c *claim, s session, snap *snapshot, own heldPermit) error {
	host := p.f.o.Host
	r := p.balancers()
	next := permit{
		V: version, Claim: c.id, Host: host, Instance: p.conn().identity.Instance, Services: c.services, Phase: phaseAsked,
		By: c.override.By, Reason: c.override.Reason, At: p.now().UTC(),
	}
	if own.modified != 0 {
		next.Used = own.Services
		next.Services = slices.Compact(slices.Sorted(slices.Values(slices.Concat(own.Services, c.services))))
		next.Balancers = own.Balancers
	}
	next.Reason = cutText(next.Reason, spool.MaxReason)
	next.Weights = weights(&r, next.Services)
	next.Balancers = slices.Compact(slices.Sorted(slices.Values(slices.Concat(next.Balancers, reportingBalancers(&r, next.Services)))))
	next.Balancers = next.Balancers[:min(len(next.Balancers), maxBalancers)]
	key := p.keys.permit(host)
	result, err := p.conn().commit(ctx, []clientv3.Cmp{
		isUnchanged(p.keys.guard(), snap.guard), isUnchanged(key, own.modified), p.isRegistered(s), p.hasLease(s),
		clientv3.Compare(clientv3.CreateRevision(p.keys.queue(c.id)), "=", c.created),
	}, []clientv3.Op{
		clientv3.OpPut(key, encode(next)), p.putEntry(c, s, "has its permit"), p.putGuard("granted to " + host),
	}, nil)
	if err != nil {
		return err
	}
	if !result.Succeeded {
		return p.whyNotGranted(ctx, c, s)
	}
	c.granted, c.isHeld, c.isPassing = heldPermit{permit: next, modified: result.Header.Revision}, false, true
	p.setOwn(c.granted)
	p.f.o.Log.Info("permit is granted", "services", next.Services, "by", next.By, "reason", next.Reason)
	return nil
}

// whyNotGranted returns errChanged, unless the queue entry is gone: then the claim needs a new one.
func (p *permits) whyNotGranted(ctx context.Context, c *claim, s session) error {
	r, err := p.conn().get(ctx, p.keys.queue(c.id))
	if err != nil {
		return err
	}
	if now, err := p.conn().registration(); err != nil || now != s || len(r.Kvs) == 0 || r.Kvs[0].CreateRevision != c.created {
		c.entered = session{}
	}
	return errChanged
}

// weights returns what this host weighs in the backends of each service, the largest of them.
func weights(r *balancer.Report, services []string) map[string]int {
	type backend struct{ service, address, node, name string }
	sums := map[backend]int{}
	for _, row := range r.Balancers {
		if row.Local && !row.Silent && row.Weight != nil && slices.Contains(services, row.Service) {
			name, _, _ := strings.Cut(row.Server, "/")
			sums[backend{row.Service, row.Address, row.Node, name}] += *row.Weight
		}
	}
	list := map[string]int{}
	for b, sum := range sums {
		list[b.service] = max(list[b.service], sum)
	}
	return list
}
