package balancer

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/share"
	"hacheck/internal/spool"
)

// agentKey is an address and the service it asks the agent about.
type agentKey struct{ peer, service string }

// agentRow is what the agent answered one address about one service.
type agentRow struct {
	key                 agentKey
	place               *share.Entry[*agentRow]
	answer              string
	answered, sameSince time.Time
	sameAnswers         int // answers in a row, the last included, with the same answerWords
	intervals           intervals
	requests            uint
	weightEnd           time.Time // when the weight ended whose end the answers have said last
	weightEndSince      time.Time // when an answer said so first
}

// silentAfter returns after how long without a request the client is silent.
func (a *agentRow) silentAfter() time.Duration {
	if a.requests < confirmedAgentRequests {
		return unconfirmedAgentSilence
	}
	return SilentAfter(a.intervals.median(a.requests))
}

// RecordAgent records an answer of the agent endpoint to peer. service names a service or an instance.
func (t *Table) RecordAgent(peer, service, answer string) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.agents[agentKey{peer, service}]
	if a == nil {
		if a = t.addAgent(peer, service, now); a == nil {
			t.unrecorded.add(t.uptime(now))
			t.recordUnrecordedAgent(service, clients.NetworkOf(peer), now, now)
			return
		}
	}
	if a.requests > 0 {
		a.intervals.add(a.requests, now.Sub(a.answered))
	}
	a.requests++
	if answerWords(a.answer) != answerWords(answer) {
		a.sameSince, a.sameAnswers = now, 0
	}
	a.answer, a.answered = strings.Clone(answer), now
	a.sameAnswers++
}

// TellsWeightEnd reports whether the next answer to peer has to say that a weight of service ended at ended. It does for
// weightEndTime after the first call, because several agent connections may share the row, and always for a client
// without a row.
func (t *Table) TellsWeightEnd(peer, service string, ended time.Time) bool {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.agents[agentKey{peer, service}]
	if a == nil {
		return true
	}
	if !a.weightEnd.Equal(ended) {
		a.weightEnd, a.weightEndSince = ended, now
	}
	return now.Sub(a.weightEndSince) < weightEndTime
}

// addAgent makes a row. It returns nil if there is no room. t.mu is held.
func (t *Table) addAgent(peer, service string, now time.Time) *agentRow {
	client := clients.NetworkOf(peer)
	for len(t.agents) >= maxAgents {
		if t.removeExpiredAgents(now); len(t.agents) < maxAgents {
			break
		}
		old, ok := t.agentRows.Evict(client)
		if !ok {
			return nil
		}
		delete(t.agents, old.key)
		if now.Sub(old.answered) <= old.silentAfter() {
			t.recordUnrecordedAgent(old.key.service, clients.NetworkOf(old.key.peer), old.answered, now)
		}
	}
	a := &agentRow{key: agentKey{strings.Clone(peer), strings.Clone(service)}, sameSince: now}
	t.agents[a.key] = a
	a.place = t.agentRows.Add(client, a)
	name, _, _ := strings.Cut(service, ":")
	t.unrecordedAgents.expireSoon(name, client, now)
	return a
}

// recordUnrecordedAgent remembers that client asked the agent about service, a service or an instance, and has no row.
func (t *Table) recordUnrecordedAgent(service string, client netip.Prefix, at, now time.Time) {
	name, _, _ := strings.Cut(service, ":")
	t.unrecordedAgents.add(name, client, at, now)
}

// answerWords returns the first two words of an answer, without a weight and without the reason.
func answerWords(answer string) string {
	w, _, _ := strings.Cut(answer, " #")
	if first, rest, ok := strings.Cut(w, " "); ok {
		second, _, _ := strings.Cut(rest, " ")
		w = w[:len(first)+1+len(second)]
	}
	return w
}

// removeExpiredAgents removes expired rows, at most once a second. t.mu is held.
func (t *Table) removeExpiredAgents(now time.Time) {
	if now.Sub(t.agentsExpiredAt) < time.Second {
		return
	}
	t.agentsExpiredAt = now
	for k, a := range t.agents {
		if now.Sub(a.answered) > rowTTL {
			delete(t.agents, k)
			t.agentRows.Remove(a.place)
		}
	}
	if len(t.agents) >= maxAgents {
		t.LogFull("agents", t.agentRows.Largest(), len(t.agents))
	}
}

// reportAgents returns the answers about service, its instances and all, for the service "" every answer.
func (t *Table) reportAgents(service string, now time.Time) []Agent {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []Agent{}
	for k, a := range t.agents {
		name, _, _ := strings.Cut(k.service, ":")
		if service != "" && name != service && name != spool.All || now.Sub(a.answered) > rowTTL {
			continue
		}
		list = append(list, Agent{
			Service: k.service, Address: k.peer, Answer: a.answer, Age: secondsSince(now, a.answered),
			SameFor: secondsSince(now, a.sameSince), SameAnswers: a.sameAnswers,
			Confirmed: a.requests >= confirmedAgentRequests, Silent: now.Sub(a.answered) > a.silentAfter(),
		})
	}
	slices.SortFunc(list, func(a, b Agent) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Address, b.Address))
	})
	return list
}
