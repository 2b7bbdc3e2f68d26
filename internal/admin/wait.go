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
	"hacheck/internal/terminal"
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

// open lists who is still waited for, and who was lost.
func (w *waitOn) open() string {
	var list []string
	names := w.names()
	for _, v := range w.views {
		if v.status == waiting || v.status == lost {
			list = append(list, names[v]+": "+w.says(v))
		}
	}
	if len(list) == 0 {
		for _, t := range w.targets {
			if w.report == nil || w.known(t) {
				continue
			}
			text := t.label + " is asked about, but by none that is known for a balancer yet"
			if quiet, asked := w.quiet(t); !asked {
				text = fmt.Sprintf("nobody has asked about %s yet, but the daemon has listened for %s only", t.label, textfmt.Duration(quiet))
			}
			list = append(list, text)
		}
	}
	const most = 10
	if n := len(list) - most; n > 0 {
		list = append(list[:most], fmt.Sprintf("and %d more", n))
	}
	if w.report != nil {
		if missing := unrecorded(w.targets, w.report); len(missing) > 0 {
			list = append(list, unrecordedText(missing[0]))
		}
	}
	if w.crowded {
		list = append(list, fmt.Sprintf("more than %d balancers ask, and not all are watched", maxViews))
	}
	if list == nil {
		return ""
	}
	return ": " + strings.Join(list, "; ")
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

// above are the keys whose overrides cover a target.
func (t target) above() []spool.Key {
	var keys []spool.Key
	if t.key.Port != 0 {
		keys = append(keys, spool.Key{Service: t.key.Service})
	}
	if t.key.Service != spool.All {
		keys = append(keys, spool.Key{Service: spool.All})
	}
	return keys
}

const (
	remindEvery = 30 * time.Second // how long plain lines may have nothing to say
	calmFor     = 5 * time.Second  // between two lines of a balancer whose sessions alone have changed
	mostShown   = 20               // lines that stay on a terminal when all is over
)

// reporter says how the waiting goes: on a terminal a line for each balancer, drawn again and again, else a
// line when something changes; with --json an event.
type reporter struct {
	w        *waitOn
	screen   *terminal.Block
	said     map[*view]saying
	remind   time.Duration // when the next reminder is due
	trouble  string        // why the daemon cannot be asked now
	restarts int           // that were told
	missing  bool          // clients that are not recorded were named
}

// saying is the latest that was said of a view.
type saying struct {
	text, state string
	status      status
	quiet       bool
	at          time.Duration
}

func newReporter(w *waitOn) *reporter {
	r := &reporter{w: w, screen: &terminal.Block{}, said: map[*view]saying{}, remind: remindEvery}
	if !w.opt.json {
		r.screen = terminal.NewBlock(w.Stdout)
	}
	return r
}

// The events of --json, one a line. "after" is in seconds since the command began.
type (
	writtenEvent struct {
		Event string  `json:"event"` // written
		After float64 `json:"after"`
		changed
	}
	balancerEvent struct {
		Event    string  `json:"event"` // balancer
		After    float64 `json:"after"`
		Status   string  `json:"status"` // waiting, done, silent, lost
		Service  string  `json:"service"`
		Port     uint16  `json:"port,omitempty"`
		Address  string  `json:"address"`
		Node     string  `json:"node,omitempty"`
		Server   string  `json:"server,omitempty"`
		URL      string  `json:"url,omitempty"`
		State    string  `json:"state,omitempty"`
		Sessions *int    `json:"sessions"` // null when not known
		Queued   *int    `json:"queued"`
		Text     string  `json:"text"`
	}
	noteEvent struct {
		Event string  `json:"event"` // note
		After float64 `json:"after"`
		Text  string  `json:"text"`
	}
	endEvent struct {
		Event  string   `json:"event"` // end
		After  float64  `json:"after"`
		Result string   `json:"result"` // out, up, time is up, lost, interrupted, not known, overtaken, refused, failed
		Exit   int      `json:"exit"`   // the exit code
		Open   []string `json:"open"`   // balancers that have not followed
		Text   string   `json:"text"`
	}
)

// after is now, in an event.
func (r *reporter) after() float64 { return float64(r.w.since().Milliseconds()) / 1000 }

// event prints one event at once.
func (r *reporter) event(v any) {
	r.w.document(v)
	_ = r.w.out.Flush() // the writer remembers an error, and Main reports it
}

// line prints one line at once.
func (r *reporter) line(text string) {
	r.screen.Clear()
	r.w.printf("%s\n", text)
	_ = r.w.out.Flush() // as in event
}

// note says what is no balancer's.
func (r *reporter) note(text string) {
	if r.w.opt.json {
		r.event(noteEvent{"note", r.after(), text})
		return
	}
	r.line(text)
}

// away says that the daemon is away, once.
func (r *reporter) away(err error) {
	text := fmt.Sprintf("the daemon on %s cannot be asked: %s; asking on", r.w.opt.daemon, textfmt.OneLine(err.Error()))
	if r.trouble == "" && !r.screen.Live() {
		r.note(text)
	}
	r.trouble = text
	r.draw()
}

// update says what has changed with a report.
func (r *reporter) update() {
	w := r.w
	r.trouble = ""
	if w.restarts > r.restarts {
		r.restarts = w.restarts
		r.note("the daemon was started anew, and learns again who asks")
	}
	if missing := unrecorded(w.targets, w.report); len(missing) > 0 && !r.missing {
		r.missing = true
		r.note(unrecordedText(missing[0]) + "; waiting until it is known who asks")
	}
	if !r.screen.Live() {
		r.changes()
		if w.since() >= r.remind {
			r.remind += remindEvery
			r.note(fmt.Sprintf("still waiting after %s%s", textfmt.Duration(w.since()), w.open()))
		}
	}
	r.draw()
}

// changes prints what has changed.
func (r *reporter) changes() {
	w := r.w
	names := w.names()
	for _, v := range w.views {
		state, _, _ := strings.Cut(v.row.State, " ")
		s := saying{w.says(v), state, v.status, v.quiet, w.now}
		old, before := r.said[v]
		same := old
		same.text, same.at = s.text, s.at
		if before && (old.text == s.text || same == s && s.at-old.at < calmFor) {
			continue
		}
		r.said[v] = s
		if !w.opt.json {
			r.line(w.label(v) + ": " + names[v] + ": " + s.text)
			continue
		}
		e := balancerEvent{
			Event: "balancer", After: r.after(), Status: v.status.String(), Service: v.key.service, Port: v.row.Port,
			Address: v.key.address, Node: v.key.node, Server: v.key.server, URL: v.row.URL,
			State: v.row.State, Sessions: v.row.Sessions, Queued: v.row.Queued, Text: s.text,
		}
		r.event(e)
	}
}

// label is the service of a view.
func (w *watcher) label(v *view) string { return textfmt.OneLine(v.key.service) }

// draw draws the lines of a terminal.
func (r *reporter) draw() {
	w := r.w
	if !r.screen.Live() || w.report == nil {
		return
	}
	names := w.names()
	var rows [][]string
	count := 0
	// Who is waited for comes first: there may be no room for all.
	for _, st := range []status{lost, waiting, followed, idle} {
		for _, v := range w.views {
			if v.status != st {
				continue
			}
			if st == followed {
				count++
			}
			rows = append(rows, []string{"  " + w.label(v), names[v], textfmt.Duration(w.since() - max(v.since, w.written)), w.says(v)})
		}
	}
	head := fmt.Sprintf("%s: %s of %s, %s of %s", w.goalLong(), fmt.Sprint(count), textfmt.Count(len(w.views), "balancer"), textfmt.Duration(w.since()-w.written), textfmt.Duration(w.opt.wait))
	if len(w.views) == 0 {
		head = fmt.Sprintf("waiting for a balancer to ask, %s of %s", textfmt.Duration(w.since()-w.written), textfmt.Duration(w.opt.wait))
	}
	if r.trouble != "" {
		head += "; " + r.trouble
	}
	lines := append([]string{head}, strings.Split(strings.TrimSuffix(table(rows), "\n"), "\n")...)
	if room := r.screen.Rows(); len(lines) > room && room > 2 {
		lines = append(lines[:room-1], fmt.Sprintf("  and %d more", len(lines)-room+1))
	}
	r.screen.Draw(lines...)
}

// goalLong says what is waited for.
func (w *watcher) goalLong() string {
	if w.up {
		return "up again"
	}
	return "taken out"
}

// clear takes the lines of a terminal away.
func (r *reporter) clear() { r.screen.Clear() }

// rest leaves on a terminal what was said last of each balancer.
func (r *reporter) rest() {
	if !r.screen.Live() || r.w.report == nil {
		return
	}
	r.clear()
	names := r.w.names()
	for i, v := range r.w.views {
		if i == mostShown {
			r.line(fmt.Sprintf("and %d more", len(r.w.views)-i))
			break
		}
		r.line(r.w.label(v) + ": " + names[v] + ": " + r.w.says(v))
	}
}

// success ends with ExitOK and says for each target what that means.
func (r *reporter) success() int {
	w := r.w
	r.rest()
	var all []string
	for _, t := range w.targets {
		n := 0
		for _, v := range w.views {
			if v.status == followed && w.about(t, v) {
				n++
			}
		}
		text := fmt.Sprintf("%s: nobody has asked about it for %s, so there is no balancer to wait for", t.label, textfmt.Duration(quietFor))
		if n > 0 {
			text = fmt.Sprintf("%s: %s with %s after %s", t.label, w.goal(), textfmt.Count(n, "balancer"), textfmt.Duration(w.since()-w.written))
		}
		all = append(all, text)
		if !w.opt.json {
			r.line(text)
		}
	}
	if w.opt.json {
		r.event(endEvent{"end", r.after(), w.goal(), ExitOK, []string{}, strings.Join(all, "; ")})
	}
	return ExitOK
}

// end ends otherwise.
func (r *reporter) end(result string, code int, why string) int {
	r.rest()
	r.w.errorf("%s", why)
	if r.w.opt.json {
		open := []string{}
		names := r.w.names()
		for _, v := range r.w.views {
			if v.status == waiting || v.status == lost {
				open = append(open, names[v])
			}
		}
		r.event(endEvent{"end", r.after(), result, code, open, why})
	}
	return code
}
