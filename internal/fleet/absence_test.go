package fleet

import (
	"testing"
	"time"
)

// TestAbsences: the beginning of an absence is known if the host was read as present shortly before.
func TestAbsences(t *testing.T) {
	t.Parallel()
	var a absences
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	read := func(after time.Duration, hosts ...string) map[string]time.Time {
		f := &snapshot{present: map[string]presentHost{}}
		for _, h := range hosts {
			f.present[h] = presentHost{}
		}
		return a.observe(f, start.Add(after))
	}
	want := func(what string, since map[string]time.Time, host string, after time.Duration) {
		t.Helper()
		if at, ok := since[host]; !ok || !at.Equal(start.Add(after)) || len(since) != 1 {
			t.Errorf("%s: %v", what, since)
		}
	}
	read(0, "web1", "web2")
	want("web2 went absent", read(10*time.Second, "web1"), "web2", 10*time.Second)
	want("a day later", read(24*time.Hour, "web1"), "web2", 10*time.Second)
	if since := read(25*time.Hour, "web1", "web2"); len(since) != 0 {
		t.Errorf("web2 is back: %v", since)
	}
	if since := read(26*time.Hour, "web1"); len(since) != 0 {
		t.Errorf("web2 went absent within the last hour: %v", since)
	}
}
