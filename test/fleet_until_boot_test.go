package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacheck/internal/spool"
)

// TestFleetUntilBoot: hadown --safe --until-boot needs a permit. The permit stays while the host starts again, and is
// returned after the override has ended with that start and the balancers have the host up.
func TestFleetUntilBoot(t *testing.T) {
	t.Parallel()
	f := newFleetFarm(t, 1, fleetOptions{hosts: 3})
	web1, web2, lb := f.hosts[0], f.hosts[1], f.balancers[0]
	now, err := spool.BootID()
	if err != nil {
		t.Fatal(err)
	}
	web1.mustRunCommand("hadown", "--safe", "--until-boot", "web", "-r", "new kernel")
	lb.waitForStates(map[string]string{"web/web1": "DOWN"})
	path := filepath.Join(web1.spool, "web")
	content, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(content), now) {
		t.Fatalf("the override is %q, %v; want the boot id %s in it", content, err, now)
	}
	refused := func(when string) {
		t.Helper()
		out, exit := web2.runCommand("hadown", "--safe", "--until-boot", "web", "-r", "new kernel")
		if exit != 1 || web2.hasOverride() || !strings.Contains(out, "1 of 3 hosts is out and the budget is 1") {
			t.Errorf("web2 %s: exit %d, override %v; want 1 and none\n%s", when, exit, web2.hasOverride(), out)
		}
	}
	refused("while web1 is out")

	// Another boot id in the file is what the daemon finds after a start of the machine.
	web1.kill()
	refused("while web1 starts again")
	const bootBefore = "7be1b6aa-0c61-47b5-8f6b-2d0f4f0f1a22"
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(content), now, bootBefore)), 0o644); err != nil {
		t.Fatal(err)
	}
	web1.launchFleet()
	lb.waitForStates(map[string]string{"web/web1": "UP"})
	if a := web1.get("/spool/web/0/"); a.code != http.StatusOK {
		t.Errorf("after the start web1 answers %d %s", a.code, a.body)
	}
	f.waitForNoPermits()
	web2.mustRunCommand("hadown", "--safe", "--until-boot", "web", "-r", "new kernel")
	web2.mustRunCommand("haup", "--wait", "web")
	f.waitForNoPermits()
}
