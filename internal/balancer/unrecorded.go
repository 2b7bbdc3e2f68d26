package balancer

import (
	"net/netip"
	"strings"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

const (
	// unrecordedFor is how long a request counts whose client is in no row: four times the longest usual interval.
	unrecordedFor = 2 * time.Minute
	// relearnFor is how long the daemon needs to know who asks, after its start as well: see admin's quietFor.
	relearnFor = 10 * time.Second
	// maxUnrecorded and maxUnrecordedOf bound the names of services that are remembered, of all and of one client.
	maxUnrecorded   = 1024
	maxUnrecordedOf = 128
)

// unrecorded remembers which client has asked about which service without a row in a table, because the table was
// full. Of more names than it holds it remembers only when the last one was. The table's lock guards it.
type unrecorded struct {
	named map[unrecordedKey]unrecordedAsk
	of    map[netip.Prefix]int
	swept time.Time
	// other is the last request whose service is not remembered by name.
	other   time.Time
	otherBy netip.Prefix
}

type unrecordedKey struct {
	service string
	client  netip.Prefix
}

type unrecordedAsk struct{ at, until time.Time }

// add remembers that client asked about service at that time.
func (u *unrecorded) add(service string, client netip.Prefix, at, now time.Time) {
	ask := unrecordedAsk{at, at.Add(unrecordedFor)}
	k := unrecordedKey{service, client}
	if _, ok := u.named[k]; ok {
		u.named[k] = ask
		return
	}
	full := func() bool { return len(u.named) >= maxUnrecorded || u.of[client] >= maxUnrecordedOf }
	if full() && now.Sub(u.swept) >= time.Second {
		u.swept = now
		for k, ask := range u.named {
			if now.After(ask.until) {
				u.remove(k)
			}
		}
	}
	if full() {
		u.other, u.otherBy = now, client
		return
	}
	if u.named == nil {
		u.named, u.of = map[unrecordedKey]unrecordedAsk{}, map[netip.Prefix]int{}
	}
	u.named[unrecordedKey{strings.Clone(service), client}] = ask
	u.of[client]++
}

// recorded says that client has a row for service from now on. What else asks from there is known soon.
func (u *unrecorded) recorded(service string, client netip.Prefix, now time.Time) {
	k := unrecordedKey{service, client}
	if ask, ok := u.named[k]; ok && ask.until.After(now.Add(relearnFor)) {
		ask.until = now.Add(relearnFor)
		u.named[k] = ask
	}
}

func (u *unrecorded) remove(k unrecordedKey) {
	delete(u.named, k)
	if u.of[k.client]--; u.of[k.client] <= 0 {
		delete(u.of, k.client)
	}
}

// list appends what concerns service, or any service when it is "".
func (u *unrecorded) list(list []Unrecorded, service string, now time.Time) []Unrecorded {
	for k, ask := range u.named {
		if now.After(ask.until) || service != "" && k.service != service && k.service != spool.All {
			continue
		}
		list = append(list, Unrecorded{Service: k.service, Client: clientName(k.client), Ago: ago(now, ask.at)})
	}
	return list
}

// others returns the last request whose service is not remembered by name, if there was one lately. A request after
// since is no concern of the caller's; the zero Time means that all are.
func (u *unrecorded) others(since, now time.Time) []Unrecorded {
	at := u.other
	if at.IsZero() {
		return nil
	}
	if !since.IsZero() && since.Before(at) {
		at = since
	}
	if now.Sub(at) > relearnFor {
		return nil
	}
	return []Unrecorded{{Client: clientName(u.otherBy), Ago: ago(now, at)}}
}

// clientName is a client as the report shows it: an address, or a network of IPv6.
func clientName(client netip.Prefix) string {
	if client.IsSingleIP() {
		return client.Addr().String()
	}
	return client.String()
}

// RecordMissed remembers that a client asked about a service at that time whose row at the HTTP server had to make room.
func (t *Table) RecordMissed(service, peer string, at time.Time) {
	now := t.now()
	if now.Sub(at) > unrecordedFor {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missedServices.add(service, clients.NetworkOf(peer), at, now)
}

// RecordDropped counts a request about a service for which the HTTP server had no room, and remembers it.
func (t *Table) RecordDropped(service, peer string) {
	now := t.now()
	t.notKept.add(t.age(now))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missedServices.add(service, clients.NetworkOf(peer), now, now)
}

// Recorded says that the HTTP server has a row for a service, with the client among its callers.
func (t *Table) Recorded(service string, client netip.Prefix) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missedServices.recorded(service, client, now)
}

// OtherUnrecorded returns the last request about a service whose name is not remembered, for Report.Unrecorded, if
// it matters to a service that has had a row at the HTTP server since that time; the zero Time means that it has none.
func (t *Table) OtherUnrecorded(since time.Time) []Unrecorded {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missedServices.others(since, t.now())
}
