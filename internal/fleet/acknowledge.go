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
	ackSpread    = 200 * time.Microsecond // for each host that is present: 5,000 hosts write 5,000 values in a second
	maxAckSpread = time.Second
)

// acknowledge writes applied/<host> on change until ctx ends. It also counts the hosts a second time: where all hosts of
// a fleet start together, the first count is too small.
func (b *obeyed) acknowledge(ctx context.Context) {
	var written applied
	var in session // in which written was written or read
	delay := ackRetry
	recount := time.NewTimer(countEvery + rand.N(countEvery/10))
	defer recount.Stop()
	for {
		changed := b.conn.wait()
		sleep(ctx, b.ackDelay())
		b.mu.Lock()
		want, recheck := b.want, b.recheck
		b.recheck = false
		b.mu.Unlock()
		var retry <-chan time.Time
		var failed error
		if s, err := b.conn.registration(); err == nil && (s != in || want != written || recheck) {
			if failed = b.writeApplied(ctx, s, want, s != in || recheck); failed == nil {
				written, in, delay = want, s, ackRetry
			} else {
				in = session{} // the outcome may be unknown
				retry, delay = time.After(delay/2+rand.N(delay)), min(2*delay, maxAckRetry)
			}
		}
		b.mu.Lock()
		b.ackErr = failed
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-b.acks:
		case <-changed:
		case <-retry:
		case <-recount.C:
			b.countHosts(ctx)
		}
	}
}

// ackDelay returns how long an acknowledgement waits. An override of many hosts reaches all of them in the same
// moment: they acknowledge it spread over a time in proportion to their number. etcd queues what it cannot answer, and
// hosts whose calls have timed out would call again, and register again.
func (b *obeyed) ackDelay() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	shared := b.shared
	b.shared = false
	if !shared {
		return 0
	}
	return rand.N(min(time.Duration(b.present)*ackSpread, maxAckSpread) + 1)
}

// writeApplied writes value to applied/<host> as long as this session has the present key. With compare it leaves an
// equal value alone.
func (b *obeyed) writeApplied(ctx context.Context, s session, value applied, compare bool) error {
	key := b.o.Prefix + "applied/" + b.o.Host
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if compare {
		r, err := b.conn.get(ctx, key)
		if err != nil {
			return err
		}
		if len(r.Kvs) > 0 && string(r.Kvs[0].Value) == string(text) {
			return nil
		}
	}
	r, err := b.conn.commit(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(b.conn.presentKey()), "=", s.lease)},
		[]clientv3.Op{clientv3.OpPut(key, string(text))}, nil)
	if err == nil && !r.Succeeded {
		err = errNotPresent
	}
	return err
}
