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

// Counters count answers and measure checks. They outlive an Evaluator, which a reload of the configuration replaces.
// They are safe for concurrent use.
type Counters struct {
	protocols map[string]*protocolCounters
	cache     [cache.NumStatuses]counter

	renewalsDone, renewalsBusy atomic.Uint64 // see Renewals
}

// DurationBuckets are the upper bounds of the histogram of check durations, in seconds. A longer check counts in none.
var DurationBuckets = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// The indexes of protocolCounters.answers: the reasons of package check, then the states of overrides, then the answer
// of a service with another code than 200.
const (
	firstOverride = 16 // plus the spool.State
	statusReason  = firstOverride + 8
	numReasons    = statusReason + 1
)

type protocolCounters struct {
	answers   [numReasons]counter
	durations [len(DurationBuckets) + 1]atomic.Uint64 // not cumulative
	took      atomic.Int64                            // the sum, in nanoseconds
}

// counter fills a cache line, so that two cores that count different things do not wait for each other.
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

// countAnswer counts one answer.
func (c *Counters) countAnswer(p *protocol, v *Verdict) {
	c.cache[v.Cache].Add(1)
	i := int(v.Result.Reason)
	switch {
	case v.Override != nil:
		i = firstOverride + int(v.OverrideState)
	case v.Result.Reason == check.ReasonAnswered && v.Result.Code != 200:
		i = statusReason
	}
	p.answers[i].Add(1)
}

// countCheck counts one check and its duration.
func (p *protocolCounters) countCheck(took time.Duration) {
	i, _ := slices.BinarySearch(DurationBuckets[:], took.Seconds())
	p.durations[i].Add(1)
	p.took.Add(int64(took))
}

// AnswerCount is the number of answers of one protocol with one reason.
type AnswerCount struct {
	Protocol string
	// Reason is "down", "drain", "maint" or "up" for an override, "status" for an answer of the service with another
	// code than 200, or else the check.Reason.
	Reason string
	N      uint64
}

// Answers returns the counts that are not 0, sorted by protocol and reason.
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
			case i < firstOverride:
				reason = check.Reason(i).String()
			case i < statusReason:
				reason = spool.State(i - firstOverride).String()
			}
			list = append(list, AnswerCount{name, reason, n})
		}
	}
	slices.SortFunc(list, func(a, b AnswerCount) int {
		return cmp.Or(strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.Reason, b.Reason))
	})
	return list
}

// Durations is the histogram of the durations of one protocol's checks.
type Durations struct {
	Protocol string
	Count    uint64
	Sum      time.Duration
	// AtMost is the number of checks that took no longer than each of DurationBuckets.
	AtMost [len(DurationBuckets)]uint64
}

// Durations returns the histograms that are not empty, sorted by protocol.
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
