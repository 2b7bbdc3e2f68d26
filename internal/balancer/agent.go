package balancer

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// agentKey is who asked the agent about what.
type agentKey struct{ peer, service string }

type agentRow struct {
	answer    string
	at, since time.Time
}

// Told enters an answer of the agent door to peer about service, the name of a service or of an instance.
func (t *Table) Told(peer, service, answer string) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := agentKey{peer, service}
	a := t.agents[k]
	if a == nil {
		if len(t.agents) >= maxAgents && !t.forgetAgents(now) {
			t.notKept.add(t.age(now))
			return
		}
		a = &agentRow{since: now}
		t.agents[agentKey{strings.Clone(peer), strings.Clone(service)}] = a
	}
	if words(a.answer) != words(answer) {
		a.since = now
	}
	a.answer, a.at = strings.Clone(answer), now
}

// words are the two words of an answer, without the reason.
func words(answer string) string {
	w, _, _ := strings.Cut(answer, " #")
	return w
}

// forgetAgents drops who has not asked for long, at most once a second, and reports whether there is room.
func (t *Table) forgetAgents(now time.Time) bool {
	if now.Sub(t.agentsSwept) < time.Second {
		return false
	}
	t.agentsSwept = now
	for k, a := range t.agents {
		if now.Sub(a.at) > forgetAfter {
			delete(t.agents, k)
		}
	}
	return len(t.agents) < maxAgents
}

// agentsOf lists the answers about service and its instances and about all, or about anything when it is "".
func (t *Table) agentsOf(service string, now time.Time) []Agent {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []Agent{}
	for k, a := range t.agents {
		name, _, _ := strings.Cut(k.service, ":")
		if service != "" && name != service && name != "all" || now.Sub(a.at) > forgetAfter {
			continue
		}
		list = append(list, Agent{Service: k.service, Address: k.peer, Answer: a.answer, Ago: ago(now, a.at), Since: ago(now, a.since)})
	}
	slices.SortFunc(list, func(a, b Agent) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Address, b.Address))
	})
	return list
}
