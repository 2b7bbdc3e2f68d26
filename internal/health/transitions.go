package health

import (
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
	"hacheck/internal/textfmt"
)

const (
	// maxRemembered is how many targets' last results are remembered for the log, at least. Twice as many may be
	// in memory.
	maxRemembered = 10_000
	// maxShownURI and maxShownErr are how much of a URI and of an error is in a line, in bytes.
	maxShownURI = 200
	maxShownErr = 1000
)

// changes writes one log line when a target's own answer changes between healthy and not, and one for
// each host that is asked for and may not be.
type changes struct {
	log   *slog.Logger
	limit *loglimit.Limiter
	seed  maphash.Seed // so that no asker can foresee a hash

	mu sync.Mutex
	// By the hash of the key, which may be as long as a request. When last is full it becomes before, so a target
	// that is asked about steadily stays known whatever else is asked for.
	last, before map[uint64]change
}

type change struct {
	healthy bool
	since   time.Time
}

// note looks at a new result for the target with that cache key. The first result of a target is worth a
// line only when it is bad.
func (c *changes) note(key string, t *check.Target, r check.Result) {
	if r.Reason == check.ReasonBusy || r.Reason == check.ReasonCancelled {
		return
	}
	healthy := r.Code == http.StatusOK
	now := time.Now()

	hash := maphash.String(c.seed, key)
	c.mu.Lock()
	was, known := c.last[hash]
	if known && was.healthy == healthy {
		c.mu.Unlock()
		return
	}
	if !known {
		was, known = c.before[hash]
	}
	changed := !known || was.healthy != healthy
	if changed {
		c.remember(hash, change{healthy, now})
	} else {
		c.remember(hash, was)
	}
	c.mu.Unlock()
	if !changed || !known && healthy {
		return
	}
	const isUp, isNotUp = "service is up", "service is not up"
	class, message := loglimit.Service, isUp
	if !healthy {
		message = isNotUp
	}
	if !known {
		class = loglimit.Target
	}
	if !c.limit.Allow(class, t.Service, message) {
		return
	}
	args := []any{
		"service", t.Service, "protocol", t.Protocol, "host", t.Host, "port", t.Port, "uri", textfmt.Excerpt(t.URI, maxShownURI),
		"code", r.Code, "took", r.Took.Round(time.Microsecond),
	}
	if known {
		args = append(args, "after", now.Sub(was.since).Round(time.Second))
	}
	if healthy {
		c.log.Info(isUp, args...)
		return
	}
	if r.Err != nil {
		args = append(args, "err", textfmt.Excerpt(r.Err.Error(), maxShownErr))
	}
	c.log.Warn(isNotUp, args...)
}

// remember enters a target's last result. c.mu is held.
func (c *changes) remember(hash uint64, now change) {
	if len(c.last) >= maxRemembered {
		c.before, c.last = c.last, nil
	}
	if c.last == nil {
		c.last = make(map[uint64]change)
	}
	c.last[hash] = now
}

// refusedHost logs once for each client that a check of another host was refused.
func (c *changes) refusedHost(a *Request) {
	const message = "refused to check another host; if it is meant, add it to check_hosts_allowed"
	t := &a.Target
	if network := clients.NetworkOf(a.Client).String(); c.limit.AllowOnce(loglimit.Client, network, message, t.Host) {
		c.log.Warn(message, "host", t.Host, "service", t.Service, "port", t.Port, "client", network)
	}
}
