package cmdline

import "testing"

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"reason", "reason", 0},
		{"resaon", "reason", 2},
		{"raeson", "reason", 2},
		{"prot", "port", 2},
		{"jsn", "json", 1},
		{"jsonn", "json", 1},
		{"ajson", "json", 1},
		{"kitten", "sitting", 3},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
