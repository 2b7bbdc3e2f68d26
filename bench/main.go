// Command bench measures the speed and the size of hacheck. It compares hacheck with the simplest programs for the same
// task: a constant answer by bare net/http, by nginx and by HAProxy, a bare client, an empty program, a program that
// reads files. It writes bench/RESULTS.md and exits with 1 when a floor is missed.
//
// No figure is compared with one from another time or machine. The contestants run in turns of a few seconds, and a
// row is the median of the ratios of neighbouring turns. All traffic is on the loopback interface. Bench is bounded in
// time and removes everything when it ends.
//
//	make bench                                   # all rows, about 25 minutes
//	make bench BENCHFLAGS='-quick -only p99'     # one row with few turns; writes no file
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	ctx   context.Context
	bin   string // directory of the commands
	tmp   string // temporary directory
	bare  string // the program of bench/bare
	empty string // the program of bench/empty
	list  string // the program of bench/list

	turns    int           // of each contestant
	duration time.Duration // of one turn, in whole seconds as wrk requires
	divisor  int           // rows that count tries make 1 of divisor tries
	hosts    int           // of the fleet; 0: 1,000 and then 5,000

	results []result
}

// rows are the rows of the table in their order.
var rows = []struct {
	name string
	run  func(*bench) error
}{
	{"new connection", (*bench).newConnections},
	{"keep-alive", (*bench).keepAlive},
	{"p99", (*bench).p99},
	{"many targets", (*bench).manyTargets},
	{"uncached", (*bench).uncached},
	{"checks", (*bench).serviceChecks},
	{"askers", (*bench).coldTarget},
	{"stale", (*bench).stale},
	{"hadown", (*bench).hadown},
	{"memory", (*bench).memory},
	{"start", (*bench).startTime},
	{"permit", (*bench).safeWithPermit},
	{"fleet", (*bench).fleetOverride},
}

func main() {
	bin := flag.String("bin", "bin", "directory of the commands")
	quick := flag.Bool("quick", false, "3 turns of 1 s and few tries")
	pairs := flag.Int("pairs", 20, "turns for each contestant")
	duration := flag.Duration("duration", 2*time.Second, "length of a turn, whole seconds")
	hosts := flag.Int("hosts", 0, "hosts of the fleet instead of 1,000 and then 5,000")
	only := flag.String("only", "", "only the rows whose name matches this regular expression")
	out := flag.String("out", "", "file to write; by default bench/RESULTS.md after a whole run, none with -quick or -only")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &bench{bin: *bin, turns: *pairs, duration: *duration, divisor: 1, hosts: *hosts}, *quick, *only, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, b *bench, quick bool, only, out string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if quick {
		b.turns, b.duration, b.divisor, b.hosts = 3, time.Second, 20, cmp.Or(b.hosts, 100)
	}
	if b.hosts < 0 {
		return errors.New("-hosts must not be negative")
	}
	if b.turns < 1 || b.duration < time.Second || b.duration%time.Second != 0 {
		return errors.New("-pairs must be at least 1, -duration whole seconds")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	b.ctx = ctx
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.tmp, err = os.MkdirTemp("", "hacheck-bench-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.tmp) }()
	if err := b.build(); err != nil {
		return err
	}

	began := time.Now()
	for _, r := range rows {
		if !match.MatchString(r.name) {
			continue
		}
		at, n := time.Now(), len(b.results)
		if err := r.run(b); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		for _, res := range b.results[n:] {
			fmt.Printf("%-80s %s (%s)  floor %s: %s\n", res.what, res.figure, res.spread, cmp.Or(res.floor, "none"), res.status())
			for _, note := range res.notes {
				fmt.Println("    " + note)
			}
		}
		fmt.Printf("    (%.0f s)\n", time.Since(at).Seconds())
	}
	whole := !quick && only == ""
	if out == "" && whole {
		out = "bench/RESULTS.md"
	}
	if out != "" {
		if err := b.writeResults(out, time.Since(began)); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	for _, r := range b.results {
		if r.missed {
			return errors.New("a floor is missed, see " + out)
		}
	}
	return nil
}

// build builds the programs that hacheck is compared with, with the flags of hacheck's own build.
func (b *bench) build() error {
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.tmp+"/", "./bench/bare", "./bench/empty", "./bench/list")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	b.bare, b.empty, b.list = filepath.Join(b.tmp, "bare"), filepath.Join(b.tmp, "empty"), filepath.Join(b.tmp, "list")
	return nil
}
