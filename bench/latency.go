package main

import (
	"fmt"
)

// p99 measures the 99th percentile of the latency at a rate that no contestant is overloaded by.
func (b *bench) p99() error {
	const rate, few, many = 2000, 10, 10000
	service, err := startTestService(nil)
	if err != nil {
		return err
	}
	defer service.stop()
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	h, err := b.startHacheck("", cacheForAnHour)
	if err != nil {
		return err
	}
	defer h.stop()
	target := func(services int) func(i int) string {
		return func(i int) string {
			return fmt.Sprintf("/http/service-%d/%d/status-%d", i%services, service.port, i%services)
		}
	}
	if err := b.fillCache(h, many, "", target(many)); err != nil {
		return err
	}
	contestants := []struct {
		addr     string
		services int
	}{{bare.addr, few}, {h.addr, few}, {h.addr, many}}
	checks := service.requests.Load()
	p50 := make([][]float64, len(contestants))
	p99s, err := b.interleave(len(contestants), func(i int) (float64, error) {
		took, err := b.latencies(contestants[i].addr, rate, b.duration, target(contestants[i].services))
		p50[i] = append(p50[i], quantile(took, 0.5))
		return quantile(took, 0.99), err
	})
	if err != nil {
		return err
	}
	if n := service.requests.Load(); n != checks {
		return fmt.Errorf("%d checks were not answered from the cache", n-checks)
	}
	for k, services := range []int{few, many} {
		notes := []string{fmt.Sprintf("p99 %.0f µs (%s), median answer %.0f µs; bare net/http p99 %.0f µs (%s), median answer %.0f µs",
			median(p99s[k+1]), spread(p99s[k+1], "%.0f"), median(p50[k+1]), median(p99s[0]), spread(p99s[0], "%.0f"), median(p50[0]))}
		b.addAtMost(fmt.Sprintf("p99 at %d checks/s held, %d services, × bare net/http", rate, services), ratios(p99s[k+1], p99s[0]), 1.2, "×", notes...)
	}
	return nil
}
