package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/spool"
)

// toy is the service that is checked: it answers OK and counts.
type toy struct {
	port  int
	asked atomic.Int64
	srv   *http.Server
	hold  chan struct{} // when not nil, answers wait until it is closed
}

func startToy(hold chan struct{}) (*toy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listening on %v", ln.Addr())
	}
	s := &toy{port: addr.Port, hold: hold}
	s.srv = &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s.asked.Add(1)
			if s.hold != nil {
				<-s.hold
			}
			_, _ = io.WriteString(w, "OK") // a daemon that has hung up needs no answer
		}),
	}
	go func() { _ = s.srv.Serve(ln) }() // returns when it is closed
	return s, nil
}

func (s *toy) stop() { _ = s.srv.Close() }

// constants starts everyone who answers a constant, and hacheck with one service whose result is cached. path is what
// all of them are asked for.
func (b *bench) constants() (contestants []*server, h *hacheck, path string, stop func(), err error) {
	service, err := startToy(nil)
	if err != nil {
		return nil, nil, "", nil, err
	}
	defer func() {
		if err != nil {
			stopAll(contestants)
			service.stop()
		}
	}()
	for _, start := range []func() (*server, error){b.startBare, b.startNginx, b.startHAProxy} {
		s, err := start()
		if err != nil {
			return contestants, nil, "", nil, err
		}
		contestants = append(contestants, s)
	}
	if h, err = b.startHacheck("", forLong); err != nil {
		return contestants, nil, "", nil, err
	}
	contestants = append(contestants, h.server)
	path = fmt.Sprintf("/http/web/%d/status", service.port)
	for _, s := range contestants {
		if err = s.expect(path); err != nil {
			return contestants, nil, "", nil, err
		}
	}
	return contestants, h, path, func() { stopAll(contestants); service.stop() }, nil
}

// rates is the row of a cached check, in turns with the constants.
func (b *bench) rates(args ...string) (rates [][]float64, notes []string, err error) {
	contestants, h, path, stop, err := b.constants()
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	before, err := h.counters()
	if err != nil {
		return nil, nil, err
	}
	asked := 0
	rates, err = b.inTurns(len(contestants), func(i int) (float64, error) {
		if contestants[i] != h.server {
			return b.rate("http://"+contestants[i].addr+path, args...)
		}
		l, err := b.wrk("http://"+h.addr+path, args...)
		if asked += l.requests; err == nil && l.not2xx > 0 {
			err = fmt.Errorf("hacheck: %d of %d answers were not 2xx", l.not2xx, l.requests)
		}
		return l.rate, err
	})
	if err != nil {
		return nil, nil, err
	}
	// Is what wrk counts what was answered, and from the cache? Each turn ends with requests in flight.
	after, err := h.counters()
	if err != nil {
		return nil, nil, err
	}
	hits, most := after.Hits-before.Hits, asked+(b.pairs+1)*2*connections
	if hits < asked || hits > most || after.Misses != before.Misses {
		return nil, nil, fmt.Errorf("wrk counted %d answers, hacheck %d hits and %d misses", asked, hits, after.Misses-before.Misses)
	}
	for i, s := range contestants {
		notes = append(notes, fmt.Sprintf("%s %.0f requests/s (%s)", s.name, median(rates[i]), spread(rates[i], "%.0f")))
	}
	last := len(contestants) - 1
	for i, s := range contestants[:last] {
		r := divide(rates[last], rates[i])
		notes = append(notes, fmt.Sprintf("hacheck is %.3f × %s (%s)", median(r), s.name, spread(r, "%.3f")))
	}
	return rates, notes, nil
}

// newConnections: a balancer opens a connection for each check.
func (b *bench) newConnections() error {
	r, notes, err := b.rates("-H", "Connection: close")
	if err != nil {
		return err
	}
	b.addRatio("cached check, a new connection each, × bare net/http", divide(r[3], r[0]), 0.92, 0.92, true, notes...)
	b.addRatio("cached check, a new connection each, × nginx's constant", divide(r[3], r[1]), 0.88, 1.0, true)
	return nil
}

// keepAlive: what the code itself costs shows where the kernel has least to do.
func (b *bench) keepAlive() error {
	r, notes, err := b.rates()
	if err != nil {
		return err
	}
	b.addRatio("cached check, keep-alive, × bare net/http", divide(r[3], r[0]), 0.85, 1.0, true, notes...)
	return nil
}

// p99: how late the latest one in a hundred is, at a rate that any server could keep up with.
func (b *bench) p99() error {
	const rate, few, many = 2000, 10, 10000
	service, err := startToy(nil)
	if err != nil {
		return err
	}
	defer service.stop()
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	h, err := b.startHacheck("", forLong)
	if err != nil {
		return err
	}
	defer h.stop()
	target := func(services int) func(i int) string {
		return func(i int) string {
			return fmt.Sprintf("/http/service-%d/%d/status-%d", i%services, service.port, i%services)
		}
	}
	if err := b.fill(h, many, "", target(many)); err != nil {
		return err
	}
	contestants := []struct {
		addr     string
		services int
	}{{bare.addr, few}, {h.addr, few}, {h.addr, many}}
	checks := service.asked.Load()
	p50 := make([][]float64, len(contestants))
	p99s, err := b.inTurns(len(contestants), func(i int) (float64, error) {
		took, err := b.held(contestants[i].addr, rate, b.duration, target(contestants[i].services))
		p50[i] = append(p50[i], quantile(took, 0.5))
		return quantile(took, 0.99), err
	})
	if err != nil {
		return err
	}
	if n := service.asked.Load(); n != checks {
		return fmt.Errorf("%d checks were not answered from the cache", n-checks)
	}
	for k, services := range []int{few, many} {
		notes := []string{fmt.Sprintf("p99 %.0f µs (%s), median answer %.0f µs; bare net/http p99 %.0f µs (%s), median answer %.0f µs",
			median(p99s[k+1]), spread(p99s[k+1], "%.0f"), median(p50[k+1]), median(p99s[0]), spread(p99s[0], "%.0f"), median(p50[0]))}
		b.addRatio(fmt.Sprintf("p99 at %d checks/s held, %d services, × bare net/http", rate, services), divide(p99s[k+1], p99s[0]), 1.3, 1.0, false, notes...)
	}
	return nil
}

// override is the content of the file of an override.
const override = `{"reason": "bench", "expiration": null, "creation": 1500000000.5}`

// overrides returns a spool directory with n overrides, one a service.
func (b *bench) overrides(n int) (string, error) {
	dir, err := os.MkdirTemp(b.tmp, "spool-")
	if err != nil {
		return "", err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("down-%d", i)), []byte(override), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// manyTargets: of 11 requests 10 are for targets that are cached and one is for a service with an override; once there
// are many of both, once few.
func (b *bench) manyTargets() error {
	const each = 11
	sizes := []struct{ targets, overrides int }{{10, 10}, {100000, 10000}}
	service, err := startToy(nil)
	if err != nil {
		return err
	}
	defer service.stop()
	// The same number of different requests in both cases.
	requests := sizes[1].targets + sizes[1].overrides
	daemons := make([]*hacheck, len(sizes))
	scripts := make([]string, len(sizes))
	for k, size := range sizes {
		dir, err := b.overrides(size.overrides)
		if err != nil {
			return err
		}
		if daemons[k], err = b.startHacheck(dir, forLong); err != nil {
			return err
		}
		defer daemons[k].stop()
		target := func(i int) string { return fmt.Sprintf("/http/service-%06d/%d/%06d", i, service.port, i) }
		if err := b.fill(daemons[k], size.targets, "Host: x\r\n", target); err != nil {
			return err
		}
		path := fmt.Sprintf(`
    local n, k = floor(i / %d), i %% %[1]d
    if k == %d then
        return format("/http/down-%%d/%d/%%06d", n %% %d, n)
    end
    local target = (n * %[2]d + k) %% %[5]d
    return format("/http/service-%%06d/%[3]d/%%06d", target, target)`, each, each-1, service.port, size.overrides, size.targets)
		if scripts[k], err = b.script(fmt.Sprintf("targets-%d", size.targets), requests, path); err != nil {
			return err
		}
	}
	checks := service.asked.Load()
	rates, err := b.inTurns(len(sizes), func(i int) (float64, error) {
		l, err := b.wrk("http://"+daemons[i].addr, "-s", scripts[i])
		if share := float64(l.not2xx) / float64(l.requests); err == nil && (share < 0.9/each || share > 1.1/each) {
			err = fmt.Errorf("%d of %d answers were overrides, want one in %d", l.not2xx, l.requests, each)
		}
		return l.rate, err
	})
	if err != nil {
		return err
	}
	if n := service.asked.Load(); n != checks {
		return fmt.Errorf("%d checks were not answered from the cache", n-checks)
	}
	b.addRatio("100,000 cached targets and 10,000 overrides, keep-alive, × 10 of each", divide(rates[1], rates[0]), 0.93, 0.98, true,
		fmt.Sprintf("%.0f requests/s (%s), with 10 of each %.0f (%s)", median(rates[1]), spread(rates[1], "%.0f"), median(rates[0]), spread(rates[0], "%.0f")))
	return nil
}

// uncached: hacheck is asked over kept connections and makes a check for each request; the bare client makes the
// same GET, on a new connection each, as checks are. Both of nginx, which costs least; no two checks are the same, or
// they would be answered together.
func (b *bench) uncached() error {
	nginx, err := b.startNginx()
	if err != nil {
		return err
	}
	defer nginx.stop()
	_, port, err := net.SplitHostPort(nginx.addr)
	if err != nil {
		return err
	}
	h, err := b.startHacheck("", "cache_time: 0\n")
	if err != nil {
		return err
	}
	defer h.stop()
	script, err := b.script("uncached", 100000, fmt.Sprintf(`    return format("/http/web/%s/%%d", i)`, port))
	if err != nil {
		return err
	}
	before, err := h.counters()
	if err != nil {
		return err
	}
	asked := 0
	rates, err := b.inTurns(2, func(i int) (float64, error) {
		if i == 0 {
			out, err := exec.CommandContext(b.ctx, b.bare, "-get", "http://"+nginx.addr+"/", "-clients", strconv.Itoa(connections), "-for", b.duration.String()).Output()
			if err != nil {
				return 0, fmt.Errorf("the bare client: %w", err)
			}
			var n int
			var rate float64
			_, err = fmt.Sscan(string(out), &n, &rate)
			return rate, err
		}
		l, err := b.wrk("http://"+h.addr, "-s", script)
		if asked += l.requests; err == nil && l.not2xx > 0 {
			err = fmt.Errorf("%d of %d checks failed", l.not2xx, l.requests)
		}
		return l.rate, err
	})
	if err != nil {
		return err
	}
	after, err := h.counters()
	if err != nil {
		return err
	}
	if n := after.Misses - before.Misses; n < asked || after.Hits != before.Hits {
		return fmt.Errorf("%d answers, but %d misses and %d hits of the cache", asked, n, after.Hits-before.Hits)
	}
	b.addRatio("uncached http check, × the same GET by a bare client", divide(rates[1], rates[0]), 0.85, 0.95, true,
		fmt.Sprintf("%.0f checks/s (%s), the bare client %.0f GETs/s (%s)", median(rates[1]), spread(rates[1], "%.0f"), median(rates[0]), spread(rates[0], "%.0f")))
	return nil
}

// serviceChecks: what the daemon costs that is asked, much more often than balancers do, about a service of ten
// checks whose result is kept for a second. It is the daemon's own time that counts, not how fast it is.
func (b *bench) serviceChecks() error {
	const rate, checks, workers = 1000, 10, 16
	config := "cache_time: 1\nservices:\n  web:\n    checks:\n"
	var accepted atomic.Int64
	for range checks {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return // it is closed
				}
				accepted.Add(1)
				conn.Close()
			}
		}()
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			return err
		}
		config += fmt.Sprintf("      - {type: tcp, port: %s}\n", port)
	}
	h, err := b.startHacheck("", config)
	if err != nil {
		return err
	}
	defer h.stop()
	const path = "/checks/web/0/"
	if err := h.expect(path); err != nil {
		return err
	}
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	// Long turns: the kernel counts the time of a process in hundredths of a second.
	turn, turns := 5*time.Second, max(b.pairs/5, 1)
	share := func(s *server, ask func(s *server, d time.Duration) error) (float64, error) {
		before, err := s.cpu()
		if err != nil {
			return 0, err
		}
		began := time.Now()
		if err := ask(s, turn); err != nil {
			return 0, err
		}
		after, err := s.cpu()
		return 100 * (after - before).Seconds() / time.Since(began).Seconds(), err
	}
	for _, way := range []struct {
		what string
		ask  func(s *server, d time.Duration) error
	}{
		{"a new connection each", func(s *server, d time.Duration) error {
			_, err := b.held(s.addr, rate, d, func(int) string { return path })
			return err
		}},
		{"keep-alive", func(s *server, d time.Duration) error {
			kept := make([]*asker, workers)
			for i := range kept {
				var err error
				if kept[i], err = newAsker(s); err != nil {
					return err
				}
				defer kept[i].conn.Close()
			}
			_, err := paced(rate, d, workers, func(worker, _ int) error {
				code, err := kept[worker].get(path, "Host: x\r\n")
				if err == nil && code != http.StatusOK {
					err = fmt.Errorf("%s answered %d", path, code)
				}
				return err
			})
			return err
		}},
	} {
		before, began := accepted.Load(), time.Now()
		var shares, bares []float64
		for range turns {
			ours, err := share(h.server, way.ask)
			if err != nil {
				return err
			}
			theirs, err := share(bare, way.ask)
			if err != nil {
				return err
			}
			shares, bares = append(shares, ours), append(bares, theirs)
		}
		// Were the checks made once a second while it was asked, all of them?
		least, most := int64(checks*turns*int(turn.Seconds()-1)), int64(checks*(time.Since(began).Seconds()+2))
		if n := accepted.Load() - before; n < least || n > most || n%checks != 0 {
			return fmt.Errorf("%d connections of the checks in %.0f s, want %d to %d", n, time.Since(began).Seconds(), least, most)
		}
		b.addMost(fmt.Sprintf("%d /checks requests/s on %d TCP checks, `cache_time: 1`, %s: processor", rate, checks, way.what), shares, "% of a core", 10, 5,
			fmt.Sprintf("%.0f µs for each request, the checks included; bare net/http at the same rate, without any check, %.2f %% (%s); %d turns of %s each",
				median(shares)/100/rate*1e6, median(bares), spread(bares, "%.2f"), turns, turn))
	}
	return nil
}

// askers: a thousand ask about a target that has never been checked, before its service has answered any of them.
func (b *bench) askers() error {
	const n = 1000
	hold := make(chan struct{})
	service, err := startToy(hold)
	if err != nil {
		return err
	}
	defer service.stop()
	h, err := b.startHacheck("", "")
	if err != nil {
		return err
	}
	defer h.stop()
	var sent, done sync.WaitGroup
	sent.Add(n)
	var good atomic.Int64
	for range n {
		done.Go(func() {
			conn, err := net.Dial("tcp", h.addr)
			if err == nil {
				defer conn.Close()
				_, err = fmt.Fprintf(conn, "GET /http/web/%d/cold HTTP/1.0\r\n\r\n", service.port)
			}
			sent.Done()
			if err != nil {
				return
			}
			if answer, err := io.ReadAll(conn); err == nil && bytes.Contains(answer, []byte(" 200 OK\r\n")) {
				good.Add(1)
			}
		})
	}
	sent.Wait()
	close(hold)
	done.Wait()
	if good.Load() != n {
		return fmt.Errorf("%d of %d askers were answered 200", good.Load(), n)
	}
	b.addExact("1,000 askers of one cold target: checks", int(service.asked.Load()), 1)
	return nil
}

// stale: as soon as a writer has returned, the daemon is asked, and must know. Writers are the package that
// the commands use (most tries: no process to start) and the commands themselves; other clients keep the daemon busy.
func (b *bench) stale() error {
	h, err := b.startHacheck("", forLong)
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
			"stale answers after a writer in this process returned", 95000 / b.share,
			func() error { return dir.Write(spool.Entry{Key: key, State: spool.Down, Reason: "bench"}) },
			func() error { return dir.Remove(key) },
		},
		{
			"stale answers after hadown or haup returned", 5000 / b.share,
			func() error { return command("hadown", "-r", "bench") },
			func() error { return command("haup") },
		},
	}

	a, err := newAsker(h.server)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	busy := exec.CommandContext(b.ctx, "wrk", "-t", "1", "-c", "4", "-d", "3600s", "http://"+h.addr+"/spool/other/0/")
	if err := busy.Start(); err != nil {
		return err
	}
	defer func() {
		_ = busy.Process.Kill() // it is to end, and Wait would only say that it was killed
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

// hadown: what an operator's loop over many hosts waits for.
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
	tries := max(400/b.share, 40)
	over, hadown, empty := make([]float64, tries), make([]float64, tries), make([]float64, tries)
	for i := range tries {
		// Another service each time, as an operator does; by turns one and the other goes first.
		for k := range 2 {
			if (i+k)%2 == 0 {
				empty[i], err = run(b.nop)
			} else {
				hadown[i], err = run(filepath.Join(b.bin, "hadown"), "--spool-root", root, "-r", "kernel upgrade", fmt.Sprintf("web-%d", i))
			}
			if err != nil {
				return err
			}
		}
		over[i] = hadown[i] - empty[i]
	}
	b.addMost("`hadown svc`, whole process, over an empty Go program", over, "ms", 3, 2,
		fmt.Sprintf("%.2f ms (%s), an empty Go program %.2f ms (%s), %d runs of each", median(hadown), spread(hadown, "%.2f"), median(empty), spread(empty, "%.2f"), tries))
	return nil
}

// memory: one daemon, measured as it grows.
func (b *bench) memory() error {
	service, err := startToy(nil)
	if err != nil {
		return err
	}
	defer service.stop()
	h, err := b.startHacheck("", forLong)
	if err != nil {
		return err
	}
	defer h.stop()
	private := func(what string, floor, goal float64) error {
		// The figure is of a daemon at rest, not of one that is just answering.
		select {
		case <-time.After(time.Second):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
		anon, all, err := h.memory()
		if err != nil {
			return err
		}
		b.addMost("private memory (RssAnon) "+what, []float64{anon}, "MB", floor, goal, fmt.Sprintf("whole RSS %.1f MB", all))
		if what == "idle" {
			b.addMost("whole RSS idle", []float64{all}, "MB", 24, 24)
		}
		return nil
	}
	if err := private("idle", 5, 3); err != nil {
		return err
	}
	path := fmt.Sprintf("/http/web/%d/status", service.port)
	if err := h.expect(path); err != nil {
		return err
	}
	for range 3 {
		for _, args := range [][]string{{}, {"-H", "Connection: close"}} {
			if _, err := b.rate("http://"+h.addr+path, args...); err != nil {
				return err
			}
		}
	}
	if err := private("after load", 12, 8); err != nil {
		return err
	}
	filled := 0
	for _, size := range []struct {
		targets     int
		what        string
		floor, goal float64
	}{{10000, "10,000 targets", 25, 18}, {100000, "100,000 targets", 100, 60}} {
		from := filled
		err := b.fill(h, size.targets-from, "", func(i int) string {
			return fmt.Sprintf("/http/service-%06d/%d/status?%06d", from+i, service.port, from+i)
		})
		if err != nil {
			return err
		}
		filled = size.targets
		if err := private("with "+size.what+" cached", size.floor, size.goal); err != nil {
			return err
		}
	}
	return nil
}

// startUp: from the start of the process to its first answer, with as many overrides as a host may have.
func (b *bench) startUp() error {
	const files = 10000
	dir, err := b.overrides(files)
	if err != nil {
		return err
	}
	var took []float64
	for range max(b.pairs, 5) {
		ms, err := b.firstAnswer(dir, fmt.Sprintf("/spool/down-%d/0/", files-1))
		if err != nil {
			return err
		}
		took = append(took, ms)
	}
	b.addMost("from start to first answer, 10,000 spool files", took, "ms", 100, 30, fmt.Sprintf("%d starts", len(took)))
	return nil
}

// firstAnswer starts a daemon and returns how many milliseconds later it has answered, rightly.
func (b *bench) firstAnswer(spoolRoot, path string) (float64, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.bin, "hacheck"), "-B", "127.0.0.1", "-p", strconv.Itoa(port), "--spool-root", spoolRoot)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill() // it is to end, and Wait would only say that it was killed
		_ = cmd.Wait()
	}()
	for time.Since(began) < 30*time.Second {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			time.Sleep(200 * time.Microsecond) // the port is tried so often that the first answer is known to a fifth of a millisecond
			continue
		}
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
		var answer []byte
		if err == nil {
			answer, err = io.ReadAll(conn)
		}
		took := time.Since(began)
		conn.Close()
		if err != nil || !strings.Contains(string(answer), "503 Service Unavailable\r\n") {
			return 0, fmt.Errorf("the first answer is %q: %w", answer, err)
		}
		return float64(took) / float64(time.Millisecond), nil
	}
	return 0, errors.New("no answer in 30 s")
}
