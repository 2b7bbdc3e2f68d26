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
func (a *applier) followDir(ctx context.Context) {
	tick := time.NewTicker(dirEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.checkLeft()
			a.checkCopy()
		}
	}
}

// maySave reports whether this host knows as much as a copy would have: it has read a copy or etcd. The caller holds a.mu.
func (a *applier) maySave() bool { return a.isRead || !a.noCopy }

// checkCopy saves the copy if it is not on disk as this host has left it there.
func (a *applier) checkCopy() {
	a.mu.Lock()
	maySave, saved := a.maySave(), a.saved
	a.mu.Unlock()
	if !maySave {
		return
	}
	if saved {
		err := a.dir.check()
		if err == nil || a.conn.hasOtherCluster() { // else the operator removes the copy because of the other cluster
			return
		}
		a.o.Log.Warn("fleet: the copy of the overrides on disk was removed or damaged; it is written again",
			slog.String("state_dir", a.o.StateDir), slog.String("error", err.Error()))
		a.dir.passGenerations()
		a.mu.Lock()
		a.saved = false
		a.mu.Unlock()
	}
	a.apply()
}

// checkLeft writes the mark of Leave again if it is not on disk.
func (a *applier) checkLeft() {
	a.leaving.Lock()
	defer a.leaving.Unlock()
	a.mu.Lock()
	l := a.left
	a.mu.Unlock()
	if l == nil || a.dir.readLeft() != nil || a.dir.writeLeft(l) != nil {
		return
	}
	a.o.Log.Info("fleet: that this host ignores fleet overrides is on disk again", slog.String("state_dir", a.o.StateDir))
}

// hasOtherCluster reports whether etcd answers with another cluster id than before.
func (c *conn) hasOtherCluster() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, isOther := errors.AsType[*errOtherCluster](c.problem)
	return isOther
}
