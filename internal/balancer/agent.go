package balancer

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/share"
)

// agentKey is who asked the agent about what.
type agentKey struct{ peer, service string }

type agentRow struct {
	key       agentKey
	place     *share.Place[*agentRow]
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

// RecordAgent enters an answer of the agent door to peer about service, the name of a service or of an instance.
func (t *Table) RecordAgent(peer, service, answer string) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.agents[agentKey{peer, service}]
	if a == nil {
		if a = t.addAgent(peer, service, now); a == nil {
			t.notKept.add(t.age(now))
			t.missAgent(service, clients.NetworkOf(peer), now, now)
			return
		}
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

// addAgent makes a row, or returns nil when there is no room. t.mu is held.
func (t *Table) addAgent(peer, service string, now time.Time) *agentRow {
	client := clients.NetworkOf(peer)
	for len(t.agents) >= maxAgents {
		if t.forgetAgents(now); len(t.agents) < maxAgents {
			break
		}
		old, ok := t.agentRows.Displace(client)
		if !ok {
			return nil
		}
		delete(t.agents, old.key)
		if now.Sub(old.at) <= old.silence() {
			t.missAgent(old.key.service, clients.NetworkOf(old.key.peer), old.at, now)
		}
	}
	a := &agentRow{key: agentKey{strings.Clone(peer), strings.Clone(service)}, since: now}
	t.agents[a.key] = a
	a.place = t.agentRows.Add(client, a)
	name, _, _ := strings.Cut(service, ":")
	t.missedAgents.recorded(name, client, now)
	return a
}

// missAgent remembers that a client asked the agent about a service, or an instance of it, without having a row.
func (t *Table) missAgent(service string, client netip.Prefix, at, now time.Time) {
	name, _, _ := strings.Cut(service, ":")
	t.missedAgents.add(name, client, at, now)
}

// words are the two words of an answer, without the reason.
func words(answer string) string {
	w, _, _ := strings.Cut(answer, " #")
	return w
}

// forgetAgents drops who has not asked for long, at most once a second. t.mu is held.
func (t *Table) forgetAgents(now time.Time) {
	if now.Sub(t.agentsSwept) < time.Second {
		return
	}
	t.agentsSwept = now
	for k, a := range t.agents {
		if now.Sub(a.at) > forgetAfter {
			delete(t.agents, k)
			t.agentRows.Remove(a.place)
		}
	}
	if len(t.agents) >= maxAgents {
		t.Full("agents", t.agentRows.Largest(), len(t.agents))
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
