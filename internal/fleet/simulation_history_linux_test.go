package fleet

import (
	"slices"
	"testing"
)

// TestSimulationHistory: the observer of the simulation finds each violation. The clock is written at revisions 10,
// 20, and so on up to 90, each at the time of its revision. a and b are hosts of web.
func TestSimulationHistory(t *testing.T) {
	t.Parallel()
	permit := func(host string, revision int64) permitChange {
		return permitChange{host, []string{"web"}, host, revision, true}
	}
	returned := func(host string, revision int64) permitChange { return permitChange{host: host, revision: revision} }
	event := func(at int64, what simEvent, host string, claim int64) workerEvent {
		return workerEvent{At: at, What: what, Host: host, Service: "web", Claim: claim, Answer: map[simEvent]string{eventAnswer: answerGranted}[what]}
	}
	// out is a granted claim of a host that is out from one time to another.
	out := func(host string, claim, from, to int64) []workerEvent {
		return []workerEvent{
			event(from-1, eventAsk, host, claim), event(from, eventDown, host, 0), event(from, eventWrite, host, 0),
			event(from+1, eventAnswer, host, claim), event(to, eventUp, host, 0),
		}
	}
	good := []permitChange{permit("a", 15), returned("a", 35), permit("b", 45), returned("b", 65)}
	refused := event(72, eventAnswer, "a", 3)
	refused.Answer = answerRefused
	queued := func(claim string, revision int64, waits bool) queueChange {
		return queueChange{claim, []string{"web"}, revision, waits}
	}
	for _, tt := range []struct {
		name    string
		queue   []queueChange
		permits []permitChange
		events  []workerEvent
		red     bool
	}{
		{"in order", nil, good, slices.Concat(out("a", 1, 20, 30), out("b", 2, 50, 60)), false},
		{"permits over the budget", nil, []permitChange{good[0], good[2], good[1], good[3]}, slices.Concat(out("a", 1, 20, 30), out("b", 2, 50, 60)), true},
		{"hosts over the budget", nil, good, slices.Concat(out("a", 1, 20, 55), out("b", 2, 50, 60)), true},
		{"out before the permit", nil, good, out("a", 1, 5, 30), true},
		{"out after the permit", nil, good, out("a", 1, 20, 45), true},
		{"without a permit", nil, good[:2], out("b", 1, 20, 30), true},
		{"never out", nil, good, nil, true},
		{"still out", nil, good, out("a", 1, 20, 30)[:4], true},
		{"claim without an answer", nil, good, append(out("a", 1, 20, 30), event(70, eventAsk, "a", 3)), true},
		{"two answers", nil, good, append(out("a", 1, 20, 30), event(70, eventAnswer, "a", 1)), true},
		{"refused and written", nil, good, append(out("a", 1, 20, 30), event(70, eventAsk, "a", 3), event(71, eventWrite, "a", 0), refused), true},
		{"written without a claim", nil, good, append(out("a", 1, 20, 30), event(70, eventWrite, "a", 0), event(71, eventAsk, "a", 3), event(72, eventAnswer, "a", 3)), true},
		{"a waits before b", []queueChange{queued("a", 11, false), queued("b", 12, false), {claim: "a", revision: 16}}, good, slices.Concat(out("a", 1, 20, 30), out("b", 2, 50, 60)), false},
		{"b waits before a", []queueChange{queued("b", 11, false), queued("a", 12, false)}, good, slices.Concat(out("a", 1, 20, 30), out("b", 2, 50, 60)), true},
		{"b waits for its balancers", []queueChange{queued("b", 11, true), queued("a", 12, false)}, good, slices.Concat(out("a", 1, 20, 30), out("b", 2, 50, 60)), false},
		{"b has gone", []queueChange{queued("b", 11, false), queued("a", 12, false), {claim: "b", revision: 13}}, good, slices.Concat(out("a", 1, 20, 30), out("b", 2, 50, 60)), false},
	} {
		s := newSimHistory(1)
		for at := int64(10); at < 100; at += 10 {
			s.clocks = append(s.clocks, clockWrite{revision: at, before: at})
			s.acked[at] = at
		}
		s.queue, s.permits, s.events[0] = tt.queue, tt.permits, tt.events
		s.check(1, []string{"web"})
		if red := len(s.problems) > 0; red != tt.red {
			t.Errorf("%s: found %q, want some: %v", tt.name, s.problems, tt.red)
		}
	}
}
