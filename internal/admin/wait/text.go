package wait

import (
	"fmt"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/textfmt"
)

// View is one balancer's view of one server, as a caller shows it.
type View struct {
	ID       ViewID
	Service  string              // of an agent connection: the key that it asks about
	Name     string              // of the balancer and the server: "lb1 (be/web1)"
	Row      balancer.ServerView // the latest
	Status   Status
	Since    time.Duration // when Status began, SetWritten at the earliest
	IsSilent bool          // the balancer sends no requests now
	Text     string        // the state of the server in words. It has no age, so it changes only if something else does
}

// Views returns all views in the order in which they were found.
func (t *Tracker) Views() []View {
	ids := make([]ViewID, len(t.views))
	for i, v := range t.views {
		ids[i] = v.id
	}
	list := make([]View, len(t.views))
	for i, name := range names(ids) {
		v := t.views[i]
		list[i] = View{
			ID: v.id, Service: v.id.service, Name: name, Row: v.row, Status: v.status,
			Since: max(v.since, t.written), IsSilent: v.isSilent, Text: t.describe(v),
		}
	}
	return list
}

// Names returns a name of the balancer and the server of each row: "lb1 (be/web1)".
func Names(rows []balancer.ServerView) []string {
	ids := make([]ViewID, len(rows))
	for i, row := range rows {
		ids[i] = rowID(row)
	}
	return names(ids)
}

// names returns the names of views. A balancer has its node name, with its address if two addresses send the same name,
// or its address alone.
func names(ids []ViewID) []string {
	address := map[string]string{} // by node
	isShared := map[string]bool{}
	for _, id := range ids {
		if other, ok := address[id.node]; ok && other != id.address {
			isShared[id.node] = true
		}
		address[id.node] = id.address
	}
	list := make([]string, len(ids))
	for i, id := range ids {
		node, server := id.node, id.server
		switch {
		case node == "":
			node = id.address
		case isShared[node]:
			node += " at " + id.address
		}
		switch {
		case id.agent:
			server = "agent"
		case server == "":
			server = id.url
		}
		list[i] = textfmt.OneLine(node + " (" + server + ")")
	}
	return list
}

// describe returns what a balancer reported about its server, and why the command still waits for it.
func (t *Tracker) describe(v *view) string {
	row := &v.row
	text := t.describeRow(v)
	switch {
	case v.status == Silent:
		return "has not asked since before this command, not waited for; last known: " + text
	case v.status == Lost:
		return "silent for too long, counts as open; last known: " + text
	case v.isSilent && v.status == Done:
		return fmt.Sprintf("silent, was %s; last known: %s", t.goal, text)
	case v.isSilent:
		return "silent; last known: " + text
	case v.status == Done:
		return fmt.Sprintf("%s: %s", text, t.goal)
	case v.id.agent || row.State == "":
	case t.goal == Up && !IsHealthy(row.Last):
		text += ", last answer " + AnswerText(row.Last)
	case t.goal == Out && t.report.AgentOnly && !takesOut(row.Last) && t.agentsOutAt(row) == nil:
		text += ", its agent check has not got the override yet"
	case t.goal == Out && !t.report.AgentOnly && !t.hasOverride(row):
		text += ", has not got the override yet"
	case t.goal == Out && takesOut(row.Last) && IsStateOut(row.State) && !t.hasStateOfAnswer(row):
		text += ", not down yet"
	}
	return text
}

// describeRow returns what a balancer reported about its server.
func (t *Tracker) describeRow(v *view) string {
	row := &v.row
	switch {
	case v.id.agent && t.hasFollowed(v):
		return "has got the change, open sessions unknown"
	case v.id.agent:
		return "has not got the change yet"
	case row.State == "" && t.goal == Up:
		return "sends no state, last answer " + AnswerText(row.Last)
	case row.State == "" && !takesOut(row.Last) && t.report.AgentOnly:
		return "sends no state, open sessions unknown"
	case row.State == "":
		return fmt.Sprintf("sends no state, got %d of %d answers with the override, open sessions unknown", min(row.OutAnswers, t.fall), t.fall)
	}
	return textfmt.OneLine(row.State) + ", " + sessionsText(row)
}

// AnswerText returns an answer in one word: the override that decided it, or its code.
func AnswerText(a balancer.Answer) string {
	if takesOut(a) || a.Override == "up" {
		return a.Override
	}
	return fmt.Sprint(a.Code)
}

// sessionsText returns how many sessions a balancer has open on a server.
func sessionsText(row *balancer.ServerView) string {
	text := "open sessions unknown"
	if row.Sessions != nil {
		text = textfmt.Count(*row.Sessions, "session") + " open"
	}
	if row.Queued != nil && *row.Queued > 0 {
		text += fmt.Sprintf(", %d waiting", *row.Queued)
	}
	return text
}

// maxPending is how many balancers PendingText lists.
const maxPending = 10

// PendingText returns what the command still waits for, with a colon before it, as the end of a sentence. It returns "" if
// the command waits for nothing.
func (t *Tracker) PendingText() string {
	var list []string
	for _, v := range t.Views() {
		if v.Status == Waiting || v.Status == Lost {
			list = append(list, v.Name+": "+v.Text)
		}
	}
	if len(list) == 0 && t.report != nil {
		for _, target := range t.targets {
			if t.hasBalancer(target) {
				continue
			}
			text := target.Label + " is asked about, but not by a known balancer yet"
			if age, hasRequest := requestAge(target, t.report); !hasRequest {
				text = fmt.Sprintf("no balancer has asked about %s yet, but the daemon has listened for only %s", target.Label, textfmt.Duration(age))
			}
			list = append(list, text)
		}
	}
	if n := len(list) - maxPending; n > 0 {
		list = append(list[:maxPending], fmt.Sprintf("and %d more", n))
	}
	if t.wantsNoConnections {
		for _, target := range t.targets {
			if text := t.ConnectionsText(target); text != "" {
				list = append(list, target.Label+": "+text)
			}
		}
	}
	if text := t.Unrecorded(); text != "" {
		list = append(list, text)
	}
	if t.hasOverflow {
		list = append(list, fmt.Sprintf("there are more than %d balancers, and the command does not watch all of them", maxViews))
	}
	if list == nil {
		return ""
	}
	return ": " + strings.Join(list, "; ")
}
