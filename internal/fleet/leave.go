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
	l := &left{At: time.Now(), By: by}
	f.obeyed.leaving.Lock()
	defer f.obeyed.leaving.Unlock()
	err := f.dir.writeLeft(l)
	f.obeyed.setLeft(l)
	f.o.Log.Warn("fleet: this host ignores fleet overrides from now on", slog.String("by", by))
	if err != nil {
		return fmt.Errorf("this host ignores fleet overrides, but after a restart only if state_dir can be written by then: %w", err)
	}
	return nil
}

// Join ends Leave: this host obeys what it knows at once. The error is an UnavailableError if etcd does not know of it
// yet.
func (f *Fleet) Join(by string) error {
	if err := f.obeyed.join(); err != nil {
		return fmt.Errorf("this host still ignores fleet overrides: %w", err)
	}
	f.o.Log.Info("fleet: this host obeys fleet overrides again", slog.String("by", by))

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	s, err := f.conn.registration()
	if err == nil {
		err = f.obeyed.writeApplied(ctx, s, f.obeyed.wantedApplied(), true)
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
func (b *obeyed) join() error {
	b.leaving.Lock()
	defer b.leaving.Unlock()
	err := b.dir.writeLeft(nil)
	if err == nil {
		b.setLeft(nil)
	}
	return err
}

func (b *obeyed) setLeft(l *left) {
	b.mu.Lock()
	b.left = l
	b.mu.Unlock()
	b.apply()
}

// wantedApplied returns what applied/<host> should have.
func (b *obeyed) wantedApplied() applied {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.want
}
