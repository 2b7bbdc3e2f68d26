package main

import (
	"net/http"

	"hacheck/internal/balancer"
	"hacheck/internal/health"
	"hacheck/internal/metrics"
)

// metrics is the page at /metrics: what each part of the daemon has counted.
func (d *daemon) metrics() http.Handler {
	return metrics.Handler(metrics.Sources{
		Version:   version,
		Judge:     func() health.Stats { return d.judge.Load().Stats() },
		Counters:  d.counters,
		Spool:     d.index.Stats,
		Overrides: d.index.List,
		Balancers: func() balancer.Report { return d.balancers.Report("") },
		Refused:   func() uint64 { return d.door.Refused() },
		Reloads: func() metrics.Reloads {
			return metrics.Reloads{
				Done: d.reloads.done.Load(), Failed: d.reloads.failed.Load(),
				Last: float64(d.reloads.last.Load()) / 1e3,
			}
		},
		Services: func() []metrics.Service {
			if !d.conf.Load().MetricsPerService {
				return nil
			}
			var list []metrics.Service
			for _, s := range d.web.Seen() {
				list = append(list, metrics.Service{Name: s.Service, Up: s.Code == http.StatusOK, Answers: s.Answers})
			}
			return list
		},
	})
}
