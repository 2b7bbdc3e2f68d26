package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// waitForWeight waits until HAProxy shows that state and effective weight of web/web1.
func (h *haproxy) waitForWeight(state, weight string) {
	h.t.Helper()
	eventually(h.t, func() error {
		s := h.statByServer()["web/web1"]
		if s["status"] != state || s["weight"] != weight {
			return fmt.Errorf("HAProxy shows %s with weight %s, want %s with %s", s["status"], s["weight"], state, weight)
		}
		return nil
	})
}

// TestWeight: HAProxy reads a weight from the agent, with the recipe of the page. It is 100 again after haup and after
// the time of --for. An override is stronger, and a restart of the daemon changes nothing.
func TestWeight(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	s := startRecipeSetup(t, all["agent's hacheck"].text)
	one := s.hosts[0]
	lb := s.startHAProxy(all["weight"], s.front)
	lb.waitForWeight("UP", "100")
	one.mustRunCommand("hadown", "web", "-r", "version 2")
	lb.waitForWeight("DOWN (agent)", "100")
	one.mustRunCommand("haup", "web", "--weight", "25%", "--wait=30s")
	lb.waitForWeight("UP", "25")
	// The original tools see no override.
	if out := pythonTool(t, one.spool, "read", "#hacheck-weight.web"); !readWithPython(t, one.spool, "web").Up || !strings.Contains(out, `"up": true`) {
		t.Errorf("the Python tools read the weight as %s", out)
	}
	one.mustRunCommand("hadown", "web", "-r", "version 3")
	lb.waitForWeight("DOWN (agent)", "25")
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	one.startHacheck(t, strings.Fields(s.replacer.Replace(all["agent's hacheck"].text))[1:]...)
	lb.waitForWeight("DOWN (agent)", "25")
	one.mustRunCommand("haup", "web", "--weight", "30")
	lb.waitForWeight("UP", "30")
	if out, code := one.runCommand("haup", "web"); code != 0 || !strings.Contains(out, "web: the weight of 30% has ended") {
		t.Errorf("haup: exit %d\n%s", code, out)
	}
	lb.waitForWeight("UP", "100")
	one.mustRunCommand("haup", "web", "--weight", "1%", "--for", "2s")
	lb.waitForWeight("UP", "1")
	lb.waitForWeight("UP", "100")
	if out, code := one.runCommand("haup", "other", "--weight", "25%"); code != 1 || !strings.Contains(out, "no agent connection asks about other") {
		t.Errorf("without an agent connection: exit %d\n%s", code, out)
	}
	if links, _ := filepath.Glob(filepath.Join(one.spool, "*weight.other")); len(links) > 0 {
		t.Errorf("it has written %v", links)
	}
}
