package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Leave makes this host ignore fleet overrides until Join, also over restarts. It needs no etcd. An error says that it
// has left, but not over restarts.
func (f *Fleet) Leave(by string) error {
	l := &left{At: time.Now(), By: by}
	err := f.dir.writeLeft(l)
	f.obeyed.setLeft(l)
	f.o.Log.Warn("fleet: this host ignores fleet overrides from now on", slog.String("by", by))
	if err != nil {
		return fmt.Errorf("this host ignores fleet overrides, but only until the daemon is restarted: %w", err)
	}
	return nil
}

// Join ends Leave: this host obeys what it knows at once. The error is an UnavailableError if etcd does not know of it
// yet.
func (f *Fleet) Join(by string) error {
	err := f.dir.writeLeft(nil)
	if err != nil {
		return fmt.Errorf("this host still ignores fleet overrides: %w", err)
	}
	f.obeyed.setLeft(nil)
	f.o.Log.Info("fleet: this host obeys fleet overrides again", slog.String("by", by))

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	s, err := f.conn.registration()
	if err == nil {
		err = f.obeyed.writeApplied(ctx, s, f.obeyed.wanted(), true)
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

func (b *obeyed) setLeft(l *left) {
	b.mu.Lock()
	b.left = l
	b.mu.Unlock()
	b.apply()
}

func (b *obeyed) wanted() applied {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.want
}
