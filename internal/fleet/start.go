package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Fleet is the daemon's part of a fleet. It is safe for concurrent use.
type Fleet struct {
	o       Options
	dir     *stateDir
	conn    *conn
	applier *applier
	permits *permits

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open applies the local copy of the fleet overrides, waits at most Options.StartWait for etcd (30 s if there is no copy),
// and follows etcd until Close. It fails only if the options are wrong or another daemon uses the state directory.
func Open(o Options) (*Fleet, error) { return open(o, nil) }

// Reopen closes f and opens the fleet of o. The overrides that are in force on this host stay in force, whatever o
// changes. After an error f is closed, and the caller may reopen it with other options.
func (f *Fleet) Reopen(o Options) (*Fleet, error) {
	_ = f.Close()
	return open(o, f.applier.lastCopy())
}

// open opens the fleet of o for a host that knows the overrides of before, nil for none.
func open(o Options, before *localCopy) (*Fleet, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	dir := &stateDir{path: o.StateDir}
	dirErr := dir.open()
	if errors.Is(dirErr, errLocked) {
		return nil, dirErr
	}
	if dirErr != nil {
		o.Log.Error("fleet: state_dir cannot be used; overrides are obeyed from memory and not acknowledged", slog.String("error", dirErr.Error()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := newFleet(o, dir, cancel)
	wait := f.applier.start(dirErr, before)
	for _, run := range []func(context.Context){f.conn.run, f.applier.run, f.applier.acknowledge, f.applier.followDir, f.permits.run} {
		f.wg.Go(func() { run(ctx) })
	}

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-f.applier.loaded:
	case <-timer.C:
		o.Log.Warn("fleet: etcd was not read in time; the daemon goes on with what it knows", slog.Duration("waited", wait))
	}
	return f, nil
}

// newFleet returns a Fleet that does nothing yet.
func newFleet(o Options, dir *stateDir, cancel context.CancelFunc) *Fleet {
	f := &Fleet{o: o, dir: dir, cancel: cancel}
	f.conn = newConn(&f.o, identity{Instance: dir.instance, Boot: bootID()}, &clusterID{})
	f.applier = newApplier(&f.o, f.conn, dir)
	f.permits = newPermits(f)
	f.conn.onSession = func() {
		f.applier.sessionChanged()
		f.permits.sessionChanged()
	}
	f.conn.onLoss = f.applier.recordLoss
	return f
}

// check sets defaults and returns an error if an option is wrong.
func (o *Options) check() error {
	switch {
	case len(o.Endpoints) == 0:
		return errors.New("fleet: no endpoint of etcd")
	case !strings.HasSuffix(o.Prefix, "/"):
		return fmt.Errorf("fleet: prefix %q does not end with a slash", o.Prefix)
	case checkScope(hostPrefix+o.Host) != nil:
		return fmt.Errorf("fleet: %q is no host name: use letters, digits, '.', '_' and '-'", o.Host)
	case o.Lease < time.Second:
		return fmt.Errorf("fleet: lease of %v is too short", o.Lease)
	case o.StateDir == "":
		return errors.New("fleet: no state_dir")
	case o.Credentials == nil || o.Overrides == nil:
		return errors.New("fleet: Credentials and Overrides are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, g := range o.Groups {
		if err := checkScope(groupPrefix + g); err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
	}
	return nil
}

// Close gives the registration back and stops. The overrides of the index stay as they are.
func (f *Fleet) Close() error {
	f.cancel()
	f.wg.Wait()
	f.dir.close()
	return nil
}
