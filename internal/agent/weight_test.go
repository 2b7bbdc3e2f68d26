//go:build unix

package agent

import (
	"testing"
	"time"

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

// TestWeightEnd: the answers to a client say 100% after the end of a weight until the client has read that. A weight of
// 100% in force has no end.
func TestWeightEnd(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	told := false
	h.agent.o.TellsWeightEnd = func(peer string, k spool.Key, ended time.Time) bool {
		if peer != "127.0.0.1" || k.Name() != "web" || ended != time.Unix(5, 0) {
			t.Errorf("asked about %s, %s, %v", peer, k.Name(), ended)
		}
		return !told
	}
	h.overrides.weights, h.overrides.weightEnd = map[string]int{"web": spool.MaxWeight}, time.Unix(5, 0)
	if got := h.ask("web\n"); got != "up ready 100%\n" {
		t.Errorf("at first: answered %q", got)
	}
	told = true
	if got := h.ask("web\n"); got != "up ready\n" {
		t.Errorf("once it knows: answered %q", got)
	}
	h.overrides.weightEnd = time.Time{}
	if got := h.ask("web\n"); got != "up ready 100%\n" {
		t.Errorf("a weight of 100%% in force: answered %q", got)
	}
}
