package fleet

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The times of acknowledgements.
const (
	ackRetry     = 200 * time.Millisecond // after the first failure; then longer and longer
	maxAckRetry  = 5 * time.Second
	ackSpread    = 400 * time.Microsecond // for each host that is present: 5,000 hosts write 5,000 values in two seconds
	maxAckSpread = 2 * time.Second
)

// acknowledge writes applied/<host> on change until ctx ends. It also counts the hosts a second time: where all hosts of
// a fleet start together, the first count is too small.
func (a *applier) acknowledge(ctx context.Context) {
	var written applied
	var writtenIn session // the session in which written was written or read
	delay := ackRetry
	recount := time.NewTimer(countEvery + rand.N(countEvery/10))
	defer recount.Stop()
	for {
		changed := a.conn.changeSignal()
		sleep(ctx, a.ackDelay())
		a.mu.Lock()
		want, recheck := a.want, a.recheck
		a.recheck = false
		a.mu.Unlock()
		var retry <-chan time.Time
		var failed error
		if s, err := a.conn.registration(); err == nil && (s != writtenIn || want != written || recheck) {
			if failed = a.writeApplied(ctx, s, want, s != writtenIn || recheck); failed == nil {
				written, writtenIn, delay = want, s, ackRetry
			} else {
				writtenIn = session{} // the outcome may be unknown
				retry, delay = time.After(delay/2+rand.N(delay)), min(2*delay, maxAckRetry)
			}
		}
		a.mu.Lock()
		a.ackErr = failed
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-a.acks:
		case <-changed:
		case <-retry:
		case <-recount.C:
			a.countHosts(ctx)
		}
	}
}

// ackDelay returns how long an acknowledgement waits: a random part of a period that grows with the number of hosts. An
// override of many hosts reaches all of them in the same moment. If they all wrote at once, calls to etcd would time out,
// and their hosts would call and register again.
func (a *applier) ackDelay() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	shared := a.shared
	a.shared = false
	if !shared {
		return 0
	}
	return rand.N(min(time.Duration(a.present)*ackSpread, maxAckSpread) + 1)
}

// writeApplied writes value to applied/<host> as long as this session has the present key. With compare it leaves an
// equal value alone.
func (a *applier) writeApplied(ctx context.Context, s session, value applied, compare bool) error {
	key := a.o.Prefix + "applied/" + a.o.Host
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if compare {
		r, err := a.conn.get(ctx, key)
		if err != nil {
			return err
		}
		if len(r.Kvs) > 0 && string(r.Kvs[0].Value) == string(text) {
			return nil
		}
	}
	r, err := a.conn.commit(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(a.conn.presentKey()), "=", s.lease)},
		[]clientv3.Op{clientv3.OpPut(key, string(text))}, nil)
	if err == nil && !r.Succeeded {
		err = errNotPresent
	}
	return err
}
