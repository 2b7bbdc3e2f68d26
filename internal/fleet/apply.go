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

// The times of an applier.
const (
	reloadEvery  = 5 * time.Minute  // between two complete reads of overrides/
	noCopyWait   = 30 * time.Second // the shortest StartWait without a copy
	permitsAfter = 2                // leases after a loss, until permits are granted again
)

// applier reads the fleet overrides of this host from etcd and applies each change in the order of O3: the index, the copy
// on disk, then applied/<host>.
type applier struct {
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
	left    *leaveMark
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
	lossWhy string        // what was lost then
	present int           // number of present hosts, at countedAt

	countedAt time.Time
}

func newApplier(o *Options, c *conn, dir *stateDir) *applier {
	return &applier{
		o: o, conn: c, dir: dir, rules: newRules(o.Host, o.Groups, o.Log),
		wake: make(chan struct{}, 1), acks: make(chan struct{}, 1), loaded: make(chan struct{}),
	}
}

// start applies the copy, and what the Fleet before this one knew, nil without. It returns how long Open waits for etcd.
func (a *applier) start(dirErr error, before *localCopy) time.Duration {
	wait := a.o.StartWait
	a.left = a.dir.readLeft()
	c, err := a.dir.load()
	if before != nil {
		before.merge(c)
		c, err = before, nil
		if dirErr == nil {
			dirErr = a.dir.save(c) // state_dir may be another one
		}
	}
	if c == nil {
		a.noCopy, wait = true, max(wait, noCopyWait)
		if errors.Is(err, errNoCopy) {
			a.o.Log.Info("fleet: there is no copy of the overrides yet; until etcd is read, the spool alone counts")
		} else {
			a.o.Log.Warn("fleet: the copy of the overrides cannot be read; until etcd is read, the spool alone counts",
				slog.String("error", err.Error()))
		}
	} else {
		if err != nil {
			a.o.Log.Warn("fleet: one of the two copies of the overrides is damaged, and the other one may be older; until etcd is read, it counts",
				slog.String("error", err.Error()))
		}
		a.conn.cluster.id.Store(c.Cluster)
		r := a.rules
		r.header, r.revision, a.acked = c.Header, c.Revision, c.Acked
		for key, rec := range c.Records {
			if _, _, err := splitOverrideKey(key); err != nil {
				continue
			}
			if !r.coversHost(key) && !rec.expired(r.now()) {
				a.o.Log.Warn("fleet: override stays in force although its scope does not cover this host any more; haup with its scope lifts it",
					slog.String("override", describe(key)), slog.String("by", rec.Override.By))
			}
			r.records[key] = rec
		}
		maps.Copy(r.ended, c.Ended)
		a.saved = dirErr == nil
	}
	a.dirErr = dirErr
	if a.left != nil {
		a.o.Log.Warn("fleet: this host ignores fleet overrides; hacheck fleet join ends that", slog.String("by", a.left.By))
	}
	a.apply()
	return wait
}

// apply makes what rules say visible to lookups, then saves the copy, then asks for applied/<host> to be written. All
// three have the state of rules at one moment: a later change is applied by its own call.
func (a *applier) apply() {
	a.applying.Lock()
	defer a.applying.Unlock()
	if a.quit {
		return
	}
	refused := a.conn.isRefused()
	_, unregistered := a.conn.registration()

	a.mu.Lock()
	r := a.rules
	if unregistered == nil {
		r.markOwn()
	}
	list := r.entries(refused)
	hasLeft := a.left != nil
	if hasLeft {
		list = nil
	}
	acked := min(a.acked, r.revision) // smaller after etcd went back
	if len(r.blocked) == 0 && !hasLeft && a.isRead {
		acked = r.revision
	}
	isRead := a.isRead
	if !isRead {
		acked = a.acked
	}
	var c *localCopy // nil: the copy on disk has everything, or is at least as good because etcd was not read yet
	if a.maySave() && (!a.saved || isRead && (r.changed || acked != a.acked)) {
		c = a.newCopy(acked)
		r.changed, a.saved = false, false
	}
	a.shared, r.shared = a.shared || r.shared, false
	if r.loss != "" {
		a.lossAt, a.lossWhy, r.loss = bootTime(), r.loss, ""
	}
	a.mu.Unlock()

	a.o.Overrides.SetFleet(list)
	var err error
	if c != nil {
		if err = a.dir.save(c); err != nil {
			acked = min(a.ackedNow(), acked)
		}
	}

	a.mu.Lock()
	if c != nil {
		a.setDirError(err)
		a.saved = err == nil
	}
	a.acked = acked
	a.want = applied{V: version, Revision: a.acked, Left: hasLeft, Error: a.ackProblem(), Instance: a.conn.identity.Instance}
	a.mu.Unlock()
	wake(a.acks)
}

// newCopy returns the copy of rules for the disk. The caller holds a.mu.
func (a *applier) newCopy(acked int64) *localCopy {
	c := &localCopy{
		Cluster: a.conn.cluster.id.Load(), Header: a.rules.header, Revision: a.rules.revision, Acked: acked,
		Records: map[string]*record{}, Ended: maps.Clone(a.rules.ended),
	}
	for key, rec := range a.rules.records {
		clone := *rec
		c.Records[key] = &clone
	}
	return c
}

func (a *applier) ackedNow() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.acked
}

// setDirError records and logs whether the copy is on disk. The caller holds a.mu.
func (a *applier) setDirError(err error) {
	switch {
	case err == nil && a.dirErr != nil:
		a.o.Log.Info("fleet: the copy of the overrides is on disk again", slog.String("state_dir", a.o.StateDir))
	case err != nil && (a.dirErr == nil || a.dirErr.Error() != err.Error()):
		a.o.Log.Error("fleet: the copy of the overrides cannot be written; they are obeyed from memory and not acknowledged",
			slog.String("state_dir", a.o.StateDir), slog.String("error", err.Error()))
	}
	a.dirErr = err
}

// ackProblem returns why applied/<host> does not follow the overrides, for applied.Error. The caller holds a.mu.
func (a *applier) ackProblem() string {
	var problems []string
	if a.dirErr != nil {
		problems = append(problems, "the local copy cannot be written: "+a.dirErr.Error())
	}
	if p := a.rules.problem(); p != "" {
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

// sessionChanged is called after each registration and each connection without one.
func (a *applier) sessionChanged() { wake(a.wake) }

// recordLoss records that keys of the fleet were deleted.
func (a *applier) recordLoss(why string) {
	a.mu.Lock()
	a.lossAt, a.lossWhy = bootTime(), why
	a.mu.Unlock()
}

// permitsHeld reports whether no permit may be granted yet, because etcd has lost keys less than two leases ago.
func (a *applier) permitsHeld() (reason string, held bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lossAt == 0 || bootTime()-a.lossAt >= permitsAfter*a.o.Lease {
		return "", false
	}
	left := permitsAfter*a.o.Lease - (bootTime() - a.lossAt)
	return fmt.Sprintf("keys were lost in etcd (%s); permits are granted again in %v", a.lossWhy, left.Round(time.Second)), true
}
