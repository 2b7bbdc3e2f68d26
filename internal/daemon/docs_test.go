package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentedFiles: every YAML example of the documentation is a valid configuration or a valid file of checks.
func TestDocumentedFiles(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	examples := 0
	for _, page := range append(pages, "../../README.md") {
		if filepath.Base(page) == "haproxy.md" {
			continue // test/recipes_test.go runs its blocks, which are files of other programs too
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(text), "```") {
			block, ok := strings.CutPrefix(part, "yaml\n")
			if !ok || i%2 == 0 {
				continue
			}
			examples++
			file := filepath.Join(t.TempDir(), "example.yaml")
			writeFile(t, file, block)
			args := []string{"--check-config", "-c", file, "--spool-root", filepath.Join(t.TempDir(), "spool")}
			if strings.HasPrefix(block, "- ") {
				args = []string{"run", "--validate", file}
			}
			if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil {
				t.Errorf("%s: hacheck %s: %v\n%s\n%s", page, strings.Join(args[:2], " "), err, out, block)
			}
		}
	}
	if examples < 15 {
		t.Errorf("%d examples found", examples)
	}
}
