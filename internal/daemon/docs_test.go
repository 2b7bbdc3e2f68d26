package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentedFiles: every YAML example of every page is a configuration or a file of checks that the
// commands take as it stands.
func TestDocumentedFiles(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	examples := 0
	for _, page := range append(pages, "../../README.md") {
		if filepath.Base(page) == "haproxy.md" {
			continue // has files of other programs too; test/recipes_test.go runs each of its blocks
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
