package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// dirEvery is how often a host looks whether its copy is on disk.
const dirEvery = 5 * time.Second

// followDir keeps the copy and the mark of Leave on disk until ctx ends: it writes them again after a failure, and when
// another program has removed or damaged them. A start without etcd would obey less otherwise.
func (b *obeyed) followDir(ctx context.Context) {
	tick := time.NewTicker(dirEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.checkLeft()
			b.checkCopy()
		}
	}
}

// maySave reports whether this host knows as much as a copy would have: it has read a copy or etcd. The caller holds b.mu.
func (b *obeyed) maySave() bool { return b.isRead || !b.noCopy }

// checkCopy saves the copy if it is not on disk as this host has left it there.
func (b *obeyed) checkCopy() {
	b.mu.Lock()
	maySave, saved := b.maySave(), b.saved
	b.mu.Unlock()
	if !maySave {
		return
	}
	if saved {
		err := b.dir.check()
		if err == nil || b.conn.hasOtherCluster() { // else the operator removes the copy because of the other cluster
			return
		}
		b.o.Log.Warn("fleet: the copy of the overrides on disk was removed or damaged; it is written again",
			slog.String("state_dir", b.o.StateDir), slog.String("error", err.Error()))
		b.dir.passGenerations()
		b.mu.Lock()
		b.saved = false
		b.mu.Unlock()
	}
	b.apply()
}

// checkLeft writes the mark of Leave again if it is not on disk.
func (b *obeyed) checkLeft() {
	b.leaving.Lock()
	defer b.leaving.Unlock()
	b.mu.Lock()
	l := b.left
	b.mu.Unlock()
	if l == nil || b.dir.readLeft() != nil || b.dir.writeLeft(l) != nil {
		return
	}
	b.o.Log.Info("fleet: that this host ignores fleet overrides is on disk again", slog.String("state_dir", b.o.StateDir))
}

// hasOtherCluster reports whether etcd answers with another cluster id than before.
func (c *conn) hasOtherCluster() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, isOther := errors.AsType[*errOtherCluster](c.problem)
	return isOther
}
