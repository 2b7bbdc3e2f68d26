package web

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

func verdict(s spool.State, code int, took time.Duration) *health.Verdict {
	return &health.Verdict{OverrideState: s, Result: check.Result{Code: code, Took: took}}
}

// TestHistory: each slot shows the worst answer in it, and the longest check, for ten minutes.
func TestHistory(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	at := func(slot int, second int) time.Time {
		return start.Add(time.Duration(slot*historySlot+second) * time.Second)
	}
	up, slow := verdict(0, 200, 900*time.Microsecond), verdict(0, 200, 40*time.Millisecond)
	type answer struct {
		at time.Time
		v  *health.Verdict
	}
	dots := func(n int) string { return strings.Repeat(".", n) }
	zeros := func(n int) string { return strings.Repeat("0", n) }
	for name, c := range map[string]struct {
		answers       []answer
		now           time.Time
		shows, lasted string
	}{
		"nothing":        {nil, at(0, 0), dots(60), zeros(60)},
		"one":            {[]answer{{at(0, 0), up}}, at(0, 9), dots(59) + "u", zeros(59) + "a"},
		"the worst":      {[]answer{{at(0, 0), up}, {at(0, 1), verdict(0, 503, 0)}, {at(0, 2), slow}}, at(0, 3), dots(59) + "x", zeros(59) + "g"},
		"each kind":      {[]answer{{at(0, 0), up}, {at(1, 0), verdict(spool.ForceUp, 200, 0)}, {at(2, 0), verdict(spool.Drain, 404, 0)}, {at(3, 0), verdict(spool.Down, 503, 0)}, {at(4, 0), verdict(spool.Maint, 503, 0)}, {at(5, 0), verdict(0, 404, 0)}}, at(5, 0), dots(54) + "ufroox", zeros(54) + "a00000"},
		"nobody since":   {[]answer{{at(0, 0), up}, {at(1, 0), up}}, at(4, 0), dots(55) + "uu...", zeros(55) + "aa000"},
		"a gap":          {[]answer{{at(0, 0), up}, {at(1, 0), up}, {at(5, 0), up}}, at(5, 0), dots(54) + "uu...u", zeros(54) + "aa000a"},
		"the oldest":     {[]answer{{at(0, 0), slow}, {at(59, 0), up}}, at(59, 0), "u" + dots(58) + "u", "g" + zeros(58) + "a"},
		"too old":        {[]answer{{at(0, 0), slow}, {at(60, 0), up}}, at(60, 0), dots(59) + "u", zeros(59) + "a"},
		"long ago":       {[]answer{{at(0, 0), slow}, {at(1, 0), up}, {at(60_000_000, 0), up}}, at(60_000_000, 0), dots(59) + "u", zeros(59) + "a"},
		"over by now":    {[]answer{{at(0, 0), up}, {at(1, 0), up}}, at(100, 0), dots(60), zeros(60)},
		"many rounds":    {[]answer{{at(0, 0), up}, {at(30, 0), slow}, {at(61, 0), up}, {at(89, 0), up}}, at(89, 0), "u" + dots(30) + "u" + dots(27) + "u", "g" + zeros(30) + "a" + zeros(27) + "a"},
		"clock set back": {[]answer{{at(50, 0), up}, {at(51, 0), up}, {at(7, 0), slow}}, at(7, 0), dots(59) + "u", zeros(59) + "g"},
		"read before":    {[]answer{{at(100, 0), up}, {at(101, 0), up}}, at(50, 0), dots(60), zeros(60)},
		"endless":        {[]answer{{at(0, 0), verdict(0, 503, 1<<62)}}, at(0, 0), dots(59) + "x", zeros(59) + "v"},
		"negative":       {[]answer{{at(0, 0), verdict(0, 200, -1)}}, at(0, 0), dots(59) + "u", zeros(60)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h history
			for _, a := range c.answers {
				h.add(a.at, a.v)
			}
			marks := h.marks(c.now)
			if shows, lasted := marksText(&marks); shows != c.shows || lasted != c.lasted {
				t.Errorf("shows\n%s\n%s, want\n%s\n%s", shows, lasted, c.shows, c.lasted)
			}
		})
	}
}

// TestHistoryIsSmall: there are 10,000 of them.
func TestHistoryIsSmall(t *testing.T) { // not parallel: it counts allocations
	var h history
	if all := unsafe.Sizeof(h) + unsafe.Sizeof(*h.past); unsafe.Sizeof(h) > 24 || all > 100 {
		t.Errorf("%d bytes, and %d once it has a past", unsafe.Sizeof(h), all)
	}
	now, v := time.Unix(1_800_000_000, 0), verdict(0, 200, time.Millisecond)
	h.add(now, v)
	if h.past != nil {
		t.Error("a past after one slot")
	}
	h.add(now.Add(historySlot*time.Second), v)
	n := 0
	if a := testing.AllocsPerRun(1000, func() { n++; h.add(now.Add(time.Duration(n)*7*time.Second), v) }); a != 0 {
		t.Errorf("%v allocations an answer", a)
	}
}

func BenchmarkHistory(b *testing.B) {
	var h history
	now, v := time.Unix(1_800_000_000, 0), verdict(0, 200, time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		h.add(now, v)
	}
}
