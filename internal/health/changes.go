package health

import (
	"hash/maphash"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"hacheck/internal/check"
)

const (
	// maxRemembered bounds the targets whose last result, and the strangers whose refusal, is remembered for
	// the log. Past it the memory is begun anew: some lines may then come twice, none is lost by it.
	maxRemembered = 10_000
	// maxLines is how many lines a minute there may be about targets. Whoever may ask can ask for a new one
	// each time, and a log that fills the disk takes more down than hacheck.
	maxLines = 600
	// maxShownURI is how much of a URI is in a line, in bytes.
	maxShownURI = 200
)

// changes writes one log line when a target's own answer changes between healthy and not, and one for
// each host that is asked for and may not be.
type changes struct {
	log  *slog.Logger
	seed maphash.Seed // so that no asker can foresee a hash

	mu        sync.Mutex
	last      map[uint64]change // by the hash of the key, which may be as long as a request
	strangers map[string]struct{}

	minute  time.Time // when the minute began whose lines are counted
	lines   int
	leftOut int
}

// line reports whether there may be a line about a target now, and says how many there were not. c.mu is held.
func (c *changes) line(now time.Time) bool {
	if now.Sub(c.minute) >= time.Minute {
		if c.leftOut > 0 {
			c.log.Warn("too many changes at once: not each service has had its line", "left_out", c.leftOut)
		}
		c.minute, c.lines, c.leftOut = now, 0, 0
	}
	if c.lines >= maxLines {
		c.leftOut++
		return false
	}
	c.lines++
	return true
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
	if c.last == nil || len(c.last) >= maxRemembered {
		c.last = make(map[uint64]change)
	}
	c.last[hash] = change{healthy, now}
	tell := (known || !healthy) && c.line(now)
	c.mu.Unlock()
	if !tell {
		return
	}
	args := []any{
		"service", t.Service, "protocol", t.Protocol, "host", t.Host, "port", t.Port, "uri", cut(t.URI, maxShownURI),
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
	tell := !known && c.line(time.Now())
	c.mu.Unlock()
	if tell {
		c.log.Warn("refused to check another host; if it is meant, add it to check_hosts_allowed",
			"host", t.Host, "service", t.Service, "port", t.Port)
	}
}

// cut is s, with an end that says so when it is longer than n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}
