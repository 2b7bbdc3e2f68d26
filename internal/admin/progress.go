package admin

import (
	"fmt"
	"strings"
	"time"

	"hacheck/internal/terminal"
	"hacheck/internal/textfmt"
)

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
