//go:build brokenrules

package test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// brokenRule is a rule of internal/fleet and how to break it: old stands once in file, and broken replaces it.
type brokenRule struct {
	name, file, old, broken string
	tests                   string // that have to fail, a pattern for go test -run
}

var brokenRules = []brokenRule{
	{
		"a grant compares the guard", "grant.go",
		"isUnchanged(p.keys.guard(), snap.guard), ", "", "TestStaleDecision",
	},
	{
		"a permit has no lease", "grant.go",
		"clientv3.OpPut(key, encode(next)), p.putEntry(", "clientv3.OpPut(key, encode(next), clientv3.WithLease(s.lease)), p.putEntry(",
		"TestWeightOfLeavingHosts",
	},
	{
		"lookups see an override before it is acknowledged", "apply.go",
		"\ta.o.Overrides.SetFleet(list)\n", "\ttime.AfterFunc(100*time.Millisecond, func() { a.o.Overrides.SetFleet(list) })\n",
		"TestOverrideReachesHostsOfItsScope",
	},
	{
		"an override is on the disk before it is acknowledged", "apply.go",
		"acked = min(a.ackedNow(), acked)", "_ = a.ackedNow()", "TestStateDirUnusable",
	},
	{
		"a failing check is no ticket", "snapshot.go",
		"case host == except:", "case host == except || s.State == stateFailing:", "TestOut$|TestFailingCheckIsNoTicket",
	},
	{
		"an override does not end with its key", "rules.go",
		`s.markLost(key, r, revision, "its key is gone from etcd without a lift record")`, "s.drop(key)", "TestLostInEtcd|TestRules$",
	},
	{
		"the weight of hosts that are leaving is subtracted", "balancers.go",
		"wait.CheckSafe(c.targets(), &r, time.Since(since), leaving)", "wait.CheckSafe(c.targets(), &r, time.Since(since), nil)",
		"TestWeightOfLeavingHosts",
	},
	{
		"a closed command writes nothing", "balancers.go",
		"if ctx.Err() != nil { // P4", "if false { // P4", "TestClosedClaim",
	},
	{
		"a stopped command writes nothing", "balancers.go", "if c.isStopped() {", "if false {", "TestStoppedCommandHoldsNoPermit",
	},
	{
		"a replaced override of a taken name stays in force", "rules.go", "next.Own = r.Own", "_ = next.Own", "TestOverridesOfATakenName",
	},
	{
		"a copy that was removed is written again", "followdir.go", "err := a.dir.check()", "var err error", "TestStateDirFaults",
	},
	{
		"a permit without a command is returned", "cleanup.go",
		"own.Phase != phaseAsked || p.isAlive(own.Claim)", "true", "TestUnknownOutcome$|TestRestartWithPermit",
	},
}

// TestBrokenRules tests the tests of the fleet: with each rule broken, in a copy of one source file, the tests that
// have to notice it fail. `make broken-rules` runs it.
func TestBrokenRules(t *testing.T) {
	for _, r := range brokenRules {
		t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) {
			out, err := r.test(t)
			switch {
			case err == nil:
				t.Errorf("the tests %s pass with the rule broken:\n%s", r.tests, out)
			case !strings.Contains(out, "--- FAIL") && !strings.Contains(out, "test timed out"):
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// test runs the tests of r with r broken.
func (r brokenRule) test(t *testing.T) (output string, err error) {
	path, err := filepath.Abs(filepath.Join("..", "internal", "fleet", r.file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte(r.old)); n != 1 {
		t.Fatalf("%s has %q %d times, want once", r.file, r.old, n)
	}
	broken, overlay := filepath.Join(t.TempDir(), r.file), filepath.Join(t.TempDir(), "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{path: broken}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{overlay: text, broken: bytes.Replace(source, []byte(r.old), []byte(r.broken), 1)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", "test", "-count=1", "-timeout=5m", "-overlay", overlay, "-run", r.tests, "hacheck/internal/fleet").CombinedOutput()
	return string(out), err
}
