package check

import (
	"sync"
	"time"
)

// maxSources is how many replicas Sources remembers.
const maxSources = 10_000

// Sources remembers when replicas were last seen connected to their source. A replica that is alone stays healthy for a
// while, which a check that begins anew each time cannot measure.
type Sources struct {
	mu    sync.Mutex
	since time.Time // when the daemon began to look
	seen  map[string]time.Time
}

// NewSources returns an empty memory. Replicas that it has never seen connected count as connected at start.
func NewSources(start time.Time) *Sources {
	return &Sources{since: start, seen: map[string]time.Time{}}
}

// sources returns the memory of the checks with these defaults. Without one each check has its own.
func (d Defaults) sources() *Sources {
	if d.Sources == nil {
		return NewSources(time.Now())
	}
	return d.Sources
}

// connected records that the replica at addr is connected to its source now. When the memory is full, the replica that
// was seen connected the longest time ago is forgotten.
func (s *Sources) connected(addr string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.seen[addr]; !known && len(s.seen) >= maxSources {
		oldest, at := "", now
		for a, t := range s.seen {
			if !t.After(at) {
				oldest, at = a, t
			}
		}
		delete(s.seen, oldest)
	}
	s.seen[addr] = now
}

// alone returns for how long the replica at addr has been without its source, as far as this daemon knows.
func (s *Sources) alone(addr string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.seen[addr]
	if !known {
		last = s.since
	}
	return max(0, now.Sub(last))
}
