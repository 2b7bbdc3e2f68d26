package textfmt

import (
	"math"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour:                         "0s",
		0:                                  "0s",
		59 * time.Second:                   "59s",
		time.Minute - time.Millisecond:     "1m00s",
		61 * time.Second:                   "1m01s",
		time.Hour:                          "1h00m",
		26*time.Hour - time.Microsecond:    "1d02h",
		49*time.Hour + 59*time.Minute:      "2d01h",
		time.Duration(math.MaxInt64):       "106751d23h",
		time.Duration(math.MinInt64):       "0s",
		23*time.Hour + 59*time.Minute + 29: "23h59m",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
	// The year 9999 is further away than a Duration reaches.
	if got, want := Seconds(251_600_000_000), "2912037d00h"; got != want {
		t.Errorf("Seconds of 8000 years are %s, want %s", got, want)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 sessions", 1: "1 session", 2: "2 sessions"} {
		if got := Count(n, "session"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}
