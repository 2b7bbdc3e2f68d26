package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"hacheck/internal/spool"
)

// stale asks the daemon immediately after an override was written and counts the answers from before. The writers are
// the package of the commands (most tries, because it starts no process) and the commands. Other clients load the
// daemon meanwhile.
func (b *bench) stale() error {
	h, err := b.startHacheck("", cacheForAnHour)
	if err != nil {
		return err
	}
	defer h.stop()
	dir, err := spool.OpenDir(h.spool)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	key := spool.Key{Service: "web"}
	command := func(name string, args ...string) error {
		out, err := exec.CommandContext(b.ctx, filepath.Join(b.bin, name), append(args, "--spool-root", h.spool, "web")...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	writers := []struct {
		what     string
		tries    int
		down, up func() error
	}{
		{
			"stale answers after a writer in this process returned", 95000 / b.divisor,
			func() error { return dir.Write(spool.Entry{Key: key, State: spool.Down, Reason: "bench"}) },
			func() error { return dir.Remove(key) },
		},
		{
			"stale answers after hadown or haup returned", 5000 / b.divisor,
			func() error { return command("hadown", "-r", "bench") },
			func() error { return command("haup") },
		},
	}

	a, err := newKeepAliveClient(h.server)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	busy := exec.CommandContext(b.ctx, "wrk", "-t", "1", "-c", "4", "-d", "3600s", "http://"+h.addr+"/spool/other/0/")
	if err := busy.Start(); err != nil {
		return err
	}
	defer func() {
		_ = busy.Process.Kill() // Wait returns that it was killed
		_ = busy.Wait()
	}()
	for _, w := range writers {
		began, stale := time.Now(), 0
		for i := range w.tries {
			isDown := i%2 == 0
			write := w.up
			if isDown {
				write = w.down
			}
			if err := write(); err != nil {
				return err
			}
			code, err := a.get("/spool/web/0/", "")
			if err != nil {
				return err
			}
			switch {
			case code != http.StatusOK && code != http.StatusServiceUnavailable:
				return fmt.Errorf("/spool answered %d", code)
			case isDown != (code == http.StatusServiceUnavailable):
				stale++
			}
		}
		b.addExact(fmt.Sprintf("%s, of %d", w.what, w.tries), stale, 0, fmt.Sprintf("%.0f tries/s beside the other clients", float64(w.tries)/time.Since(began).Seconds()))
	}
	return nil
}

// hadown measures the time of a whole hadown process.
func (b *bench) hadown() error {
	root, err := os.MkdirTemp(b.tmp, "spool-")
	if err != nil {
		return err
	}
	run := func(name string, args ...string) (float64, error) {
		cmd := exec.CommandContext(b.ctx, name, args...)
		began := time.Now()
		err := cmd.Run()
		return float64(time.Since(began)) / float64(time.Millisecond), err
	}
	tries := max(400/b.divisor, 40)
	hadown, empty := make([]float64, tries), make([]float64, tries)
	for i := range tries {
		// Each run has another service. The two programs take turns in going first.
		for k := range 2 {
			if (i+k)%2 == 0 {
				empty[i], err = run(b.empty)
			} else {
				hadown[i], err = run(filepath.Join(b.bin, "hadown"), "--spool-root", root, "-r", "kernel upgrade", fmt.Sprintf("web-%d", i))
			}
			if err != nil {
				return err
			}
		}
	}
	b.addAtMost("`hadown svc`, whole process, × an empty Go program", ratios(hadown, empty), 3, "×",
		fmt.Sprintf("%.2f ms (%s), an empty Go program %.2f ms (%s), %d runs of each", median(hadown), spread(hadown, "%.2f"), median(empty), spread(empty, "%.2f"), tries))
	return nil
}
