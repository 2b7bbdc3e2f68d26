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
	// LearnTime is how long the daemon needs after its start until its report has every balancer. A service that got no
	// request for as long has no balancer.
	LearnTime = 10 * time.Second
	// maxUnrecorded and maxUnrecordedOfClient bound unrecordedClients.requests, in total and for one client.
	maxUnrecorded         = 1024
	maxUnrecordedOfClient = 128
)

// unrecordedClients remembers which client asked about which service while a full table had no row for it. If there are
// too many services, it keeps only the time and the client of the last request. The table's lock guards it.
type unrecordedClients struct {
	requests map[unrecordedKey]unrecordedRequest
	ofClient map[netip.Prefix]int
	swept    time.Time // when expired requests were last removed
	// overflowAt and overflowClient are those of the last request whose service is not in requests.
	overflowAt     time.Time
	overflowClient netip.Prefix
}

type unrecordedKey struct {
	service string
	client  netip.Prefix
}

type unrecordedRequest struct{ at, until time.Time }

// add remembers that client asked about service at the time at.
func (u *unrecordedClients) add(service string, client netip.Prefix, at, now time.Time) {
	req := unrecordedRequest{at, at.Add(unrecordedTTL)}
	k := unrecordedKey{service, client}
	if _, ok := u.requests[k]; ok {
		u.requests[k] = req
		return
	}
	full := func() bool { return len(u.requests) >= maxUnrecorded || u.ofClient[client] >= maxUnrecordedOfClient }
	if full() && now.Sub(u.swept) >= time.Second {
		u.swept = now
		for k, req := range u.requests {
			if now.After(req.until) {
				u.remove(k)
			}
		}
	}
	if full() {
		u.overflowAt, u.overflowClient = now, client
		return
	}
	if u.requests == nil {
		u.requests, u.ofClient = map[unrecordedKey]unrecordedRequest{}, map[netip.Prefix]int{}
	}
	u.requests[unrecordedKey{strings.Clone(service), client}] = req
	u.ofClient[client]++
}

// expireSoon forgets a request of client about service after LearnTime. The caller has made a row for the two, and
// by then any other request from that network has a row as well.
func (u *unrecordedClients) expireSoon(service string, client netip.Prefix, now time.Time) {
	k := unrecordedKey{service, client}
	if req, ok := u.requests[k]; ok && req.until.After(now.Add(LearnTime)) {
		req.until = now.Add(LearnTime)
		u.requests[k] = req
	}
}

func (u *unrecordedClients) remove(k unrecordedKey) {
	delete(u.requests, k)
	if u.ofClient[k.client]--; u.ofClient[k.client] <= 0 {
		delete(u.ofClient, k.client)
	}
}

// appendTo appends the requests about service and all to list, for the service "" every request.
func (u *unrecordedClients) appendTo(list []UnrecordedClient, service string, now time.Time) []UnrecordedClient {
	for k, req := range u.requests {
		if now.After(req.until) || service != "" && k.service != service && k.service != spool.All {
			continue
		}
		list = append(list, UnrecordedClient{Service: k.service, Client: clientName(k.client), Age: secondsSince(now, req.at)})
	}
	return list
}

// overflow returns the last request whose service is not in requests, if it came within LearnTime. It counts a request
// after since as one at since. A zero since has no effect.
func (u *unrecordedClients) overflow(since, now time.Time) []UnrecordedClient {
	at := u.overflowAt
	if at.IsZero() {
		return nil
	}
	if !since.IsZero() && since.Before(at) {
		at = since
	}
	if now.Sub(at) > LearnTime {
		return nil
	}
	return []UnrecordedClient{{Client: clientName(u.overflowClient), Age: secondsSince(now, at)}}
}

// clientName returns the text of a client in a report: an address, or a network of IPv6.
func clientName(client netip.Prefix) string {
	if client.IsSingleIP() {
		return client.Addr().String()
	}
	return client.String()
}

// RecordEvicted remembers that peer asked about service at that time. The HTTP server calls it for a row that had to
// make room.
func (t *Table) RecordEvicted(service, peer string, at time.Time) {
	now := t.now()
	if now.Sub(at) > unrecordedTTL {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unrecordedChecks.add(service, clients.NetworkOf(peer), at, now)
}

// RecordUnrecorded counts and remembers a request about a service for which the HTTP server had no row.
func (t *Table) RecordUnrecorded(service, peer string) {
	now := t.now()
	t.unrecorded.add(t.uptime(now))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unrecordedChecks.add(service, clients.NetworkOf(peer), now, now)
}

// ExpireUnrecorded forgets an unrecorded request of client about service after LearnTime. The HTTP server calls it when its row
// for the service has the client.
func (t *Table) ExpireUnrecorded(service string, client netip.Prefix) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unrecordedChecks.expireSoon(service, client, now)
}

// UnrecordedOverflow returns the last request about a service whose name was not remembered, for Report.Unrecorded. since is
// when the HTTP server made its row for the reported service, zero if it has none: a request after since cannot have
// been about that service.
func (t *Table) UnrecordedOverflow(since time.Time) []UnrecordedClient {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unrecordedChecks.overflow(since, t.now())
}
