package health

import (
	"net/http"
	"time"

	"hacheck/internal/check"
)

// ttl returns how long r is cached. It is negative for a result that says nothing about the service.
func (o *Options) ttl(r check.Result) time.Duration {
	switch {
	case r.Reason == check.ReasonBusy || r.Reason == check.ReasonCancelled:
		return -1
	case r.Code == http.StatusOK:
		return o.CacheTime
	}
	return o.CacheTimeDown
}

// size returns the bytes that a result counts against cache_max_bytes: its body, and the key beyond 256 bytes. An ordinary
// key counts nothing. A long one does, so that a client cannot fill the memory with keys.
func size(key string, r check.Result) int { return len(r.Body) + max(0, len(key)-256) }

// appendKey appends the cache key of a check: everything that reaches the service. Two requests with the same key share
// a check. The parts of the key are separated by bytes that no part can contain.
func appendKey(b []byte, p *protocol, t *check.Target) []byte {
	if p.Canonical != nil {
		reached := p.Canonical(*t)
		t = &reached
	}
	hops := t.Hops
	if !p.ForwardsHops {
		hops = 0
	}
	b = append(b, t.Protocol...)
	b = append(b, 0, hops, byte(t.Port>>8), byte(t.Port))
	b = append(b, t.Host...)
	b = append(b, 0)
	b = append(b, t.URI...)
	if p.PerService {
		b = append(b, 0)
		b = append(b, t.Service...)
	}
	for i := range t.Header {
		b = append(b, 0)
		b = append(b, t.Header[i].Name...)
		b = append(b, ':')
		b = append(b, t.Header[i].Value...)
	}
	return b
}
