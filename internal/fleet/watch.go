package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The bounds of reading overrides/.
const (
	pageSize    = 200               // keys of one read
	maxKeys     = 10 * maxOverrides // of all scopes
	reloadRetry = 100 * time.Millisecond
	countEvery  = time.Minute // from the first count of the hosts to the second, and at least between others
)

// run reads overrides/ and follows it until ctx ends. It reads everything again after each cut, after each failure of
// the watch, and every 5 minutes.
func (a *applier) run(ctx context.Context) {
	for ctx.Err() == nil {
		changed := a.conn.changeSignal()
		client, err := a.conn.etcd()
		if err != nil {
			select {
			case <-changed:
			case <-a.wake:
			case <-ctx.Done():
			}
			continue
		}
		err = a.follow(ctx, client)
		if now, _ := a.conn.etcd(); now != client {
			err = nil // the connection says what is wrong
		}
		a.mu.Lock()
		a.readErr = err
		a.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			a.o.Log.Debug("fleet: overrides are read again", slog.String("because", explain(err).Error()))
			a.conn.verifyNow()
			sleepJittered(ctx, reloadRetry)
		}
	}
}

// follow reads overrides/ once and watches it until the client fails or a complete read is due. The error is nil when
// the next read follows at once.
func (a *applier) follow(ctx context.Context, client *clientv3.Client) error {
	revision, err := a.read(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := a.o.Prefix + overridesPrefix
	events := client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1),
		clientv3.WithCreatedNotify(), clientv3.WithFragment())
	created := time.NewTimer(callTimeout)
	defer created.Stop()
	again := time.NewTimer(reloadEvery - rand.N(reloadEvery/10)) // not all hosts at once
	defer again.Stop()
	for {
		changed := a.conn.changeSignal()
		if now, err := a.conn.etcd(); err != nil || now != client {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
			return nil
		case <-created.C:
			return fmt.Errorf("the watch was not created within %v", callTimeout)
		case <-changed:
		case <-a.wake:
			a.apply() // another daemon may have got or lost the name of this host
		case r, open := <-events:
			switch {
			case !open:
				return errCut
			case r.CompactRevision != 0:
				return rpctypes.ErrCompacted
			case r.Err() != nil:
				return r.Err()
			}
			if err := a.conn.cluster.check(r.Header); err != nil {
				return err
			}
			created.Stop()
			a.handle(r.Events)
		}
	}
}

// handle applies the events of one watch response.
func (a *applier) handle(events []*clientv3.Event) {
	if len(events) == 0 {
		return
	}
	a.mu.Lock()
	for _, e := range events {
		key := strings.TrimPrefix(string(e.Kv.Key), a.o.Prefix+overridesPrefix)
		if e.Type == clientv3.EventTypePut {
			a.rules.handlePut(key, e.Kv)
		} else {
			a.rules.handleDelete(key, e.Kv.ModRevision)
		}
	}
	a.mu.Unlock()
	a.apply()
}

// read reads the whole of overrides/ as it is at one revision, which it returns, and applies it.
func (a *applier) read(ctx context.Context) (int64, error) {
	prefix := a.o.Prefix + overridesPrefix
	end := clientv3.GetPrefixRangeEnd(prefix)
	kvs := map[string]*mvccpb.KeyValue{}
	var revision int64
	for from := prefix; from != ""; {
		options := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize)}
		if revision != 0 {
			options = append(options, clientv3.WithRev(revision))
		}
		r, err := a.conn.get(ctx, from, options...)
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		if len(kvs) > maxKeys {
			return 0, fmt.Errorf("etcd has more than %d overrides below %s", maxKeys, prefix)
		}
		from = ""
		for _, kv := range r.Kvs {
			key := strings.TrimPrefix(string(kv.Key), prefix)
			// Only this goroutine changes which overrides the rules have.
			if !a.rules.isOurs(key) {
				kv.Value = nil // its revision alone does not count either
				continue
			}
			if len(kv.Value) > maxValue {
				kv.Value = kv.Value[:maxValue+1]
			}
			kvs[key] = kv
		}
		if r.More && len(r.Kvs) > 0 {
			from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
		}
	}
	if a.countIsOld() {
		a.countHosts(ctx)
	}

	a.mu.Lock()
	a.rules.load(kvs, revision)
	first := !a.isRead
	a.isRead, a.noCopy, a.recheck, a.readErr = true, false, true, nil
	if lost := a.rules.lost(); first && len(lost) > 0 {
		a.rules.recordLoss("its key is gone from etcd without a lift record: " + describe(lost[0]))
	}
	a.mu.Unlock()
	a.apply()
	if first {
		close(a.loaded)
	}
	return revision, nil
}

// countIsOld reports whether the hosts have to be counted with the next read. All hosts read again after a cut, and the
// time that etcd needs for a count grows with the number of hosts.
func (a *applier) countIsOld() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.countedAt.IsZero() || time.Since(a.countedAt) >= countEvery
}

// countHosts counts the hosts that are present, for Status and ackDelay.
func (a *applier) countHosts(ctx context.Context) {
	r, err := a.conn.get(ctx, a.o.Prefix+"present/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return
	}
	a.mu.Lock()
	a.present, a.countedAt = int(r.Count), time.Now()
	a.mu.Unlock()
}
