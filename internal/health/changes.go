package health

import (
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"hacheck/internal/check"
)

// maxRemembered bounds the targets whose last result, and the strangers whose refusal, is remembered for
// the log. Past it the memory is begun anew: some lines may then come twice, none is lost.
const maxRemembered = 10_000

// changes writes one log line when a target's own answer changes between healthy and not, and one for
// each host that is asked for and may not be.
type changes struct {
	log *slog.Logger

	mu        sync.Mutex
	last      map[string]change
	strangers map[string]struct{}
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

	c.mu.Lock()
	was, known := c.last[key]
	if known && was.healthy == healthy {
		c.mu.Unlock()
		return
	}
	if c.last == nil || len(c.last) >= maxRemembered {
		c.last = make(map[string]change)
	}
	c.last[key] = change{healthy, now}
	c.mu.Unlock()

	if !known && healthy {
		return
	}
	args := []any{
		"service", t.Service, "protocol", t.Protocol, "host", t.Host, "port", t.Port, "uri", t.URI,
		"code", r.Code, "took", r.Took.Round(time.Microsecond),
	}
	if known {
		args = append(args, "after", now.Sub(was.since).Round(time.Second))
	}
	if healthy {
		c.log.Info("service is up", args...)
		return
	}
	if r.Err != nil {
		args = append(args, "err", r.Err)
	}
	c.log.Warn("service is not up", args...)
}

// stranger notes that a check of another host was refused.
func (c *changes) stranger(t *check.Target) {
	c.mu.Lock()
	_, known := c.strangers[t.Host]
	if !known {
		if c.strangers == nil || len(c.strangers) >= maxRemembered {
			c.strangers = make(map[string]struct{})
		}
		c.strangers[strings.Clone(t.Host)] = struct{}{}
	}
	c.mu.Unlock()
	if !known {
		c.log.Warn("refused to check another host; if it is meant, add it to check_hosts_allowed",
			"host", t.Host, "service", t.Service, "port", t.Port)
	}
}
