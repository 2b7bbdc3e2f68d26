package fleet

import (
	"sync"
	"time"
)

const (
	// absencePrecision is how exactly the beginning of an absence has to be known to be shown.
	absencePrecision = time.Minute
	// maxAbsences bounds the hosts that are remembered.
	maxAbsences = 20_000
)

// absences remembers when other hosts went absent, as far as the reads of this daemon have shown it: etcd does not know.
// It is safe for concurrent use.
type absences struct {
	mu      sync.Mutex
	present map[string]time.Time // when a host was last read as present
	since   map[string]time.Time // when a host was first read as absent
}

// observe takes in what was read at now. It returns since when hosts are absent. A host is left out if more than
// absenceError has passed between the last read that had it and the first one that had not.
func (a *absences) observe(snap *snapshot, now time.Time) map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since == nil || len(a.since) > maxAbsences {
		a.since = map[string]time.Time{}
	}
	for host, last := range a.present {
		if !snap.isPresent(host) && now.Sub(last) <= absencePrecision {
			a.since[host] = now
		}
	}
	a.present = make(map[string]time.Time, len(snap.present))
	for host := range snap.present {
		a.present[host] = now
		delete(a.since, host)
	}
	since := map[string]time.Time{}
	for host, at := range a.since {
		since[host] = at
	}
	return since
}
