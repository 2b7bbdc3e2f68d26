package fleet

import (
	"context"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// Forget removes an absent host: its state, permit and queue entries. See Service.
func (f *Fleet) Forget(ctx context.Context, host, by string) error {
	p := f.permits
	name := textfmt.OneLine(host)
	snap, err := p.readSnapshot(ctx, nil)
	if err != nil {
		return err
	}
	if snap.isPresent(host) {
		return &RefusedError{fmt.Sprintf("%s is present; only a host that is gone can be forgotten", name)}
	}
	ops := p.deleteOps(snap, host)
	if len(ops) == 0 {
		return &RefusedError{fmt.Sprintf("nothing is known of a host %s", name)}
	}
	// One transaction holds the keys of a host with up to maxOps services. The permit is in the first.
	for chunk := range slices.Chunk(ops, maxOps) {
		r, err := p.conn().commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(p.keys.presence(host)), "=", 0)},
			append(chunk, p.putGuard("forgotten: "+host)), nil)
		if err != nil {
			return err
		}
		if !r.Succeeded {
			return &RefusedError{fmt.Sprintf("%s has come back meanwhile", name)}
		}
	}
	f.o.Log.Info("host is forgotten", "host", host, "by", by)
	return nil
}

// deleteOps returns the operations that remove what a host has in etcd.
func (p *permits) deleteOps(snap *snapshot, host string) []clientv3.Op {
	var ops []clientv3.Op
	if _, ok := snap.permits[host]; ok {
		ops = append(ops, clientv3.OpDelete(p.keys.permit(host)))
	}
	for _, q := range snap.queue {
		if q.Host == host {
			ops = append(ops, clientv3.OpDelete(q.key))
		}
	}
	if _, ok := snap.applied[host]; ok {
		ops = append(ops, clientv3.OpDelete(p.keys.applied(host)))
	}
	for service, hosts := range snap.states {
		if _, ok := hosts[host]; ok {
			ops = append(ops, clientv3.OpDelete(p.keys.state(service, host)))
		}
	}
	return ops
}

// Release gives back the permit of host for service. See Service.
func (f *Fleet) Release(ctx context.Context, service, host, by string) error {
	p := f.permits
	if host == "" {
		host = f.o.Host
	}
	for {
		snap, err := p.readSnapshot(ctx, nil)
		if err != nil {
			return err
		}
		held, ok := snap.permits[host]
		if !ok || service != spool.All && !held.covers(service) {
			return &RefusedError{fmt.Sprintf("%s holds no permit for %s", textfmt.OneLine(host), textfmt.OneLine(service))}
		}
		next := held.permit
		without := func(list []string) []string {
			return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == service || service == spool.All })
		}
		next.Services, next.Used = without(held.Services), without(held.Used)
		key := p.keys.permit(host)
		op := clientv3.OpPut(key, encode(next))
		if len(next.Services) == 0 || held.unreadable {
			op = clientv3.OpDelete(key)
		}
		r, err := p.conn().commit(ctx, []clientv3.Cmp{isUnchanged(key, held.modified)}, []clientv3.Op{op, p.putGuard("released: " + host)}, nil)
		if err != nil {
			return err
		}
		if r.Succeeded {
			f.o.Log.Info("permit is released", "host", host, "service", service, "by", by)
			return nil
		}
	}
}
