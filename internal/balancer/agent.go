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
	alike     int // answers in a row, the last included, with its words
	gaps      gaps
	asked     uint // questions
}

// silence is after how long without a question a is silent.
func (a *agentRow) silence() time.Duration {
	if a.asked < agentKnown {
		return silentAgent
	}
	return max(silentAtLeast, silentIntervals*a.gaps.median(a.asked))
}

// Told enters an answer of the agent door to peer about service, the name of a service or of an instance.
func (t *Table) Told(peer, service, answer string) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := agentKey{peer, service}
	a := t.agents[k]
	if a == nil {
		if !t.roomForAgent(peer) {
			t.forgetAgents(now)
		}
		if !t.roomForAgent(peer) {
			t.notKept.add(t.age(now))
			return
		}
		a = &agentRow{since: now}
		k = agentKey{strings.Clone(peer), strings.Clone(service)}
		t.agents[k] = a
		t.agentPeers[k.peer]++
	}
	if a.asked > 0 {
		a.gaps.add(a.asked, now.Sub(a.at))
	}
	a.asked++
	if words(a.answer) != words(answer) {
		a.since, a.alike = now, 0
	}
	a.answer, a.at = strings.Clone(answer), now
	a.alike++
}

// roomForAgent reports whether one more row of peer's may be kept.
func (t *Table) roomForAgent(peer string) bool {
	return len(t.agents) < maxAgents && t.agentPeers[peer] < maxPeerAgents
}

// words are the two words of an answer, without the reason.
func words(answer string) string {
	w, _, _ := strings.Cut(answer, " #")
	return w
}

// forgetAgents drops who has not asked for long, at most once a second.
func (t *Table) forgetAgents(now time.Time) {
	if now.Sub(t.agentsSwept) < time.Second {
		return
	}
	t.agentsSwept = now
	for k, a := range t.agents {
		if now.Sub(a.at) <= forgetAfter {
			continue
		}
		delete(t.agents, k)
		if t.agentPeers[k.peer]--; t.agentPeers[k.peer] <= 0 {
			delete(t.agentPeers, k.peer)
		}
	}
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
		list = append(list, Agent{
			Service: k.service, Address: k.peer, Answer: a.answer, Ago: ago(now, a.at), Since: ago(now, a.since), Alike: a.alike,
			Known: a.asked >= agentKnown, Silent: now.Sub(a.at) > a.silence(),
		})
	}
	slices.SortFunc(list, func(a, b Agent) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Address, b.Address))
	})
	return list
}
