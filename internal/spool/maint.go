//go:build unix

package spool

import (
	"sync"
	"time"
)

const (
	maintRemembered = time.Minute // how long it is known that an override said maint
	maxMaints       = 10_000      // keys of which it is known; an operator ends no more of them in a minute
)

// maints remembers which keys an override has said maint about, and when that ended. It is told before the
// snapshot without the override is published: whoever finds no override in a snapshot finds here whether
// one of them has just ended.
type maints struct {
	mu    sync.Mutex
	ended map[Key]time.Time
}

func (m *maints) end(k Key, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ended) >= maxMaints {
		for k, at := range m.ended {
			if now.Sub(at) > maintRemembered {
				delete(m.ended, k)
			}
		}
		if len(m.ended) >= maxMaints {
			return
		}
	}
	if m.ended == nil {
		m.ended = map[Key]time.Time{}
	}
	m.ended[k] = now
}

// MaintEnded returns when the last override that said maint about a target, in the words of Lookup, has
// ended: its file is gone or expired, or says something else. It is the zero time when that was more than a
// minute ago, and for ends beyond the first 10,000 in a minute. What it tells is never older than a Lookup
// that has returned.
func (x *Index) MaintEnded(service, host string, port uint16, here bool) time.Time {
	x.maints.mu.Lock()
	defer x.maints.mu.Unlock()
	var last time.Time
	if len(x.maints.ended) == 0 {
		return last
	}
	for _, k := range newQuery(service, host, port, here).keys() {
		if at := x.maints.ended[k]; at.After(last) {
			last = at
		}
	}
	if time.Since(last) > maintRemembered {
		return time.Time{}
	}
	return last
}
