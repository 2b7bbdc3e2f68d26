package wait

import (
	"maps"
	"slices"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// agentView is what one agent connection has read.
type agentView struct {
	key         spool.Key
	last        time.Duration  // when it last read an answer
	outAt, upAt *time.Duration // when it first read, after SetWritten, that the server is out or up; nil if it has not
}

// observeAgents takes in what the agent connections have read.
func (t *Tracker) observeAgents() {
	for _, byName := range t.agents {
		maps.DeleteFunc(byName, func(_ string, a *agentView) bool { return t.received-a.last > agentTTL })
	}
	maps.DeleteFunc(t.agents, func(_ string, byName map[string]*agentView) bool { return len(byName) == 0 })
	connections := countAgentConnections(t.report)
	for _, a := range t.report.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || balancer.Duration(a.Age) > agentTTL {
			continue
		}
		byName := t.agents[a.Address]
		if byName == nil {
			byName = map[string]*agentView{}
			t.agents[a.Address] = byName
		}
		v := byName[a.Service]
		if v == nil {
			v = &agentView{key: key}
			byName[a.Service] = v
		}
		v.last = t.received - balancer.Duration(a.Age)
		if !t.isAfterWrite(a.Age) || a.SameAnswers > 0 && a.SameAnswers < connections[agentKey{a.Address, key}] {
			continue
		}
		at := v.last
		switch words, _, _ := strings.Cut(a.Answer, " #"); words {
		case "up drain", "ready down", "maint down", "ready drain", "maint drain":
			if v.upAt = nil; v.outAt == nil {
				v.outAt = &at
			}
		default:
			if v.outAt = nil; v.upAt == nil {
				v.upAt = &at
			}
		}
	}
}

// agentKey is an address and what it asks the agent about.
type agentKey struct {
	address string
	key     spool.Key
}

// countAgentConnections estimates how many agent connections share an address and a key; a missing entry means one. A
// report cannot tell them apart. The estimate is one connection for each server that the address checks under the key,
// less its other keys of the service.
//
// The number matters under -S, where every connection has to read "drain". Otherwise the result is nil.
func countAgentConnections(r *balancer.Report) map[agentKey]int {
	if !r.AgentOnly {
		return nil
	}
	rows := map[string][]balancer.ServerView{}
	for _, row := range r.Balancers {
		if !row.Silent {
			rows[row.Address] = append(rows[row.Address], row)
		}
	}
	servers, keys := map[agentKey]int{}, map[agentKey]int{}
	for _, a := range r.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || balancer.Duration(a.Age) > agentTTL {
			continue
		}
		n := 0
		for _, row := range rows[a.Address] {
			if coversRow(key, row) {
				n++
			}
		}
		if n > 0 {
			servers[agentKey{a.Address, key}] = n
			keys[agentKey{a.Address, spool.Key{Service: key.Service}}]++
		}
	}
	for k := range servers {
		servers[k] -= keys[agentKey{k.address, spool.Key{Service: k.key.Service}}] - 1
	}
	return servers
}

// observeAgentsWithoutChecks makes a view of each agent connection about a target whose address sends no checks of it.
// Such a balancer checks only the port, or asks only the agent.
func (t *Tracker) observeAgentsWithoutChecks() {
	for _, a := range t.report.Agents {
		agent := t.agents[a.Address][a.Service]
		if agent == nil || !coversAgent(t.targets, agent.key) || t.sendsChecks(a.Address, agent.key) {
			continue
		}
		id := ViewID{service: a.Service, address: a.Address, agent: true}
		known, status := t.index[id], Waiting
		if a.Silent {
			status = Silent
		}
		row := balancer.ServerView{
			Service: agent.key.Service, Port: agent.key.Port, Address: a.Address, Last: balancer.Answer{Age: a.Age}, Silent: a.Silent,
		}
		if v := t.setRow(id, row, status); v != nil {
			v.key, v.isTentative = agent.key, (known == nil || known.isTentative) && !a.Confirmed
		}
	}
}

// sendsChecks reports whether an address sends checks of what an agent connection from there asks about.
func (t *Tracker) sendsChecks(address string, key spool.Key) bool {
	return slices.ContainsFunc(t.checks[address], func(v *view) bool { return coversRow(key, v.row) })
}

// agentsOf returns the agent connections of a row's server: from the same address, about its service, its instance or
// all.
func (t *Tracker) agentsOf(row balancer.ServerView) []*agentView {
	var list []*agentView
	for _, a := range t.agents[row.Address] {
		if coversRow(a.key, row) {
			list = append(list, a)
		}
	}
	return list
}

// isInMaintenance reports whether maintenance is why a silent balancer sends no checks of a server: an agent connection
// of the server reads that it is in maintenance, and the checks did not end long before that.
func (t *Tracker) isInMaintenance(row balancer.ServerView) bool {
	return t.hasAgent(row, func(a balancer.Agent) bool {
		return isMaintenance(a) && balancer.Duration(row.RequestAge) <= balancer.Duration(a.SameFor)+silentAfter(row)
	})
}

// mayLeaveMaintenance reports whether an agent connection of a server may have read the end of maintenance so lately
// that the checks have not begun again.
func (t *Tracker) mayLeaveMaintenance(row balancer.ServerView) bool {
	return t.hasAgent(row, func(a balancer.Agent) bool {
		return !isMaintenance(a) && balancer.Duration(a.SameFor) <= t.received+silentAfter(row)
	})
}

func isMaintenance(a balancer.Agent) bool { return strings.HasPrefix(a.Answer, "maint ") }

// hasAgent reports whether an agent connection of a row's server that still asks meets a condition.
func (t *Tracker) hasAgent(row balancer.ServerView, condition func(balancer.Agent) bool) bool {
	return slices.ContainsFunc(t.report.Agents, func(a balancer.Agent) bool {
		key, err := spool.ParseKey(a.Service)
		return err == nil && !a.Silent && a.Address == row.Address && coversRow(key, row) && condition(a)
	})
}

// silentAfter returns after how long without a request the daemon calls the balancer of a row silent.
func silentAfter(row balancer.ServerView) time.Duration {
	return balancer.SilentAfter(balancer.Duration(row.Interval))
}

// agentsOutAt returns when the agent connections of a server had read that it is out, nil if they have not. The
// connections that ask about a target decide: the last of them must have read it. If all connections of the server ask
// about wider keys only, the first that has read it decides.
func (t *Tracker) agentsOutAt(row *balancer.ServerView) *time.Duration {
	var first, last *time.Duration
	for _, a := range t.agentsOf(*row) {
		isTarget := coversAgent(t.targets, a.key)
		switch {
		case isTarget && a.outAt == nil:
			return nil
		case isTarget && (last == nil || *a.outAt > *last):
			last = a.outAt
		case a.outAt != nil && (first == nil || *a.outAt < *first):
			first = a.outAt
		}
	}
	if last == nil {
		return first
	}
	return last
}
