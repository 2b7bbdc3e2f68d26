package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// testService is the checked service. It answers OK and counts its requests.
type testService struct {
	port     int
	requests atomic.Int64
	srv      *http.Server
	hold     chan struct{} // if not nil, answers wait until it is closed
}

func startTestService(hold chan struct{}) (*testService, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listening on %v", ln.Addr())
	}
	s := &testService{port: addr.Port, hold: hold}
	s.srv = &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s.requests.Add(1)
			if s.hold != nil {
				<-s.hold
			}
			_, _ = io.WriteString(w, "OK") // the daemon may have closed the connection
		}),
	}
	go func() { _ = s.srv.Serve(ln) }() // returns when it is closed
	return s, nil
}

func (s *testService) stop() { _ = s.srv.Close() }

// uncached compares hacheck, which makes a check for each request, with a client that makes the same GET. Both send it
// to nginx, on a new connection each. hacheck itself is asked over kept connections. All checks are different, because
// hacheck would share one check among equal requests.
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
	script, err := b.writeScript("uncached", 100000, fmt.Sprintf(`    return format(head("/http/web/%s/%%d"), i, i)`, port))
	if err != nil {
		return err
	}
	before, err := h.counters()
	if err != nil {
		return err
	}
	asked := 0
	rates, err := b.interleave(2, func(i int) (float64, error) {
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
	b.addAtLeast("uncached http check, × the same GET by a bare client", ratios(rates[1], rates[0]), 0.85,
		fmt.Sprintf("%.0f checks/s (%s), the bare client %.0f GETs/s (%s)", median(rates[1]), spread(rates[1], "%.0f"), median(rates[0]), spread(rates[0], "%.0f")))
	return nil
}

// serviceChecks measures the daemon's processor time for requests about a service with ten checks, whose result is
// cached for a second. The rate is much higher than that of balancers.
func (b *bench) serviceChecks() error {
	const rate, checks, path = 1000, 10, "/checks/web/0/"
	config := "cache_time: 1\nservices:\n  web:\n    checks:\n"
	var accepted atomic.Int64
	for range checks {
		port, stop, err := countConnections(&accepted)
		if err != nil {
			return err
		}
		defer stop()
		config += fmt.Sprintf("      - {type: tcp, port: %s}\n", port)
	}
	h, err := b.startHacheck("", config)
	if err != nil {
		return err
	}
	defer h.stop()
	if err := h.expectOK(path); err != nil {
		return err
	}
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	// The turns are long, because the kernel counts processor time in hundredths of a second.
	turn, turns := 5*time.Second, max(b.turns/5, 1)
	for _, mode := range []struct {
		what string
		load func(s *server) error
	}{
		{"a new connection each", func(s *server) error {
			_, err := b.latencies(s.addr, rate, turn, func(int) string { return path })
			return err
		}},
		{"keep-alive", func(s *server) error { return keepAliveLoad(s, rate, turn, path) }},
	} {
		before, began := accepted.Load(), time.Now()
		var shares, bares []float64
		for range turns {
			ours, err := cpuShares(func() error { return mode.load(h.server) }, h.server)
			if err != nil {
				return err
			}
			theirs, err := cpuShares(func() error { return mode.load(bare) }, bare)
			if err != nil {
				return err
			}
			shares, bares = append(shares, ours...), append(bares, theirs...)
		}
		// All checks must run once a second during the turns.
		least, most := int64(checks*turns*int(turn.Seconds()-1)), int64(checks*(time.Since(began).Seconds()+2))
		if n := accepted.Load() - before; n < least || n > most || n%checks != 0 {
			return fmt.Errorf("%d connections of the checks in %.0f s, want %d to %d", n, time.Since(began).Seconds(), least, most)
		}
		b.addInformation(fmt.Sprintf("%d /checks requests/s on %d TCP checks, `cache_time: 1`, %s: processor", rate, checks, mode.what), shares, "% of a core",
			fmt.Sprintf("%.0f µs for each request, the checks included; bare net/http at the same rate, without any check, %.2f %% (%s); %d turns of %s each",
				median(shares)/100/rate*1e6, median(bares), spread(bares, "%.2f"), turns, turn))
	}
	return nil
}

// countConnections listens on a port, closes every connection and counts them in accepted.
func countConnections(accepted *atomic.Int64) (port string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
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
	_, port, err = net.SplitHostPort(ln.Addr().String())
	return port, func() { ln.Close() }, err
}

// cpuShares returns the processor time of each server while load runs, in percent of a core.
func cpuShares(load func() error, servers ...*server) (shares []float64, err error) {
	before := make([]time.Duration, len(servers))
	for i, s := range servers {
		if before[i], err = s.cpu(); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	if err := load(); err != nil {
		return nil, err
	}
	took := time.Since(began)
	for i, s := range servers {
		after, err := s.cpu()
		if err != nil {
			return nil, err
		}
		shares = append(shares, 100*(after-before[i]).Seconds()/took.Seconds())
	}
	return shares, nil
}

// keepAliveLoad requests path at a constant rate over kept connections. Every answer must be 200.
func keepAliveLoad(s *server, rate int, d time.Duration, path string) error {
	const workers = 16
	clients := make([]*keepAliveClient, workers)
	for i := range clients {
		var err error
		if clients[i], err = newKeepAliveClient(s); err != nil {
			return err
		}
		defer clients[i].conn.Close()
	}
	_, err := callAtRate(rate, d, workers, func(worker, _ int) error {
		code, err := clients[worker].get(path, "Host: x\r\n")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%s answered %d", path, code)
		}
		return err
	})
	return err
}

// coldTarget counts the checks that 1,000 concurrent requests for an uncached target cause. The service answers after
// all requests are sent.
func (b *bench) coldTarget() error {
	const n = 1000
	hold := make(chan struct{})
	service, err := startTestService(hold)
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
	b.addExact("1,000 askers of one cold target: checks", int(service.requests.Load()), 1)
	return nil
}
