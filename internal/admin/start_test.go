package admin

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkStart measures what a whole hadown costs over a Go program that does nothing, in turns, as
// the median of the pairs: over-empty-ms. Scripts run it in loops over hosts and services.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	empty := filepath.Join(dir, "empty.go")
	if err := os.WriteFile(empty, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	build := func(name, pkg string) string {
		out := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("build %s: %v\n%s", name, err, text)
		}
		return out
	}
	nothing := build("empty", empty)
	hadown, hastatus := build("hadown", "hacheck/cmd/hadown"), build("hastatus", "hacheck/cmd/hastatus")
	spool := filepath.Join(dir, "spool")

	run := func(b *testing.B, args ...string) time.Duration {
		start := time.Now()
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, text)
		}
		return time.Since(start)
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"hadown", []string{hadown, "--spool-root", spool, "-r", "why", "web"}},
		{"hastatus", []string{hastatus, "--spool-root", spool, "api"}},
		{"version", []string{hadown, "--version"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var over []time.Duration
			for b.Loop() {
				over = append(over, run(b, c.args...)-run(b, nothing))
			}
			slices.Sort(over)
			b.ReportMetric(float64(over[len(over)/2].Microseconds())/1000, "over-empty-ms")
		})
	}
}
