package runner

import (
	"context"
	"fmt"
	"time"
)

// watcher runs rounds until one is enough.
type watcher struct {
	*command
	o        *options
	printer  *printer
	progress *progressLine
}

// watch runs one round, or with --watch as many as it takes until all pass, and returns what the last one
// has found. It ends early when ctx does.
func (w *watcher) watch(ctx context.Context, jobs []*job) *report {
	start := time.Now()
	tick, release := w.progress.ticks()
	defer release()
	for n := 1; ; n++ {
		rep := runRound(ctx, jobs, start, w.see, tick, func(s progress) { w.progress.drawRound(s, time.Since(start)) })
		w.progress.Clear()
		rep.rounds, rep.maxTimeout, rep.took = n, w.o.maxTimeout, time.Since(start)
		bad := rep.count(failed)
		if bad == 0 || w.o.watch == 0 || rep.stopCause != nil {
			return rep
		}
		if w.o.unbuffered {
			_ = w.out.Flush() // an error comes back at the end
		}
		w.errorf("round %d: %d of %d failed, next in %s", n, bad, len(rep.results), w.o.watch)
		if !w.wait(ctx, tick) {
			rep.stopCause, rep.took = context.Cause(ctx), time.Since(start)
			return rep
		}
	}
}

// see prints an event at once if it is to be.
func (w *watcher) see(e event) {
	if !w.o.unbuffered || w.o.output != outputText {
		return
	}
	w.progress.Clear()
	w.printer.printEvent(e)
	_ = w.out.Flush() // the writer remembers an error, and finish reports it
}

// wait lets the time between two rounds pass; it is false when ctx ends first.
func (w *watcher) wait(ctx context.Context, tick <-chan time.Time) bool {
	timer := time.NewTimer(w.o.watch)
	defer timer.Stop()
	until := time.Now().Add(w.o.watch)
	defer w.progress.Clear()
	for {
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		case <-tick:
			w.progress.Draw(fmt.Sprintf("next round in %.0f s", time.Until(until).Seconds()))
		}
	}
}
