package admin

import (
	"strings"
	"testing"
	"time"
)

// TestChangeMarks: a new line is marked for a while, times and columns do not count, and a section that has become shorter
// has its first line marked.
func TestChangeMarks(t *testing.T) {
	t.Parallel()
	start := time.Unix(1700000000, 0)
	var m changeMarks
	for _, step := range []struct {
		name, text string
		after      time.Duration
		want       string
	}{
		{"first frame", "Overrides:\na  3s ago\nb  1m05s ago\n\nServices:\nx", 0, "  Overrides:\n  a  3s ago\n  b  1m05s ago\n\n  Services:\n  x\n"},
		{"times", "Overrides:\na  5s ago\nb   (in 1h07m)  ago\n\nServices:\nx", time.Second, "  Overrides:\n  a  5s ago\n* b   (in 1h07m)  ago\n\n  Services:\n  x\n"},
		{"new line", "Overrides:\na  7s ago\nb (in 1h05m) ago\n\nServices:\nx\ny", 2 * time.Second, "  Overrides:\n  a  7s ago\n* b (in 1h05m) ago\n\n  Services:\n  x\n* y\n"},
		{"later", "Overrides:\na  9s ago\nb (in 1h05m) ago\n\nServices:\nx\ny", 6 * time.Second, "  Overrides:\n  a  9s ago\n  b (in 1h05m) ago\n\n  Services:\n  x\n* y\n"},
		{"gone", "Overrides:\na  9s ago\n\nServices:\nx\ny", 8 * time.Second, "* Overrides:\n  a  9s ago\n\n  Services:\n  x\n  y\n"},
		{"back", "Overrides:\na  9s ago\nb ago\n\nServices:\nx\ny", 20 * time.Second, "  Overrides:\n  a  9s ago\n* b ago\n\n  Services:\n  x\n  y\n"},
	} {
		at := start.Add(step.after)
		m.update(frame{at: at, text: step.text})
		got := ""
		for _, line := range m.marked(at) {
			got += line.Text + "\n"
			if line.IsMarked != (len(line.Text) > 0 && line.Text[0] == '*') {
				t.Errorf("%s: %q is marked: %t", step.name, line.Text, line.IsMarked)
			}
		}
		if got != step.want {
			t.Errorf("%s: got\n%swant\n%s", step.name, got, step.want)
		}
	}
}

// TestWatchWarnings: with --json a warning is printed once, and once more when it comes back.
func TestWatchWarnings(t *testing.T) {
	t.Parallel()
	var stderr strings.Builder
	w := &watcher{command: &command{Env: Env{Stderr: &stderr, Now: time.Now}, name: "hastatus", opt: options{json: true}}}
	for _, warning := range []string{"away", "away", "", "", "away"} {
		w.show = func(c *command) int {
			c.printf("{}\n")
			if warning != "" {
				c.errorf("%s", warning)
			}
			return ExitOK
		}
		w.frame()
	}
	if got, want := stderr.String(), "hastatus: away\nhastatus: away\n"; got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
}
