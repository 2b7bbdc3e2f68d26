package admin

import (
	"maps"
	"slices"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// agentView is what an agent connection has read.
type agentView struct {
	key  spool.Key
	last time.Duration  // when it last read anything
	out  *time.Duration // when it first read, after the command had written, that the server is out; nil if not
	back *time.Duration // the same for back
}

// agentKey is what is asked about from an address.
type agentKey struct {
	address string
	key     spool.Key
}

// seeAgents takes up what agent connections have read.
func (w *watcher) seeAgents() {
	for _, list := range w.agents { // what does not count any more makes room
		maps.DeleteFunc(list, func(_ string, a *agentView) bool { return w.now-a.last > agentFor })
	}
	maps.DeleteFunc(w.agents, func(_ string, list map[string]*agentView) bool { return len(list) == 0 })
	connections := w.connections()
	for _, a := range w.report.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || seconds(a.Age) > agentFor {
			continue
		}
		list := w.agents[a.Address]
		if list == nil {
			list = map[string]*agentView{}
			w.agents[a.Address] = list
		}
		v := list[a.Service]
		if v == nil {
			v = &agentView{key: key}
			list[a.Service] = v
		}
		v.last = w.now - seconds(a.Age)
		if !w.after(a.Age) || a.SameAnswers > 0 && a.SameAnswers < connections[agentKey{a.Address, key}] {
			continue
		}
		at := v.last
		switch words, _, _ := strings.Cut(a.Answer, " #"); words {
		case "up drain", "ready down", "maint down", "ready drain", "maint drain":
			if v.back = nil; v.out == nil {
				v.out = &at
			}
		default:
			if v.out = nil; v.back == nil {
				v.back = &at
			}
		}
	}
}

// connections says how many agent connections may be behind each that can be told apart, 0 being one. Under -S
// nothing but what they read takes a server out, and what one has read another has not; there is one for each server
// that checks come for from the same address, if it asks about nothing else of the service.
func (w *watcher) connections() map[agentKey]int {
	if !w.report.AgentOnly {
		return nil
	}
	rows := map[string][]balancer.Balancer{}
	for _, row := range w.report.Balancers {
		if !row.Silent {
			rows[row.Address] = append(rows[row.Address], row)
		}
	}
	servers, names := map[agentKey]int{}, map[agentKey]int{}
	for _, a := range w.report.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || seconds(a.Age) > agentFor {
			continue
		}
		n := 0
		for _, row := range rows[a.Address] {
			if concerns(key, row) {
				n++
			}
		}
		if n > 0 {
			servers[agentKey{a.Address, key}] = n
			names[agentKey{a.Address, spool.Key{Service: key.Service}}]++
		}
	}
	for k := range servers {
		servers[k] -= names[agentKey{k.address, spool.Key{Service: k.key.Service}}] - 1
	}
	return servers
}

// seeBareAgents makes a view of each agent connection from which no checks come: a balancer that only
// connects to the server, or only asks the agent.
func (w *watcher) seeBareAgents() {
	for _, a := range w.report.Agents {
		k := viewKey{service: a.Service, address: a.Address, agent: true}
		v := w.agents[a.Address][a.Service]
		if v == nil || !slices.ContainsFunc(w.targets, func(t target) bool { return covers(t.key, v.key) }) || w.checksFrom(k) {
			continue
		}
		at, known := waiting, w.index[k]
		if a.Silent {
			at = idle
		}
		w.take(k, balancer.Balancer{Service: v.key.Service, Port: v.key.Port, Address: a.Address, Last: balancer.Answer{Age: a.Age}, Silent: a.Silent}, at)
		if view := w.index[k]; view != nil {
			view.chance = (known == nil || known.chance) && !a.Confirmed
		}
	}
}

// checksFrom says whether checks come from where an agent connection comes from, about what it asks.
func (w *watcher) checksFrom(agent viewKey) bool {
	key, err := spool.ParseKey(agent.service)
	return err == nil && slices.ContainsFunc(w.checks[agent.address], func(v *view) bool { return concerns(key, v.row) })
}

// agentsOf returns the agent connections that speak for a row's server: from the same address, about the
// service, the instance or all, and not long ago.
func (w *watcher) agentsOf(row balancer.Balancer) []*agentView {
	var list []*agentView
	for _, a := range w.agents[row.Address] {
		if concerns(a.key, row) {
			list = append(list, a)
		}
	}
	return list
}

// agentOut returns when the agent connections that speak for a row had read that the server is out, nil when they
// have not: all that are to read it because of the command, which one about more than its targets is not. Where
// there are none of those, it is when the first of the others had.
func (w *watcher) agentOut(row *balancer.Balancer) *time.Duration {
	var first, last *time.Duration
	for _, a := range w.agentsOf(*row) {
		ours := slices.ContainsFunc(w.targets, func(t target) bool { return covers(t.key, a.key) })
		switch {
		case ours && a.out == nil:
			return nil
		case ours && (last == nil || *a.out > *last):
			last = a.out
		case a.out != nil && (first == nil || *a.out < *first):
			first = a.out
		}
	}
	if last == nil {
		return first
	}
	return last
}
