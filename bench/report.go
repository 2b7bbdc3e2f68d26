package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is a row of the table.
type result struct {
	what           string
	figure, spread string
	floor          string   // "" for a row that is information
	missed         bool     // the figure misses the floor
	notes          []string // absolute figures and further information
}

// status returns the last column of a row.
func (r result) status() string {
	switch {
	case r.floor == "":
		return "-"
	case r.missed:
		return "**missed**"
	}
	return "held"
}

// addAtLeast adds a row whose figure is the median of values, ratios that must be at least floor.
func (b *bench) addAtLeast(what string, values []float64, floor float64, notes ...string) {
	b.results = append(b.results, result{
		what: what, figure: fmt.Sprintf("%.3f ×", median(values)), spread: spread(values, "%.3f"),
		floor: fmt.Sprintf("≥ %.2f ×", floor), missed: !(median(values) >= floor), notes: notes,
	})
}

// addAtMost adds a row whose figure is the median of values, which must be at most floor. The unit of ratios is "×".
func (b *bench) addAtMost(what string, values []float64, floor float64, unit string, notes ...string) {
	b.results = append(b.results, result{
		what: what, figure: fmt.Sprintf("%.3g %s", median(values), unit), spread: spread(values, "%.3g"),
		floor: fmt.Sprintf("≤ %g %s", floor, unit), missed: !(median(values) <= floor), notes: notes,
	})
}

// addExact adds a row whose figure must be want.
func (b *bench) addExact(what string, got, want int, notes ...string) {
	b.results = append(b.results, result{
		what: what, figure: fmt.Sprint(got), spread: "-", floor: fmt.Sprint(want), missed: got != want, notes: notes,
	})
}

// addInformation adds a row without a floor.
func (b *bench) addInformation(what string, values []float64, unit string, notes ...string) {
	b.results = append(b.results, result{
		what: what, figure: fmt.Sprintf("%.3g %s", median(values), unit), spread: spread(values, "%.3g"), notes: notes,
	})
}

// thousands formats a number below a million with a comma: 10,000.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// quantile returns the q-th quantile of values, q from 0 to 1, with linear interpolation.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// spread returns the range of the middle half of values.
func spread(values []float64, format string) string {
	if len(values) < 2 {
		return "-"
	}
	return fmt.Sprintf(format+"–"+format, quantile(values, 0.25), quantile(values, 0.75))
}

// ratios returns a[i]/b[i] for each turn i.
func ratios(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}

// writeResults writes the table to file.
func (b *bench) writeResults(file string, took time.Duration) error {
	var w bytes.Buffer
	fmt.Fprintf(&w, `# How fast, and how large

Written by `+"`%s`"+` on %s, in %.0f minutes. %d turns of %v for each contestant; every ratio is the median of the
ratios of neighbouring turns, and the spread is the middle half of them. A floor is a ratio wherever two programs can
be compared on the same machine; a row without a floor is information. See the comments in bench/ for what each row does.

Machine: %s, %d cores, Linux %s, %s.

| what | measured | spread | floor | |
|---|---|---|---|---|
`, makeCommand(), time.Now().UTC().Format("2 January 2006"), took.Minutes(), b.turns, b.duration,
		cpu(), runtime.NumCPU(), kernel(), runtime.Version())
	for _, r := range b.results {
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", r.what, r.figure, r.spread, cmp.Or(r.floor, "-"), r.status())
	}
	fmt.Fprintf(&w, "\nThe figures behind them:\n\n")
	for _, r := range b.results {
		for _, note := range r.notes {
			fmt.Fprintf(&w, "- %s: %s\n", r.what, note)
		}
	}
	return os.WriteFile(file, w.Bytes(), 0o644)
}

// makeCommand returns the make command line that starts this run.
func makeCommand() string {
	var flags []string
	for i := 1; i < len(os.Args); i++ {
		if os.Args[i] == "-bin" {
			i++ // the Makefile adds it
			continue
		}
		flags = append(flags, os.Args[i])
	}
	if flags == nil {
		return "make bench"
	}
	return "make bench BENCHFLAGS='" + strings.Join(flags, " ") + "'"
}

// cpu returns the model of the processor.
func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
			}
		}
	}
	return runtime.GOARCH
}

// kernel returns the kernel's version without the suffix of a distribution or host.
func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of unknown version"
	}
	return regexp.MustCompile(`^[0-9.]+`).FindString(string(text))
}
