package admin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestJournalPriority: in the journal each line on standard error has a priority, as hacheck-drain.service needs it.
func TestJournalPriority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "spool")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "all"), []byte(`{"reason": "mine"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		line string
		want []string // the start of each line
	}{
		{"hadown --spool-root " + root + " -p 1 --until-boot --wait=1s all", []string{"<6>hadown: all is down already", "<3>hadown: cannot read the balancers' server states"}},
		{"hadown --nope", []string{"<3>hadown: no such option", "<3>Usage: "}},
		{"hastatus --spool-root " + filepath.Join(dir, "missing") + " -p ''", []string{"<3>hastatus: "}},
		{"hadown --spool-root " + root + " -p '' -r " + strings.Repeat("x", 5000) + " web", []string{"<4>hadown: warning: "}},
	} {
		path := filepath.Join(dir, "stderr")
		stderr, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := stderr.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", test.line)
		cmd.Stderr = stderr
		cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino))
		if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		if err := stderr.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) != len(test.want) {
			t.Fatalf("%s: want %d lines, got:\n%s", test.line, len(test.want), b)
		}
		for i, want := range test.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%.80s: line %d is %.80q, want %q", test.line, i, lines[i], want)
			}
		}
	}
}
