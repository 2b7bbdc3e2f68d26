package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestSystemd runs the units in a real systemd. testdata/systemd/life.sh crashes the daemon, breaks its configuration and
// its socket, and checks the results. systemd is process 1 of its own namespaces (testdata/systemd/boot.sh).
func TestSystemd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// This daemon also crashes on SIGUSR1.
	sources, err := filepath.Abs("../cmd/hacheck")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(sources, "crash_on_purpose.go"): filepath.Join(sources, "../../internal/daemon/testdata/crash/crash.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "hacheck")
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, sources)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	runSystemd(t, "life.sh", "../packaging/systemd", binary)
}
