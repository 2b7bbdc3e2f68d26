package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runSystemd runs the script of testdata/systemd under a systemd of its own (boot.sh there), with the files of the
// directory files and the daemon binary; "" is none. The script ends with the line DONE unless it fails.
func runSystemd(t *testing.T, script, files, binary string) {
	t.Helper()
	dir := t.TempDir()
	paths := make([]string, 0, 3)
	for _, path := range []string{"testdata/systemd/boot.sh", filepath.Join("testdata/systemd", script), files} {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	cmd := exec.CommandContext(t.Context(), findTool(t, "unshare"), "--mount", "bash", paths[0], dir, paths[1], paths[2], binary)
	cmd.SysProcAttr = killWithParent()
	said, err := cmd.CombinedOutput() // systemd ends in its own way when it powers off
	out, readErr := os.ReadFile(filepath.Join(dir, "out/out"))
	if readErr != nil || !strings.HasSuffix(string(out), "DONE\n") {
		log, _ := os.ReadFile(filepath.Join(dir, "out/log")) // there may be none
		t.Fatalf("systemd of its own (needs root and cgroup2): %v\n%s\n%s\n%.20000s", err, said, out, log)
	}
}
