package admin

import (
	"fmt"
	"strings"

	"hacheck/internal/balancer"
	"hacheck/internal/textfmt"
)

// names returns what to call the balancer and the server of each view: the name it gives itself, with its
// address where two give the same.
func (w *watcher) names() map[*view]string {
	at := map[string]string{}
	twice := map[string]bool{}
	for _, v := range w.views {
		if other, ok := at[v.key.node]; ok && other != v.key.address {
			twice[v.key.node] = true
		}
		at[v.key.node] = v.key.address
	}
	names := make(map[*view]string, len(w.views))
	for _, v := range w.views {
		who, which := v.key.node, v.key.server
		switch {
		case who == "":
			who = v.key.address
		case twice[who]:
			who += " at " + v.key.address
		}
		switch {
		case v.key.agent:
			which = "agent"
		case which == "":
			which = v.row.URL
		}
		names[v] = textfmt.OneLine(who + " (" + which + ")")
	}
	return names
}

// says is what a balancer says of its server, or what is known of it, without how long ago: the text changes
// when something does.
func (w *watcher) says(v *view) string {
	row := &v.row
	var said string
	switch {
	case v.key.agent && w.follows(v):
		said = "has read it, open sessions unknown"
	case v.key.agent:
		said = "has not read it yet"
	case row.State == "" && w.up:
		said = "sends no state, was told " + toldWord(row.Last)
	case row.State == "" && !takesOut(row.Last.Override) && w.report.AgentOnly:
		said = "sends no state, open sessions unknown"
	case row.State == "":
		said = fmt.Sprintf("told %d of %d times, open sessions unknown", min(row.OutAnswers, w.fall), w.fall)
	default:
		said = textfmt.OneLine(row.State) + ", " + sessions(row)
	}
	switch {
	case v.status == idle:
		return "silent since before, not waited for; last it said: " + said
	case v.status == lost:
		return "silent, counts as open; last it said: " + said
	case v.quiet && v.status == followed:
		return "silent, and it was " + w.goal() + "; last it said: " + said
	case v.quiet:
		return "silent; last it said: " + said
	case v.status == followed:
		return said + ": " + w.goal()
	case v.key.agent || row.State == "":
	case w.up && !healthy(row.Last):
		said += ", was told " + toldWord(row.Last)
	case !w.up && w.report.AgentOnly && !takesOut(row.Last.Override) && w.agentOut(row) == nil:
		said += ", its agent has not read it yet"
	case !w.up && !w.report.AgentOnly && !w.told(row):
		said += ", not told yet"
	case !w.up && takesOut(row.Last.Override) && out(row.State) && !w.outFor(row):
		said += ", not down yet"
	}
	return said
}

// goal is the word for where the server is wanted.
func (w *watcher) goal() string {
	if w.up {
		return "up"
	}
	return "out"
}

// goalLong says what is waited for.
func (w *watcher) goalLong() string {
	if w.up {
		return "up again"
	}
	return "taken out"
}

// label is the service of a view.
func (w *watcher) label(v *view) string { return textfmt.OneLine(v.key.service) }

// toldWord is an answer in a word: the override that decided, or the code.
func toldWord(a balancer.Answer) string {
	if takesOut(a.Override) || a.Override == "up" {
		return a.Override
	}
	return fmt.Sprint(a.Code)
}

// sessions says how many sessions a balancer has open on a server.
func sessions(row *balancer.Balancer) string {
	text := "open sessions unknown"
	if row.Sessions != nil {
		text = textfmt.Count(*row.Sessions, "session") + " open"
	}
	if row.Queued != nil && *row.Queued > 0 {
		text += fmt.Sprintf(", %d waiting", *row.Queued)
	}
	return text
}

// unrecordedText says which client the daemon has no row for, and what to do.
func unrecordedText(u balancer.UnrecordedClient) string {
	client, about := "a client", "a service, perhaps this one,"
	if u.Client != "" {
		client = textfmt.OneLine(u.Client)
	}
	if u.Service != "" {
		about = textfmt.OneLine(u.Service)
	}
	return fmt.Sprintf("%s asked about %s %s ago and the daemon could not record it, because too many services or balancers were asked about: the daemon's log names the client that asked so much; keep it away by a firewall and run the command again",
		client, about, textfmt.Duration(seconds(u.Age)))
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
