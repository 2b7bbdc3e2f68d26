//go:build unix

package spool

import (
	"sync"
	"time"
)

const (
	maintEndKept = time.Minute // how long it is known that an override said maint
	maxMaintEnds       = 10_000      // keys of which it is known; an operator ends no more of them in a minute
)

// maintEnds remembers which keys an override has said maint about, and when that ended. It is told before the
// snapshot without the override is published: whoever finds no override in a snapshot finds here whether
// one of them has just ended.
type maintEnds struct {
	mu    sync.Mutex
	at map[Key]time.Time
}

func (m *maintEnds) record(k Key, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.at) >= maxMaintEnds {
		for k, at := range m.at {
			if now.Sub(at) > maintEndKept {
				delete(m.at, k)
			}
		}
		if len(m.at) >= maxMaintEnds {
			return
		}
	}
	if m.at == nil {
		m.at = map[Key]time.Time{}
	}
	m.at[k] = now
}

// MaintEnded returns when the last override that said maint about a target, in the words of Lookup, has
// ended: its file is gone or expired, or says something else. It is the zero time when that was more than a
// minute ago, and for ends beyond the first 10,000 in a minute. What it tells is never older than a Lookup
// that has returned.
func (x *Index) MaintEnded(service, host string, port uint16, here bool) time.Time {
	x.maints.mu.Lock()
	defer x.maints.mu.Unlock()
	var last time.Time
	if len(x.maints.at) == 0 {
		return last
	}
	for _, k := range newQuery(service, host, port, here).keys() {
		if at := x.maints.at[k]; at.After(last) {
			last = at
		}
	}
	if time.Since(last) > maintEndKept {
		return time.Time{}
	}
	return last
}
