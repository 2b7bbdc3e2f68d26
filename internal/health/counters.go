package health

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/spool"
)

// Counters count what is answered and how long checks take. They outlive a Judge, which a reload of the
// configuration replaces. They are safe for concurrent use.
type Counters struct {
	protocols map[string]*protocolCounters
	cache     [cache.Statuses]counter
}

// DurationBuckets are the upper bounds, in seconds, of the buckets that the durations of checks are counted
// in; what took longer is in none of them.
var DurationBuckets = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// The outcomes of an answer besides the reasons of package check: overrides, and a service that answered
// that it is not well.
const (
	outcomeOverride = 16 // plus the spool.State
	outcomeStatus   = outcomeOverride + 8
	outcomes        = outcomeStatus + 1
)

type protocolCounters struct {
	answers   [outcomes]counter
	durations [len(DurationBuckets) + 1]atomic.Uint64 // each bucket by itself
	took      atomic.Int64                            // nanoseconds, of all
}

// counter has a cache line of its own: two cores that count different things must not wait for each other.
type counter struct {
	atomic.Uint64
	_ [56]byte
}

// NewCounters returns counters for the protocols of set.
func NewCounters(set check.Set) *Counters {
	c := &Counters{protocols: make(map[string]*protocolCounters, len(set))}
	for name := range set {
		c.protocols[name] = new(protocolCounters)
	}
	return c
}

// answered counts one answer.
func (c *Counters) answered(p *protocol, v *Verdict) {
	c.cache[v.Cache].Add(1)
	i := int(v.Result.Reason)
	switch {
	case v.Override != nil:
		i = outcomeOverride + int(v.State)
	case v.Result.Reason == check.ReasonOK && v.Result.Code != 200:
		i = outcomeStatus
	}
	p.answers[i].Add(1)
}

// ran counts one check that has run.
func (p *protocolCounters) ran(took time.Duration) {
	i, _ := slices.BinarySearch(DurationBuckets[:], took.Seconds())
	p.durations[i].Add(1)
	p.took.Add(int64(took))
}

// AnswerCount is how many answers of one protocol had one reason.
type AnswerCount struct {
	Protocol string
	// Reason is "ok", "down", "drain", "maint" or "up" for an override, "status" for a service that answered
	// with another code than 200, else one of package check's reasons.
	Reason string
	N      uint64
}

// Answers lists the answers by protocol and reason, those that there were.
func (c *Counters) Answers() []AnswerCount {
	var list []AnswerCount
	for name, p := range c.protocols {
		for i := range p.answers {
			n := p.answers[i].Load()
			if n == 0 {
				continue
			}
			reason := "status"
			switch {
			case i < outcomeOverride:
				reason = check.Reason(i).String()
			case i < outcomeStatus:
				reason = spool.State(i - outcomeOverride).String()
			}
			list = append(list, AnswerCount{name, reason, n})
		}
	}
	slices.SortFunc(list, func(a, b AnswerCount) int {
		return cmp.Or(strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.Reason, b.Reason))
	})
	return list
}

// Durations is how long the checks of one protocol took.
type Durations struct {
	Protocol string
	Count    uint64
	Sum      time.Duration
	// AtMost has for each of DurationBuckets how many took no longer.
	AtMost [len(DurationBuckets)]uint64
}

// Durations lists the durations by protocol, of the protocols that have been checked.
func (c *Counters) Durations() []Durations {
	var list []Durations
	for name, p := range c.protocols {
		d := Durations{Protocol: name, Sum: time.Duration(p.took.Load())}
		for i := range p.durations {
			d.Count += p.durations[i].Load()
			if i < len(d.AtMost) {
				d.AtMost[i] = d.Count
			}
		}
		if d.Count > 0 {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b Durations) int { return strings.Compare(a.Protocol, b.Protocol) })
	return list
}
