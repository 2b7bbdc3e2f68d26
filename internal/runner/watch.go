package runner

import (
	"context"
	"fmt"
	"time"
)

// watcher repeats rounds as --watch says.
type watcher struct {
	*command
	options  *options
	printer  *printer
	progress *progressLine
}

// run runs one round, or with --watch rounds until all checks pass. It returns the report of the last round. It
// ends early when ctx ends.
func (w *watcher) run(ctx context.Context, jobs []*job) *report {
	start := time.Now()
	tick, stop := w.progress.ticks()
	defer stop()
	for n := 1; ; n++ {
		rep := runRound(ctx, jobs, start, w.printEvent, tick, func(p progress) { w.progress.drawRound(p, time.Since(start)) })
		w.progress.Clear()
		rep.rounds, rep.maxTimeout, rep.took = n, w.options.maxTimeout, time.Since(start)
		failures := rep.count(failed)
		if failures == 0 || w.options.watch == 0 || rep.stopCause != nil {
			return rep
		}
		if w.options.unbuffered {
			_ = w.out.Flush() // finish reports an error
		}
		w.errorf("round %d: %d of %d failed, next in %s", n, failures, len(rep.results), w.options.watch)
		if !w.pause(ctx, tick) {
			rep.stopCause, rep.took = context.Cause(ctx), time.Since(start)
			return rep
		}
	}
}

// printEvent prints e at once if -U is given.
func (w *watcher) printEvent(e event) {
	if !w.options.unbuffered || w.options.output != outputText {
		return
	}
	w.progress.Clear()
	w.printer.printEvent(e)
	_ = w.out.Flush() // finish reports an error
}

// pause waits between two rounds. It returns false if ctx ends first.
func (w *watcher) pause(ctx context.Context, tick <-chan time.Time) bool {
	timer := time.NewTimer(w.options.watch)
	defer timer.Stop()
	until := time.Now().Add(w.options.watch)
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
