package admin

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

const (
	pollEvery = 250 * time.Millisecond // between two questions to the daemon
	// bearFor is how long a daemon that has answered before may be away: a restart, or an upgrade.
	bearFor = 10 * time.Second
	// recheck is how many polls pass between two looks at whether the override is still what it was.
	recheck = 4
)

// waitOn is one wait for balancers.
type waitOn struct {
	*command
	*watcher
	o       overrides
	then    *spool.Entry // what is written when all have followed; nil when nothing is
	began   time.Time    // only ever subtracted from, and so by the clock that nobody sets
	signals chan os.Signal
	show    *reporter
}

// since is the clock of the watcher.
func (w *waitOn) since() time.Duration { return time.Since(w.began) }

// changeAndWait takes targets down or up and returns when the balancers have followed.
func (c *command) changeAndWait(o overrides, targets []target, entry spool.Entry) int {
	w := &waitOn{command: c, watcher: newWatcher(targets, c.opt.action == actUp, c.opt.fall), o: o, began: time.Now(), signals: make(chan os.Signal, 1)}
	w.show = newReporter(w)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		// nohup, and a shell that starts something in the background, have a signal ignored, and mean it.
		if !signal.Ignored(sig) {
			signal.Notify(w.signals, sig)
		}
	}
	defer signal.Stop(w.signals)

	// Who is silent already is to be known before anything changes.
	before := w.ask()
	if before.err == nil {
		w.see(before.report, before.asked, before.came)
	}
	write := targets
	if entry.State == spool.Maint {
		maint := entry
		w.then = &maint
		entry.State = spool.Drain
		// What is down or in maintenance already stays so: a drain would let sessions in again.
		write = slices.DeleteFunc(slices.Clone(targets), func(t target) bool {
			e, err := o.read(t)
			return err == nil && e.State >= spool.Down
		})
	}
	if code := w.write(write, entry); code != ExitOK {
		return w.show.end("failed", code, "not every service could be changed, so there is no waiting")
	}
	w.wrote(w.since())
	return w.wait(before.err == nil)
}

// write is apply, told as it goes.
func (w *waitOn) write(targets []target, entry spool.Entry) int {
	done, code := w.apply(w.o, targets, entry)
	if w.opt.json {
		w.show.event(writtenEvent{"written", w.show.after(), changed{w.opt.action, done}})
	}
	return code
}

// polled is what came of asking the daemon.
type polled struct {
	report      *balancer.Report
	err         error
	asked, came time.Duration
}

// ask asks the daemon about the balancers of the targets.
func (w *waitOn) ask() polled {
	service := w.targets[0].key.Service
	for _, t := range w.targets {
		if t.key.Service != service {
			service = spool.All
		}
	}
	a := polled{asked: w.since()}
	a.report, a.err = w.opt.daemon.balancers(service)
	a.came = w.since()
	return a
}

// wait asks until the balancers have followed, and returns the exit code. answered says that the daemon has
// answered before.
func (w *waitOn) wait(answered bool) int {
	defer w.show.clear()
	limit := time.NewTimer(w.opt.wait)
	defer limit.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	answers := make(chan polled, 1) // so that one that comes too late finds room
	asking := false
	last := w.since() // when the daemon was known to be there
	for polls := 0; ; {
		if !asking {
			asking = true
			go func() { answers <- w.ask() }()
		}
		select {
		case sig := <-w.signals:
			return w.interrupted(sig)
		case <-limit.C:
			return w.failed("time is up", ExitStillOpen, fmt.Sprintf("time is up after %s%s", textfmt.Duration(w.opt.wait), w.open()))
		case a := <-answers:
			switch {
			case a.err == nil:
				answered, last = true, a.came
				w.see(a.report, a.asked, a.came)
				w.show.update()
			case !answered || errors.Is(a.err, errNoBalancers) || w.since()-last >= bearFor:
				return w.failed("not known", ExitNotAsked, "what balancers think is not known: "+w.unreachable(a.err))
			default:
				w.show.away(a.err)
			}
			switch w.verdict() {
			case followed:
				if w.then != nil {
					w.show.clear()
					if code := w.write(w.targets, *w.then); code != ExitOK {
						return w.show.end("failed", code, "every balancer has taken it out, but maint could not be written")
					}
				}
				return w.show.success()
			case lost:
				return w.failed("lost", ExitStillOpen, "not every balancer can be waited for"+w.open())
			case waiting, idle:
			}
			if polls++; polls%recheck == 0 {
				if why := w.overtaken(); why != "" {
					return w.failed("overtaken", ExitFailed, why)
				}
			}
			select { // whatever the answer, the next question has its time
			case <-tick.C:
				w.show.draw()
			case sig := <-w.signals:
				return w.interrupted(sig)
			}
			asking = false
		case <-tick.C:
			w.show.draw()
		}
	}
}

// interrupted ends the waiting, and nothing else.
func (w *waitOn) interrupted(sig os.Signal) int {
	code, name := ExitFailed, sig.String()
	if n, ok := sig.(syscall.Signal); ok {
		code = exitSignal + int(n)
	}
	return w.failed("interrupted", code, name+w.open())
}

// failed ends the waiting with a reason, and says what stays.
func (w *waitOn) failed(result string, code int, why string) int {
	stays := make([]string, len(w.targets))
	for i, t := range w.targets {
		stays[i] = w.o.now(t)
	}
	why += "; " + strings.Join(stays, "; ")
	if w.then != nil && result != "overtaken" {
		why += "; maint was not written"
	}
	return w.show.end(result, code, why)
}

// overtaken says why there is nothing to wait for any more: somebody else has changed what the command has
// written, or what is said above it.
func (w *waitOn) overtaken() string {
	for _, t := range w.targets {
		e, err := w.o.read(t)
		if err != nil {
			continue // of no help, and no harm
		}
		switch {
		case !w.up && !isDown(e.State):
			return t.label + " was lifted meanwhile, or its time is over"
		case w.up && isDown(e.State):
			return t.label + " was taken down again meanwhile"
		case w.up:
			for _, k := range t.above() {
				if e, err := w.o.read(target{key: k}); err == nil && isDown(e.State) {
					return fmt.Sprintf("%s is %s, and with it %s; lift it with haup %s", k.Service, word(e.State), t.label, k.Service)
				}
			}
		}
	}
	return ""
}
