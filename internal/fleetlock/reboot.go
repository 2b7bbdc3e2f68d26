package fleetlock

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"hacheck/internal/admin/wait"
	"hacheck/internal/fleet"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

const (
	pollInterval = 250 * time.Millisecond
	// fall is how many answers with the override a balancer that sends no state gets until it counts as having the host
	// out. It is the default of hadown --fall.
	fall = 3
)

// all is the key of every service of this host.
func all() spool.Key { return spool.Key{Service: spool.All} }

// preReboot takes this host out and returns when the balancers have it out. If ctx ends before the override is written,
// nothing is written. Afterwards the override stays: the client repeats its request, and steady-state lifts it.
func (h *Handler) preReboot(ctx context.Context, c client) *failure {
	w := newBalancerWait(h)
	select {
	case h.changing <- struct{}{}:
	case <-ctx.Done():
		return failureOf(ctx.Err())
	}
	fail := h.takeOut(ctx, c)
	<-h.changing
	if fail != nil {
		return fail
	}
	return w.wait(ctx)
}

// takeOut puts an override on all in force, unless there is one that takes the host out in every respect.
func (h *Handler) takeOut(ctx context.Context, c client) *failure {
	if h.isOut() {
		return nil
	}
	switch e, err := h.Spool.Read(all()); {
	case err == nil && e.State.TakesOut(): // set since isOut
		return nil
	case err == nil:
		by := ""
		if e.By != "" {
			by = " by " + e.By
		}
		return refused("all is forced up" + by + ": " + textfmt.OneLine(e.Reason) + "; lift it with haup all")
	case !errors.Is(err, fs.ErrNotExist):
		return unavailable(err.Error())
	}
	err := h.Fleet.TakeDown(ctx, fleet.Takedown{
		Keys:     []spool.Key{all()},
		Override: spool.Entry{State: spool.Drain, By: By, Reason: "reboot by " + c.ID + " (group " + c.Group + ")"},
	}, func(string) {})
	if errors.Is(err, spool.ErrNotDurable) {
		err = nil // it is in force
	}
	if err != nil {
		return failureOf(err)
	}
	const message = "FleetLock took this host out for a reboot"
	if h.LogLimit.Allow(loglimit.Override, spool.All, message) {
		h.Log.Info(message, "client", c.ID, "group", c.Group)
	}
	return nil
}

// isOut reports whether an override takes every service of this host out. The strongest one decides, so a forced-up
// service is out too.
func (h *Handler) isOut() bool {
	for _, e := range h.Overrides.List() {
		if e.Key == all() && e.State.TakesOut() {
			return true
		}
	}
	return false
}

// steadyState lifts the override that preReboot has set, and no other. The permit is returned by the fleet, when the
// balancers have the host up.
func (h *Handler) steadyState(ctx context.Context, c client) *failure {
	select {
	case h.changing <- struct{}{}:
		defer func() { <-h.changing }()
	case <-ctx.Done():
		return failureOf(ctx.Err())
	}
	e, err := h.Spool.Read(all())
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && e.By != By:
		return nil
	case err != nil:
		return unavailable(err.Error())
	}
	if err := h.Spool.Remove(all()); err != nil && !errors.Is(err, spool.ErrNotDurable) {
		return unavailable(err.Error())
	}
	const message = "FleetLock put this host back after a reboot"
	if h.LogLimit.Allow(loglimit.Override, spool.All, message) {
		h.Log.Info(message, "client", c.ID, "group", c.Group)
	}
	return nil
}

// balancerWait waits until the balancers have this host out.
type balancerWait struct {
	*Handler
	tracker *wait.Tracker
	start   time.Time
}

// newBalancerWait returns a balancerWait that knows which balancers were silent before the change.
func newBalancerWait(h *Handler) *balancerWait {
	w := &balancerWait{
		Handler: h, start: time.Now(),
		tracker: wait.NewTracker([]wait.Target{{Key: all(), Label: spool.All}}, wait.Out, fall),
	}
	w.observe()
	return w
}

// observe reads one report of the balancers.
func (w *balancerWait) observe() {
	requested := time.Since(w.start)
	report := w.Balancers()
	w.tracker.Observe(&report, requested, time.Since(w.start))
}

// wait returns when every balancer has the host out, or the reason why that cannot be said.
func (w *balancerWait) wait(ctx context.Context) *failure {
	w.tracker.SetWritten(time.Since(w.start))
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if !w.isOut() {
			return refused("the override of all was lifted meanwhile, so the host is not out")
		}
		w.observe()
		switch w.tracker.Decide() {
		case wait.Done:
			return nil
		case wait.Lost:
			return unavailable("a balancer is silent for too long" + w.tracker.PendingText() + "; the override stays, ask again")
		case wait.Waiting, wait.Silent:
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return failureOf(ctx.Err())
		case <-limit.C:
			return unavailable("the balancers do not have this host out after " + textfmt.Duration(waitLimit) + w.tracker.PendingText() + "; the override stays, ask again")
		}
	}
}
