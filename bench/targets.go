package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// overrideJSON is the content of the file of an override.
const overrideJSON = `{"reason": "bench", "expiration": null, "creation": 1500000000.5}`

// writeOverrides creates a spool directory with n overrides, one per service, and returns its path.
func (b *bench) writeOverrides(n int) (string, error) {
	dir, err := os.MkdirTemp(b.tmp, "spool-")
	if err != nil {
		return "", err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("down-%d", i)), []byte(overrideJSON), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// manyTargets compares few, many and very many targets. Of 11 requests 10 are for cached targets and one is for a
// service with an override. Each service has one URL, as with balancers: the daemon has a row for each URL of a client.
func (b *bench) manyTargets() error {
	const each = 11
	sizes := []struct {
		targets, overrides int
		floor              float64 // of the ratio to the first size
	}{{10, 10, 0}, {1000, 1000, 0.95}, {100000, 10000, 0.80}}
	service, err := startTestService(nil)
	if err != nil {
		return err
	}
	defer service.stop()
	// All sizes have the same number of different requests.
	largest := sizes[len(sizes)-1]
	requests := largest.targets + largest.overrides
	daemons := make([]*hacheck, len(sizes))
	scripts := make([]string, len(sizes))
	for k, size := range sizes {
		dir, err := b.writeOverrides(size.overrides)
		if err != nil {
			return err
		}
		if daemons[k], err = b.startHacheck(dir, cacheForAnHour); err != nil {
			return err
		}
		defer daemons[k].stop()
		target := func(i int) string { return fmt.Sprintf("/http/service-%06d/%d/%06d", i, service.port, i) }
		if err := b.fillCache(daemons[k], size.targets, "Host: x\r\n", target); err != nil {
			return err
		}
		text := fmt.Sprintf(`
    local n, k = floor(i / %d), i %% %[1]d
    if k == %d then
        local down = n %% %[4]d
        return format(head("/http/down-%%d/%[3]d/%%06d"), down, down, i)
    end
    local target = (n * %[2]d + k) %% %[5]d
    return format(head("/http/service-%%06d/%[3]d/%%06d"), target, target, i)`, each, each-1, service.port, size.overrides, size.targets)
		if scripts[k], err = b.writeScript(fmt.Sprintf("targets-%d", size.targets), requests, text); err != nil {
			return err
		}
	}
	checks := service.requests.Load()
	rates, err := b.interleave(len(sizes), func(i int) (float64, error) {
		l, err := b.wrk("http://"+daemons[i].addr, "-s", scripts[i])
		if share := float64(l.not2xx) / float64(l.requests); err == nil && (share < 0.9/each || share > 1.1/each) {
			err = fmt.Errorf("%d of %d answers were overrides, want one in %d", l.not2xx, l.requests, each)
		}
		return l.rate, err
	})
	if err != nil {
		return err
	}
	if n := service.requests.Load(); n != checks {
		return fmt.Errorf("%d checks were not answered from the cache", n-checks)
	}
	few := fmt.Sprintf("with 10 of each %.0f requests/s (%s)", median(rates[0]), spread(rates[0], "%.0f"))
	for k, size := range sizes[1:] {
		r := rates[k+1]
		b.addAtLeast(fmt.Sprintf("%s cached targets and %s overrides, keep-alive, × 10 of each", thousands(size.targets), thousands(size.overrides)), ratios(r, rates[0]), size.floor,
			fmt.Sprintf("%.0f requests/s (%s), %s", median(r), spread(r, "%.0f"), few))
	}
	return nil
}
