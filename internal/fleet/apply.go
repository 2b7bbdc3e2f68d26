package fleet

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"
)

// The times of obeyed.
const (
	reloadEvery  = 5 * time.Minute  // between two complete reads of overrides/
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
	leaving  sync.Mutex // held while the mark of Leave changes, in memory and on disk; before applying

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
	shared  bool          // want changes on many hosts at once
	lossAt  time.Duration // bootTime of the last loss; 0: none
	lossWhy string
	present int // hosts, at countedAt

	countedAt time.Time
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
	if c == nil {
		b.noCopy, wait = true, max(wait, noCopyWait)
		if errors.Is(err, errNoCopy) {
			b.o.Log.Info("fleet: there is no copy of the overrides yet; until etcd is read, the spool alone counts")
		} else {
			b.o.Log.Warn("fleet: the copy of the overrides cannot be read; until etcd is read, the spool alone counts",
				slog.String("error", err.Error()))
		}
	} else {
		if err != nil {
			b.o.Log.Warn("fleet: one of the two copies of the overrides is damaged, and the other one may be older; until etcd is read, it counts",
				slog.String("error", err.Error()))
		}
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
	if !isRead {
		acked = b.acked
	}
	var c *localCopy // nil: the copy on disk has everything, or is at least as good because etcd was not read yet
	if b.maySave() && (!b.saved || isRead && (r.changed || acked != b.acked)) {
		c = b.snapshot(acked)
		r.changed, b.saved = false, false
	}
	b.shared, r.shared = b.shared || r.shared, false
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
	b.acked = acked
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

// recordLoss records that keys of the fleet were deleted.
func (b *obeyed) recordLoss(why string) {
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
