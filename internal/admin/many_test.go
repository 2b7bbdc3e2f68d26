package admin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hacheck/internal/spool"
)

// TestManyNames: with 10,000 names each command lists the directory a few times, and not for each name.
func TestManyNames(t *testing.T) {
	const n = 10_000
	root := t.TempDir()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("service-%d", i)
	}
	began := time.Now()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	limit := 30*time.Since(began) + 3*time.Second // with a listing for each name it is hundreds of times as long
	run := func(command string, names []string, code, lines int, args ...string) {
		t.Helper()
		var out strings.Builder
		env := scriptEnv()
		env.Stdout, env.Stderr = &out, os.Stderr
		began := time.Now()
		got := Main(command, slices.Concat([]string{command, "--spool-root", root, "--control-socket", ""}, args, names), env)
		if took := time.Since(began); got != code || took > limit || strings.Count(out.String(), "\n") != lines {
			t.Errorf("%s %q: exit %d, %d lines in %v; want exit %d, %d lines within %v", command, args, got, strings.Count(out.String(), "\n"), took, code, lines, limit)
		}
	}
	few := names[:500] // each write waits for the disk
	run("hadown", few, ExitOK, 0, "-P", "80", "-r", "many")
	run("hastatus", few, ExitFailed, len(few), "-P", "80")
	run("haup", few, ExitOK, 0, "-P", "80")
	run("hastatus", names, ExitFailed, n)
	run("haup", names, ExitOK, 1, "--json")
	run("hastatus", names, ExitOK, n)
	dir, err := spool.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := dir.List(); err != nil || len(list) != 0 {
		t.Errorf("%d overrides, %v; want none", len(list), err)
	}
}
