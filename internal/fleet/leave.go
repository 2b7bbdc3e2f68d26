package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Leave makes this host ignore fleet overrides until Join, also over restarts. It needs no etcd. An error says that it
// has left, but that the mark for restarts is not on disk yet; the daemon tries again.
func (f *Fleet) Leave(by string) error {
	l := &leaveMark{At: time.Now(), By: by}
	f.applier.leaving.Lock()
	defer f.applier.leaving.Unlock()
	err := f.dir.writeLeft(l)
	f.applier.setLeft(l)
	f.o.Log.Warn("fleet: this host ignores fleet overrides from now on", slog.String("by", by))
	if err != nil {
		return fmt.Errorf("this host ignores fleet overrides, but after a restart only if state_dir can be written by then: %w", err)
	}
	return nil
}

// Join ends Leave: this host obeys what it knows at once. The error is an UnavailableError if etcd does not know of it
// yet.
func (f *Fleet) Join(by string) error {
	if err := f.applier.join(); err != nil {
		return fmt.Errorf("this host still ignores fleet overrides: %w", err)
	}
	f.o.Log.Info("fleet: this host obeys fleet overrides again", slog.String("by", by))

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	s, err := f.conn.registration()
	if err == nil {
		err = f.applier.writeApplied(ctx, s, f.applier.wantedApplied(), true)
	}
	var unavailable *UnavailableError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unavailable):
		err = unavailable.Err
	}
	return &UnavailableError{Err: fmt.Errorf("this host obeys fleet overrides again, but that is not published: %w", err)}
}

// join removes the mark of Leave.
func (a *applier) join() error {
	a.leaving.Lock()
	defer a.leaving.Unlock()
	err := a.dir.writeLeft(nil)
	if err == nil {
		a.setLeft(nil)
	}
	return err
}

func (a *applier) setLeft(l *leaveMark) {
	a.mu.Lock()
	a.left = l
	a.mu.Unlock()
	a.apply()
}

// wantedApplied returns what applied/<host> should have.
func (a *applier) wantedApplied() applied {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.want
}
