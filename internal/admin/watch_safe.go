package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// sendState is what to do about a balancer that tells nothing.
const sendState = `add "http-check send-state" to its backend`

// pool is a backend as one balancer sees it.
type pool struct{ address, node, backend string }

// judgeSafe holds what balancers say against taking the targets down, all of them at once. The report was
// asked for that long after the command began. objection says who is against it and why; missing, who has not
// been heard since the command began. When both are empty nobody is against it.
//
// A balancer has nothing against losing servers that it has out already, or whose weights together are less
// than that of all that are usable in the backend: then another one is left.
func judgeSafe(targets []target, r *balancer.Report, asked time.Duration) (objection, missing string) {
	w := newWatcher(targets, false, 1)
	for _, row := range r.Balancers {
		if !row.Silent && slices.ContainsFunc(targets, func(t target) bool { return concerns(t.key, row) }) {
			w.views = append(w.views, &view{key: viewKey{service: row.Service, address: row.Address, node: row.Node, server: row.Server}, row: row})
		}
	}
	names := w.names()
	type share struct {
		weight, total int
		names         []string
	}
	pools := map[pool]*share{}
	late, order := []string{}, []pool{}
	for _, v := range w.views {
		row, name := &v.row, w.label(v)+": "+names[v]
		switch {
		case row.State == "":
			return fmt.Sprintf("%s sends no state, so that what it has left cannot be known; %s", name, sendState), ""
		case seconds(row.RequestAge) > asked: // of before the command
			late = append(late, name)
		case out(row.State):
		case !in(row.State) || row.Weight == nil || row.TotalWeight == nil:
			return fmt.Sprintf("%s says %q and no weights, so that what it has left cannot be known", name, textfmt.OneLine(row.State)), ""
		default:
			backend, _, _ := strings.Cut(row.Server, "/")
			p := pool{row.Address, row.Node, backend}
			s := pools[p]
			if s == nil {
				s = &share{total: *row.TotalWeight}
				pools[p], order = s, append(order, p)
			}
			s.weight += *row.Weight
			s.total = min(s.total, *row.TotalWeight)
			s.names = append(s.names, name)
		}
	}
	alone := ""
	if a := agentAlone(targets, r); a != nil {
		alone = fmt.Sprintf("%s: %s asks the agent and sends no state, so that what it has left cannot be known; check %s by HTTP from there too, and %s",
			textfmt.OneLine(a.Service), textfmt.OneLine(a.Address), textfmt.OneLine(a.Service), sendState)
		if a.Confirmed {
			return alone, ""
		}
	}
	for _, p := range order {
		if s := pools[p]; s.total <= s.weight {
			return fmt.Sprintf("%s: no other server would be left, weight %d of %d", strings.Join(s.names, " and "), s.weight, s.total), ""
		}
	}
	switch {
	case alone != "":
		return "", alone
	case len(late) > 0:
		return "", fmt.Sprintf("%s: has not asked within %s, so that what it has left is not known", strings.Join(late, ", "), textfmt.Duration(safeFor))
	case len(w.views) == 0 && slices.ContainsFunc(targets, func(t target) bool { return asksFor(t, r) }):
		return "", fmt.Sprintf("no balancer that asks sends a state, so that what they have left cannot be known; %s", strings.Replace(sendState, "its", "the", 1))
	case len(w.views) == 0:
		return "", fmt.Sprintf("no balancer has asked within %s, so that what they have left is not known", textfmt.Duration(safeFor))
	}
	for _, t := range targets {
		if !slices.ContainsFunc(w.views, func(v *view) bool { return concerns(t.key, v.row) }) {
			return "", fmt.Sprintf("%s: no balancer has asked about it within %s, so that what they have left is not known", t.label, textfmt.Duration(safeFor))
		}
	}
	if u := unrecorded(targets, r); len(u) > 0 {
		return "", unrecordedText(u[0])
	}
	if seconds(r.Uptime) < quietFor {
		return "", "the daemon has not listened long enough to know who asks"
	}
	return "", ""
}

// agentAlone returns an agent connection about a target from whose address no checks of it come, nil when there is
// none: a balancer as well, of which nothing is known but that it asks. One that is not known for a balancer's is
// returned when there is no other.
func agentAlone(targets []target, r *balancer.Report) *balancer.Agent {
	checked := map[string][]balancer.Balancer{}
	for _, row := range r.Balancers {
		checked[row.Address] = append(checked[row.Address], row)
	}
	var alone *balancer.Agent
	for i, a := range r.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || a.Silent || !slices.ContainsFunc(targets, func(t target) bool { return covers(t.key, key) }) {
			continue
		}
		if slices.ContainsFunc(checked[a.Address], func(row balancer.Balancer) bool { return concerns(key, row) }) {
			continue
		}
		if alone = &r.Agents[i]; a.Confirmed {
			break
		}
	}
	return alone
}

// asksFor says whether somebody has asked about a target lately, balancer or not.
func asksFor(t target, r *balancer.Report) bool {
	w := newWatcher([]target{t}, false, 1)
	w.report = r
	return !w.nobody(t)
}
