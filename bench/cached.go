package main

import (
	"fmt"
)

// The contestants of the rows about a cached check, in the order in which startContestants starts them.
const (
	bareConstant = iota
	nginxConstant
	haproxyConstant
	hacheckCached
)

// startContestants starts the servers of a constant answer, and hacheck with one service whose result is cached. All of
// them are asked for path. The caller must call stop.
func (b *bench) startContestants() (contestants []*server, h *hacheck, path string, stop func(), err error) {
	service, err := startTestService(nil)
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
	if h, err = b.startHacheck("", cacheForAnHour); err != nil {
		return contestants, nil, "", nil, err
	}
	contestants = append(contestants, h.server)
	path = fmt.Sprintf("/http/web/%d/status", service.port)
	for _, s := range contestants {
		if err = s.expectOK(path); err != nil {
			return contestants, nil, "", nil, err
		}
	}
	return contestants, h, path, func() { stopAll(contestants); service.stop() }, nil
}

// cachedRates returns the rates of all contestants for a cached check.
func (b *bench) cachedRates(args ...string) (rates [][]float64, notes []string, err error) {
	contestants, h, path, stop, err := b.startContestants()
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	before, err := h.counters()
	if err != nil {
		return nil, nil, err
	}
	asked := 0
	rates, err = b.interleave(len(contestants), func(i int) (float64, error) {
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
	// Check wrk's count against hacheck's count of cache hits. Each turn ends with requests in flight.
	after, err := h.counters()
	if err != nil {
		return nil, nil, err
	}
	hits, maxHits := after.Hits-before.Hits, asked+(b.turns+1)*2*connections
	if hits < asked || hits > maxHits || after.Misses != before.Misses {
		return nil, nil, fmt.Errorf("wrk counted %d answers, hacheck %d hits and %d misses", asked, hits, after.Misses-before.Misses)
	}
	for i, s := range contestants {
		notes = append(notes, fmt.Sprintf("%s %.0f requests/s (%s)", s.name, median(rates[i]), spread(rates[i], "%.0f")))
	}
	return rates, notes, nil
}

// newConnections measures a cached check with a new connection each, as balancers ask.
func (b *bench) newConnections() error {
	r, notes, err := b.cachedRates("-H", "Connection: close")
	if err != nil {
		return err
	}
	const what = "cached check, a new connection each, × "
	b.addAtLeast(what+"HAProxy's constant", ratios(r[hacheckCached], r[haproxyConstant]), 0.90, notes...)
	b.addAtLeast(what+"nginx's constant", ratios(r[hacheckCached], r[nginxConstant]), 0.90)
	b.addAtLeast(what+"bare net/http", ratios(r[hacheckCached], r[bareConstant]), 1.15)
	return nil
}

// keepAlive measures a cached check over kept connections, where the kernel's share of the cost is smallest.
func (b *bench) keepAlive() error {
	r, notes, err := b.cachedRates()
	if err != nil {
		return err
	}
	const what = "cached check, keep-alive, × "
	b.addAtLeast(what+"HAProxy's constant", ratios(r[hacheckCached], r[haproxyConstant]), 0.78, notes...)
	b.addAtLeast(what+"bare net/http", ratios(r[hacheckCached], r[bareConstant]), 1.2)
	return nil
}
