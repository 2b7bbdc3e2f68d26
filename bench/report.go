package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// result is a row of the table.
type result struct {
	what             string
	figure, spread   string
	floor, goal, met string
	notes            []string // absolute figures, and what else a reader wants to know

	// What add decides by.
	measured, floorIs, goalIs float64
	higherIsBetter            bool
}

// The three outcomes.
const (
	metGoal  = "goal met"
	metFloor = "floor met"
	missed   = "**missed**"
)

// add judges a figure by its floor and goal.
func (b *bench) add(r result) {
	better := func(a, b float64) bool {
		if r.higherIsBetter {
			return a >= b
		}
		return a <= b
	}
	switch {
	case better(r.measured, r.goalIs):
		r.met = metGoal
	case better(r.measured, r.floorIs):
		r.met = metFloor
	default:
		r.met = missed
	}
	b.results = append(b.results, r)
}

// addRatio adds a row whose figure is the median of ratios. higher tells whether more is better.
func (b *bench) addRatio(what string, ratios []float64, floor, goal float64, higher bool, notes ...string) {
	sign := "≤"
	if higher {
		sign = "≥"
	}
	b.add(result{
		what: what, figure: fmt.Sprintf("%.3f ×", median(ratios)), spread: spread(ratios, "%.3f"),
		floor: fmt.Sprintf("%s %.2f ×", sign, floor), goal: fmt.Sprintf("%.2f ×", goal),
		measured: median(ratios), floorIs: floor, goalIs: goal, higherIsBetter: higher, notes: notes,
	})
}

// addMost adds a row whose figure, the median of values, is to be low.
func (b *bench) addMost(what string, values []float64, unit string, floor, goal float64, notes ...string) {
	b.add(result{
		what: what, figure: fmt.Sprintf("%.2f %s", median(values), unit), spread: spread(values, "%.2f"),
		floor: fmt.Sprintf("≤ %g %s", floor, unit), goal: fmt.Sprintf("%g %s", goal, unit),
		measured: median(values), floorIs: floor, goalIs: goal, notes: notes,
	})
}

// addExact adds a row whose figure has to be one number.
func (b *bench) addExact(what string, got, want int, notes ...string) {
	off := math.Abs(float64(got - want))
	b.add(result{
		what: what, figure: fmt.Sprint(got), spread: "-", floor: fmt.Sprint(want), goal: fmt.Sprint(want),
		measured: off, notes: notes,
	})
}

// quantile returns the q-th quantile of values, 0 to 1, between neighbours in proportion.
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

// spread shows the middle half of values.
func spread(values []float64, format string) string {
	if len(values) < 2 {
		return "-"
	}
	return fmt.Sprintf(format+"–"+format, quantile(values, 0.25), quantile(values, 0.75))
}

// divide returns the ratios of neighbours.
func divide(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}

// write writes the table.
func (b *bench) write(file string, took time.Duration) error {
	var w bytes.Buffer
	fmt.Fprintf(&w, `# How fast, and how large

Written by `+"`%s`"+` on %s, in %.0f minutes. %d turns of %v for each contestant; every ratio is the median of the
ratios of neighbouring turns, and in brackets is the middle half of them. See the comments in bench/ for what each
row does.

Machine: %s, %d cores, Linux %s, %s.

| what | measured | spread | floor | goal | |
|---|---|---|---|---|---|
`, command(), time.Now().UTC().Format("2 January 2006"), took.Minutes(), b.pairs, b.duration,
		cpu(), runtime.NumCPU(), kernel(), runtime.Version())
	for _, r := range b.results {
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s | %s |\n", r.what, r.figure, r.spread, r.floor, r.goal, r.met)
	}
	fmt.Fprintf(&w, "\nThe figures behind them:\n\n")
	for _, r := range b.results {
		for _, note := range r.notes {
			fmt.Fprintf(&w, "- %s: %s\n", r.what, note)
		}
	}
	return os.WriteFile(file, w.Bytes(), 0o644)
}

// command is how this run was started, by way of the Makefile.
func command() string {
	var flags []string
	for i := 1; i < len(os.Args); i++ {
		if os.Args[i] == "-bin" {
			i++ // which the Makefile gives
			continue
		}
		flags = append(flags, os.Args[i])
	}
	if flags == nil {
		return "make bench"
	}
	return "make bench BENCHFLAGS='" + strings.Join(flags, " ") + "'"
}

// cpu is the model of the processor.
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

// kernel is the kernel's version without what a distributor or host has appended.
func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of unknown version"
	}
	return regexp.MustCompile(`^[0-9.]+`).FindString(string(text))
}
