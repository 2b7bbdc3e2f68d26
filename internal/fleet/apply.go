package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The times of obeyed.
const (
	reloadEvery  = 5 * time.Minute // between two complete reads of overrides/
	retryEvery   = 5 * time.Second // of a state directory that failed
	ackRetry     = 200 * time.Millisecond
	maxAckRetry  = 5 * time.Second
	noCopyWait   = 30 * time.Second // StartWait without a copy
	permitsAfter = 2                // leases after a loss, until permits are granted again
)

// obeyed holds the fleet overrides of this host. It applies each change in the order of the package comment: the index,
// the copy on disk, then applied/<host>.
type obeyed struct {
	o    *Options
	conn *conn
	dir  *stateDir

	wake   chan struct{} // the session has changed
	acks   chan struct{} // applied/<host> may have to be written
	loaded chan struct{} // closed when etcd was read for the first time

	applying sync.Mutex // held while a change is applied; before mu
	quit     bool       // nothing is applied any more; guarded by applying

	mu      sync.Mutex
	rules   *rules
	left    *left
	acked   int64 // largest revision that applied/<host> may have
	dirErr  error // why the copy is not on disk
	saved   bool  // the copy on disk has everything
	noCopy  bool  // the daemon began without a copy and has not read etcd yet
	isRead  bool  // loaded is closed
	readErr error // why overrides/ cannot be read
	ackErr  error // why applied/<host> cannot be written
	want    applied
	recheck bool          // whether etcd still has want
	lossAt  time.Duration // bootTime of the last loss; 0: none
	lossWhy string
	present int // hosts, when last counted
}

func newObeyed(o *Options, c *conn, dir *stateDir) *obeyed {
	return &obeyed{
		o: o, conn: c, dir: dir, rules: newRules(o.Host, o.Groups, o.Log),
		wake: make(chan struct{}, 1), acks: make(chan struct{}, 1), loaded: make(chan struct{}),
	}
}

// start applies the copy, and what the Fleet before this one knew, nil without. It returns how long Open waits for etcd.
func (b *obeyed) start(dirErr error, before *localCopy) time.Duration {
	wait := b.o.StartWait
	b.left = b.dir.readLeft()
	c, err := b.dir.load()
	if before != nil {
		before.merge(c)
		c, err = before, nil
		if dirErr == nil {
			dirErr = b.dir.save(c) // state_dir may be another one
		}
	}
	if err != nil {
		b.noCopy, wait = true, max(wait, noCopyWait)
		if errors.Is(err, errNoCopy) {
			b.o.Log.Info("fleet: there is no copy of the overrides yet; until etcd is read, the spool alone counts")
		} else {
			b.o.Log.Warn("fleet: the copy of the overrides cannot be read; until etcd is read, the spool alone counts",
				slog.String("error", err.Error()))
		}
	} else {
		b.conn.cluster.id.Store(c.Cluster)
		r := b.rules
		r.header, r.revision, b.acked = c.Header, c.Revision, c.Acked
		for key, rec := range c.Records {
			if _, _, err := splitOverrideKey(key); err != nil {
				continue
			}
			if !r.coversHost(key) && !rec.expired(r.now()) {
				b.o.Log.Warn("fleet: override stays in force although its scope does not cover this host any more; haup with its scope lifts it",
					slog.String("override", describe(key)), slog.String("by", rec.Override.By))
			}
			r.records[key] = rec
		}
		maps.Copy(r.ended, c.Ended)
		b.saved = dirErr == nil
	}
	b.dirErr = dirErr
	if b.left != nil {
		b.o.Log.Warn("fleet: this host ignores fleet overrides; hacheck fleet join ends that", slog.String("by", b.left.By))
	}
	b.apply()
	return wait
}

// apply makes what rules say visible to lookups, then saves the copy, then asks for applied/<host> to be written. All
// three have the state of rules at one moment: a later change is applied by its own call.
func (b *obeyed) apply() {
	b.applying.Lock()
	defer b.applying.Unlock()
	if b.quit {
		return
	}
	refused := b.conn.isRefused()
	_, unregistered := b.conn.registration()

	b.mu.Lock()
	r := b.rules
	if unregistered == nil {
		r.own()
	}
	list := r.entries(refused)
	hasLeft := b.left != nil
	if hasLeft {
		list = nil
	}
	acked := min(b.acked, r.revision) // smaller after etcd went back
	if len(r.blocked) == 0 && !hasLeft && b.isRead {
		acked = r.revision
	}
	isRead := b.isRead
	var c *localCopy // nil: the copy on disk has everything, or is at least as good because etcd was not read yet
	if isRead && (r.changed || !b.saved || acked != b.acked) {
		c = b.snapshot(acked)
		r.changed, b.saved = false, false
	}
	if r.loss != "" {
		b.lossAt, b.lossWhy, r.loss = bootTime(), r.loss, ""
	}
	b.mu.Unlock()

	b.o.Overrides.SetFleet(list)
	var err error
	if c != nil {
		if err = b.dir.save(c); err != nil {
			acked = min(b.ackedNow(), acked)
		}
	}

	b.mu.Lock()
	if c != nil {
		b.setDirError(err)
		b.saved = err == nil
	}
	if isRead {
		b.acked = acked
	}
	b.want = applied{V: version, Revision: b.acked, Left: hasLeft, Error: b.ackProblem(), Instance: b.conn.identity.Instance}
	b.mu.Unlock()
	notify(b.acks)
}

// snapshot returns the copy of rules for the disk. The caller holds b.mu.
func (b *obeyed) snapshot(acked int64) *localCopy {
	c := &localCopy{
		Cluster: b.conn.cluster.id.Load(), Header: b.rules.header, Revision: b.rules.revision, Acked: acked,
		Records: map[string]*record{}, Ended: maps.Clone(b.rules.ended),
	}
	for key, rec := range b.rules.records {
		clone := *rec
		c.Records[key] = &clone
	}
	return c
}

func (b *obeyed) ackedNow() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acked
}

// setDirError records and logs whether the copy is on disk. The caller holds b.mu.
func (b *obeyed) setDirError(err error) {
	switch {
	case err == nil && b.dirErr != nil:
		b.o.Log.Info("fleet: the copy of the overrides is on disk again", slog.String("state_dir", b.o.StateDir))
	case err != nil && (b.dirErr == nil || b.dirErr.Error() != err.Error()):
		b.o.Log.Error("fleet: the copy of the overrides cannot be written; they are obeyed from memory and not acknowledged",
			slog.String("state_dir", b.o.StateDir), slog.String("error", err.Error()))
	}
	b.dirErr = err
}

// ackProblem returns why applied/<host> does not follow the overrides, for applied.Error. The caller holds b.mu.
func (b *obeyed) ackProblem() string {
	var problems []string
	if b.dirErr != nil {
		problems = append(problems, "the local copy cannot be written: "+b.dirErr.Error())
	}
	if p := b.rules.problem(); p != "" {
		problems = append(problems, p)
	}
	return cutText(strings.Join(problems, "; "), maxStateSize/2)
}

// cutText returns s with at most n bytes, cut at a character.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

// notify wakes the receiver of a channel with room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sessionChanged is called after each registration and each connection without one.
func (b *obeyed) sessionChanged() { notify(b.wake) }

// noteLoss records that keys of the fleet were deleted.
func (b *obeyed) noteLoss(why string) {
	b.mu.Lock()
	b.lossAt, b.lossWhy = bootTime(), why
	b.mu.Unlock()
}

// permitsHeld reports whether no permit may be granted yet, because etcd has lost keys less than two leases ago.
func (b *obeyed) permitsHeld() (reason string, held bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lossAt == 0 || bootTime()-b.lossAt >= permitsAfter*b.o.Lease {
		return "", false
	}
	left := permitsAfter*b.o.Lease - (bootTime() - b.lossAt)
	return fmt.Sprintf("keys were lost in etcd (%s); permits are granted again in %v", b.lossWhy, left.Round(time.Second)), true
}

// acknowledge writes applied/<host> on change until ctx ends.
func (b *obeyed) acknowledge(ctx context.Context) {
	var written applied
	var in session // in which written was written or read
	delay := ackRetry
	for {
		changed := b.conn.wait()
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
				retry, delay = time.After(delay), min(2*delay, maxAckRetry)
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
		}
	}
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

// retryDir saves the copy again while it is not on disk, until ctx ends.
func (b *obeyed) retryDir(ctx context.Context) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.mu.Lock()
			again := b.isRead && !b.saved
			b.mu.Unlock()
			if again {
				b.apply()
			}
		}
	}
}
