package balancer

import (
	"net/netip"
	"strings"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

const (
	// unrecordedTTL is how long a request without a row is remembered: four times the longest usual interval.
	unrecordedTTL = 2 * time.Minute
	// relearnTime is how long the daemon needs to learn which balancers ask, also after its start: see package wait.
	relearnTime = 10 * time.Second
	// maxMissed and maxMissedOfClient bound missedRequests.requests, in total and for one client.
	maxMissed         = 1024
	maxMissedOfClient = 128
)

// missedRequests remembers which client asked about which service while a full table had no row for it. If there are
// too many services, it keeps only the time and the client of the last request. The table's lock guards it.
type missedRequests struct {
	requests map[missedKey]missedRequest
	ofClient map[netip.Prefix]int
	swept    time.Time // when expired requests were last removed
	// unnamedAt and unnamedBy are the last request whose service is not in requests.
	unnamedAt time.Time
	unnamedBy netip.Prefix
}

type missedKey struct {
	service string
	client  netip.Prefix
}

type missedRequest struct{ at, until time.Time }

// add remembers that client asked about service at the time at.
func (u *missedRequests) add(service string, client netip.Prefix, at, now time.Time) {
	req := missedRequest{at, at.Add(unrecordedTTL)}
	k := missedKey{service, client}
	if _, ok := u.requests[k]; ok {
		u.requests[k] = req
		return
	}
	full := func() bool { return len(u.requests) >= maxMissed || u.ofClient[client] >= maxMissedOfClient }
	if full() && now.Sub(u.swept) >= time.Second {
		u.swept = now
		for k, req := range u.requests {
			if now.After(req.until) {
				u.remove(k)
			}
		}
	}
	if full() {
		u.unnamedAt, u.unnamedBy = now, client
		return
	}
	if u.requests == nil {
		u.requests, u.ofClient = map[missedKey]missedRequest{}, map[netip.Prefix]int{}
	}
	u.requests[missedKey{strings.Clone(service), client}] = req
	u.ofClient[client]++
}

// expireSoon forgets a request of client about service after relearnTime. The caller has made a row for the two, and
// by then any other request from that network has a row as well.
func (u *missedRequests) expireSoon(service string, client netip.Prefix, now time.Time) {
	k := missedKey{service, client}
	if req, ok := u.requests[k]; ok && req.until.After(now.Add(relearnTime)) {
		req.until = now.Add(relearnTime)
		u.requests[k] = req
	}
}

func (u *missedRequests) remove(k missedKey) {
	delete(u.requests, k)
	if u.ofClient[k.client]--; u.ofClient[k.client] <= 0 {
		delete(u.ofClient, k.client)
	}
}

// appendTo appends the requests about service and all to list, for the service "" every request.
func (u *missedRequests) appendTo(list []UnrecordedClient, service string, now time.Time) []UnrecordedClient {
	for k, req := range u.requests {
		if now.After(req.until) || service != "" && k.service != service && k.service != spool.All {
			continue
		}
		list = append(list, UnrecordedClient{Service: k.service, Client: clientName(k.client), Age: secondsSince(now, req.at)})
	}
	return list
}

// unnamed returns the last request whose service is not in requests, if it came within relearnTime. It counts a request
// after since as one at since. A zero since has no effect.
func (u *missedRequests) unnamed(since, now time.Time) []UnrecordedClient {
	at := u.unnamedAt
	if at.IsZero() {
		return nil
	}
	if !since.IsZero() && since.Before(at) {
		at = since
	}
	if now.Sub(at) > relearnTime {
		return nil
	}
	return []UnrecordedClient{{Client: clientName(u.unnamedBy), Age: secondsSince(now, at)}}
}

// clientName returns the text of a client in a report: an address, or a network of IPv6.
func clientName(client netip.Prefix) string {
	if client.IsSingleIP() {
		return client.Addr().String()
	}
	return client.String()
}

// RecordMissed remembers that peer asked about service at that time. The HTTP server calls it for a row that had to
// make room.
func (t *Table) RecordMissed(service, peer string, at time.Time) {
	now := t.now()
	if now.Sub(at) > unrecordedTTL {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missedServices.add(service, clients.NetworkOf(peer), at, now)
}

// RecordDropped counts and remembers a request about a service for which the HTTP server had no row.
func (t *Table) RecordDropped(service, peer string) {
	now := t.now()
	t.dropped.add(t.uptime(now))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missedServices.add(service, clients.NetworkOf(peer), now, now)
}

// ForgetMissed forgets a missed request of client about service after relearnTime. The HTTP server calls it when its row
// for the service has the client.
func (t *Table) ForgetMissed(service string, client netip.Prefix) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missedServices.expireSoon(service, client, now)
}

// UnnamedMissed returns the last request about a service whose name was not remembered, for Report.Unrecorded. since is
// when the HTTP server made its row for the reported service, zero if it has none: a request after since cannot have
// been about that service.
func (t *Table) UnnamedMissed(since time.Time) []UnrecordedClient {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missedServices.unnamed(since, t.now())
}
