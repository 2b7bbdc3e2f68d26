//go:build unix

package spool

import (
	"sync"
	"time"
)

const (
	maintEndTTL  = time.Minute // how long the end of a maint override is remembered
	maxMaintEnds = 10_000      // keys that are remembered; operators end fewer in a minute
)

// maintEnds remembers when the last maint override of a key has ended. An update records the end before it publishes
// the snapshot without the override, so that a lookup that no longer finds the override finds its end here.
type maintEnds struct {
	mu sync.Mutex
	at map[Key]time.Time
}

// record records that a maint override of k ended at now.
func (m *maintEnds) record(k Key, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.at) >= maxMaintEnds {
		for k, at := range m.at {
			if now.Sub(at) > maintEndTTL {
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

// LastMaintEnd returns when the last maint override that covers a target has ended: its file is gone or expired, or says
// something else. The parameters are those of Lookup. It returns the zero time when that was more than a minute ago,
// and for ends beyond the first 10,000 in a minute. It knows every end that a Lookup has seen before.
func (x *Index) LastMaintEnd(service, host string, port uint16, local bool) time.Time {
	m := &x.pub.maints
	m.mu.Lock()
	defer m.mu.Unlock()
	var last time.Time
	if len(m.at) == 0 {
		return last
	}
	for _, k := range newQuery(service, host, port, local).keys() {
		if at := m.at[k]; at.After(last) {
			last = at
		}
	}
	if time.Since(last) > maintEndTTL {
		return time.Time{}
	}
	return last
}
