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
	// maxTargets is the number of targets whose last result is remembered. Up to twice as many are in memory.
	maxTargets = 10_000
	// maxURI and maxError are how many bytes of a URI and of an error are in a log line.
	maxURI   = 200
	maxError = 1000
)

// transitionLog writes a log line when the result of a target changes between healthy and unhealthy, and one for each
// host that a client may not check.
type transitionLog struct {
	log   *slog.Logger
	limit *loglimit.Limiter
	seed  maphash.Seed // random, so that no client can find two targets with one hash

	mu sync.Mutex
	// The keys are hashes of cache keys, which may be as long as a request. When current is full it becomes previous:
	// a target that is checked regularly stays in one of them, however many others are checked.
	current, previous map[uint64]transition
}

// transition is the last change of a target's result.
type transition struct {
	healthy bool
	at      time.Time
}

// record records a new result of the target with that cache key. The first result of a target is logged only if it is
// unhealthy.
func (l *transitionLog) record(key string, t *check.Target, r check.Result) {
	if r.Reason == check.ReasonBusy || r.Reason == check.ReasonCancelled {
		return
	}
	now := time.Now()
	healthy := r.Code == http.StatusOK
	last, known, changed := l.update(maphash.String(l.seed, key), transition{healthy, now})
	if !changed || !known && healthy {
		return
	}
	const up, notUp = "service is up", "service is not up"
	class, message := loglimit.Service, up
	if !healthy {
		message = notUp
	}
	if !known {
		class = loglimit.Target
	}
	if !l.limit.Allow(class, t.Service, message) {
		return
	}
	args := []any{
		"service", t.Service, "protocol", t.Protocol, "host", t.Host, "port", t.Port, "uri", textfmt.Excerpt(t.URI, maxURI),
		"code", r.Code, "took", r.Took.Round(time.Microsecond),
	}
	if known {
		args = append(args, "after", now.Sub(last.at).Round(time.Second))
	}
	if healthy {
		l.log.Info(up, args...)
		return
	}
	if r.Err != nil {
		args = append(args, "err", textfmt.Excerpt(r.Err.Error(), maxError))
	}
	l.log.Warn(notUp, args...)
}

// update compares next with the last transition of a target and stores it if it differs. It returns the last transition,
// whether there was one, and whether next differs. The first result of a target counts as different.
func (l *transitionLog) update(target uint64, next transition) (last transition, known, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, known = l.current[target]
	if known && last.healthy == next.healthy {
		return last, true, false
	}
	if !known {
		last, known = l.previous[target]
	}
	changed = !known || last.healthy != next.healthy
	if !changed {
		next = last
	}
	if len(l.current) >= maxTargets {
		l.previous, l.current = l.current, nil
	}
	if l.current == nil {
		l.current = make(map[uint64]transition)
	}
	l.current[target] = next
	return last, known, changed
}

// refusedHost logs, once for each client, that a check of another host was refused.
func (l *transitionLog) refusedHost(r *Request) {
	const message = "refused to check another host; if it is meant, add it to check_hosts_allowed"
	t := &r.Target
	if network := clients.NetworkOf(r.Client).String(); l.limit.AllowOnce(loglimit.Client, network, message, t.Host) {
		l.log.Warn(message, "host", t.Host, "service", t.Service, "port", t.Port, "client", network)
	}
}
