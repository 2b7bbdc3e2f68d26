package daemon

import (
	"net/http"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/fleet/report"
	"hacheck/internal/health"
	"hacheck/internal/metrics"
)

// metrics returns the page at /metrics, which shows the counters of every part of the daemon.
func (d *daemon) metrics() http.Handler {
	sources := metrics.Sources{
		Version:   d.version,
		Evaluator: func() health.Stats { return d.evaluators.current.Load().Stats() },
		Counters:  d.counters,
		Spool:     d.index.Stats,
		Overrides: d.index.List,
		Weights:   d.index.Weights,
		Balancers: func() balancer.Report { return d.balancers.Report("") },
		Refused:   func() uint64 { return d.proxy.RefusedSpoolChanges() },
		Fleet: func() *report.Status {
			if !d.isInFleet() {
				return nil
			}
			status := d.fleet.Status()
			return &status
		},
		Reloads: func() metrics.Reloads {
			return metrics.Reloads{
				Done: d.reloads.done.Load(), Failed: d.reloads.failed.Load(),
				Last: float64(d.reloads.last.Load()) / 1e3,
			}
		},
		Certificate: func() (time.Time, bool) {
			status := d.certificate.Status()
			return status.Expires, status.Err != nil
		},
		Services: func() []metrics.Service {
			if !d.config.Load().MetricsPerService {
				return nil
			}
			var list []metrics.Service
			for _, s := range d.web.ServiceCounts() {
				list = append(list, metrics.Service{Name: s.Service, Up: s.Code == http.StatusOK, Answers: s.Answers})
			}
			return list
		},
	}
	return metrics.Handler(sources)
}
