// Command bench measures what hacheck promises about its speed and its size, beside the least that could do the same:
// a constant answer by bare net/http, by nginx and by HAProxy, a bare client, an empty program, one that reads files. It
// writes
// bench/RESULTS.md and exits with 1 when a floor is missed.
//
// Machines differ and none is quiet for long. So nothing is compared with a number from another time or place: the
// contestants run in turns, a few seconds each, many times over, and what counts is the median of the ratios of
// neighbours. Everything is on the loopback interface, bounded in time, and gone when it ends.
//
//	make bench                                   # all of it, about 20 minutes
//	make bench BENCHFLAGS='-quick -only p99'     # a glance at one row while working on it; writes no file
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
	bin   string // where the commands are
	tmp   string // everything that is written
	bare  string // the program of bench/bare
	empty string // the program of bench/empty
	list  string // the program of bench/list

	turns    int           // how many times each contestant has its turn
	duration time.Duration // of one turn; whole seconds, as wrk counts them
	divisor  int           // one in share of the tries where tries are counted

	results []result
}

// rows are the table, in its order.
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
}

func main() {
	bin := flag.String("bin", "bin", "directory of the commands")
	quick := flag.Bool("quick", false, "a glance: 3 turns of 1 s and few tries")
	pairs := flag.Int("pairs", 20, "turns for each contestant")
	duration := flag.Duration("duration", 2*time.Second, "length of a turn, whole seconds")
	only := flag.String("only", "", "only the rows whose name matches this regular expression")
	out := flag.String("out", "", "file to write; by default bench/RESULTS.md after a whole run, none after a glance or of a few rows")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &bench{bin: *bin, turns: *pairs, duration: *duration, divisor: 1}, *quick, *only, *out)
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
		b.turns, b.duration, b.divisor = 3, time.Second, 20
	}
	if b.turns < 1 || b.duration < time.Second || b.duration%time.Second != 0 {
		return errors.New("-pairs must be at least 1, -duration whole seconds")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // whatever hangs does not hang for ever
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

// build builds what hacheck is compared with, as hacheck itself is built.
func (b *bench) build() error {
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.tmp+"/", "./bench/bare", "./bench/empty", "./bench/list")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	b.bare, b.empty, b.list = filepath.Join(b.tmp, "bare"), filepath.Join(b.tmp, "empty"), filepath.Join(b.tmp, "list")
	return nil
}
