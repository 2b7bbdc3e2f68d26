package daemon

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// stopMargin is added to healthcheck_timeout: the requests in flight have that long after SIGTERM.
	stopMargin = time.Second
	// stopIdle is how long after SIGTERM a connection may stay silent while no check runs.
	stopIdle = time.Second
	// logTimeout is how long the end of the process waits for the log to be written.
	logTimeout = time.Second
)

// stop answers the requests in flight and returns nil, or an error if a second signal cuts them off.
func (d *daemon) stop(s os.Signal, sig signals) error {
	defer d.scripts.Stop() // by then no client waits for a script
	limit := d.config.Load().HealthcheckTimeout + stopMargin
	d.log.Info("stopping; requests in flight are answered first", "signal", s.String(), "limit", limit)
	d.logNotifyError(d.manager.Stopping(limit+logTimeout, "Answering the requests in flight"))
	for _, a := range d.agentServers {
		a.Close() // without an answer: HAProxy keeps the last one
	}
	d.evaluators.stopRenewals()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	endpoints, cutEndpoints := context.WithCancel(ctx)
	defer cutEndpoints()
	done := make(chan error, 1)
	go func() {
		var all sync.WaitGroup
		all.Go(func() { d.services.Load().stop(endpoints) })
		all.Go(func() { d.stopFleet(ctx) })
		err := d.http.Shutdown(ctx)
		all.Wait()
		done <- err
	}()
	go whenIdle(ctx, d.evaluators.isBusy, func() {
		cutEndpoints()
		_ = d.http.Close()
	})
	// The spool index is not closed: the process is about to end, the index leaves nothing half done, and a directory
	// that hangs must not keep the port from the next daemon.
	select {
	case err := <-done:
		if err != nil {
			d.log.Warn("stopped; some connections had to be cut off", "err", err)
			return nil
		}
		d.log.Info("stopped")
		return nil
	case s := <-sig.stop:
		return fmt.Errorf("a second signal (%v): requests in flight were cut off", s)
	}
}

// whenIdle calls cut once isBusy has been false for stopIdle, unless ctx ends first. Shutdown waits for a connection
// that has not sent a byte, and no daemon answers on this host meanwhile.
func whenIdle(ctx context.Context, isBusy func() bool, cut func()) {
	tick := time.NewTicker(stopIdle / 10)
	defer tick.Stop()
	idleSince := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if isBusy() {
				idleSince = now
			} else if now.Sub(idleSince) >= stopIdle {
				cut()
				return
			}
		}
	}
}
