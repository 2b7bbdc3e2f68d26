//go:build unix

package agent

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/spool"
)

const (
	// maintRecordTime is how long checks are recorded after an answer of maint. HAProxy asks more often than that.
	maintRecordTime = time.Minute
	// maxPassedChecks bounds the records, at most four of them a target. A record beyond the bound clears all others;
	// a target that comes back from maint then waits for its next check.
	maxPassedChecks = 100_000
)

// loopback is the host under which a check by a loopback address or by a host name is recorded.
const loopback = "127.0.0.1"

// PassedChecks records when checks have last passed. It records only while a target is in maint or has
// just left it; the rest of the time a check costs one atomic load. The zero value is ready to
// use. It is safe for concurrent use.
type PassedChecks struct {
	recordUntil atomic.Pointer[time.Time] // nil: nothing is recorded

	mu     sync.Mutex
	latest map[passedKey]time.Time // the latest start of a check that has passed
}

// passedKey is a key that a check has passed for.
type passedKey struct {
	spool.Key
	allPorts bool // a check without a port has passed: it counts for all instances of the service
}

// recordFor records passed checks until at least d from now.
func (s *PassedChecks) recordFor(d time.Duration) {
	until := time.Now().Add(d)
	for {
		old := s.recordUntil.Load()
		if old != nil && !old.Before(until) || s.recordUntil.CompareAndSwap(old, &until) {
			return
		}
	}
}

// OverrideChanged must be called for each change of an override, as spool.IndexOptions.OnChange.
func (s *PassedChecks) OverrideChanged(c spool.Change) {
	if c.Old != nil && c.Old.State == spool.Maint {
		s.recordFor(recheckTimeout)
	}
}

// CheckFinished must be called for each check that has run, as health.Options.OnResult.
func (s *PassedChecks) CheckFinished(t *check.Target, r check.Result, began time.Time) {
	until := s.recordUntil.Load()
	if until == nil {
		return
	}
	if time.Now().After(*until) {
		if s.recordUntil.CompareAndSwap(until, nil) {
			s.mu.Lock()
			s.latest = nil
			s.mu.Unlock()
		}
		return
	}
	if r.Code != http.StatusOK {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || len(s.latest) >= maxPassedChecks {
		s.latest = map[passedKey]time.Time{}
	}
	record := func(k spool.Key, allPorts bool) {
		if key := (passedKey{k, allPorts}); began.After(s.latest[key]) {
			s.latest[key] = began
		}
	}
	k := spool.Key{Service: t.Service, Port: t.Port}
	if t.Port == 0 {
		record(k, true)
	} else if k.Host = spool.CanonicalHost(t.Host); !isOtherAddress(k.Host) {
		k.Host = loopback
	}
	for _, covering := range k.CoveringKeys(true) {
		record(covering, false)
	}
}

// isOtherAddress reports whether host is an IP address and not a loopback address.
func isOtherAddress(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && !addr.IsLoopback()
}

// passedSince reports whether a check that counts for k has passed and was started after t. local says that k.Host
// is an address of this machine: a check by a loopback address counts as well then.
func (s *PassedChecks) passedSince(k spool.Key, local bool, t time.Time) bool {
	s.recordFor(recheckTimeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	passed := func(k spool.Key, allPorts bool) bool { return s.latest[passedKey{k, allPorts}].After(t) }
	switch {
	case k.Service == spool.All:
		return passed(spool.Key{Service: spool.All}, false)
	case passed(k, false), k.Port != 0 && passed(spool.Key{Service: k.Service}, true):
		return true
	default:
		return local && k.Host != "" && passed(spool.Key{Service: k.Service, Host: loopback, Port: k.Port}, false)
	}
}
