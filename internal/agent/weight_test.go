//go:build unix

package agent

import (
	"testing"

	"hacheck/internal/spool"
)

// TestWeights: a weight is in the answers that are up, and every override that is not up is stronger.
func TestWeights(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	h.overrides.weights = map[string]int{"web": 25}
	if got := h.ask("web\n"); got != "up ready 25%\n" {
		t.Errorf("answered %q", got)
	}
	if got := h.ask("db\n"); got != "up ready\n" {
		t.Errorf("another service: answered %q", got)
	}
	for state, want := range map[spool.State]string{
		spool.ForceUp: "up ready 25%\n", spool.Drain: "up drain\n", spool.Down: "ready down #why\n", spool.Maint: "maint down #why\n",
	} {
		h.overrides.set("web", state, "why")
		if got := h.ask("web\n"); got != want {
			t.Errorf("%v: answered %q, want %q", state, got, want)
		}
	}
}
