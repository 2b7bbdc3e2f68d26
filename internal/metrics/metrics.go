// Package metrics exports the daemon's counters to Prometheus. It counts nothing: the other packages have plain
// counters, and each scrape reads them.
package metrics

import (
	"math"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hacheck/internal/balancer"
	"hacheck/internal/cache"
	"hacheck/internal/fleet/report"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// Sources return the figures. All but Fleet and Services are required; each scrape calls them.
type Sources struct {
	Version   string
	Evaluator func() health.Stats
	Counters  *health.Counters
	Spool     func() spool.Stats
	Overrides func() []spool.Entry
	Weights   func() []spool.Weight // in force
	Balancers func() balancer.Report
	Refused   func() uint64 // refused requests POST /spool
	Reloads   func() Reloads
	// Fleet returns the state of the fleet, nil without one. It may be nil.
	Fleet func() *report.Status
	// Certificate returns when the certificate of tls_listen expires, the zero time without one, and whether its files have
	// changed and cannot be used. It may be nil.
	Certificate func() (expires time.Time, broken bool)
	// Services lists the services with recent requests, for one metric each (metrics_per_service). It limits their
	// number. nil, or a nil list, exports none.
	Services func() []Service
}

// Reloads counts the reloads of the configuration by result.
type Reloads struct {
	Done, Failed uint64
	Last         float64 // unix seconds of the last successful reload, or of the start
}

// Service has the figures of one service.
type Service struct {
	Name    string
	Up      bool   // the last answer was 200
	Answers uint64 // since the first request about it
}

// Handler serves /metrics. A failed scrape is answered with its error.
func Handler(s Sources) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
		&collector{s},
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, // a scrape reads tables under their locks
		ErrorHandling:       promhttp.HTTPErrorOnError,
	})
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hacheck_"+name, help, labels, nil)
}

// countFunc and gaugeFunc send one metric with the values of its labels.
type (
	countFunc func(d *prometheus.Desc, v uint64, labels ...string)
	gaugeFunc func(d *prometheus.Desc, v float64, labels ...string)
)

// collector reads the sources for one scrape.
type collector struct{ s Sources }

// Describe sends nothing, which makes this an unchecked collector: the set of metrics depends on the configuration.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the sources.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(prometheus.CounterValue, d, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		send(prometheus.GaugeValue, d, v, labels...)
	}

	gauge(desc("build_info", "A constant 1, by the version of hacheck and of Go.", "version", "goversion"), 1, c.s.Version, runtime.Version())
	c.answers(counter, gauge)
	c.durations(ch)

	c.spool(counter, gauge)
	c.balancers(counter, gauge)
	counter(desc("remote_changes_refused_total", "POST /spool requests that were refused."), c.s.Refused())
	reloads, rl := desc("config_reloads_total", "Reloads of the configuration, by result.", "result"), c.s.Reloads()
	counter(reloads, rl.Done, "done")
	counter(reloads, rl.Failed, "failed")
	gauge(desc("config_last_reload_timestamp_seconds", "When the configuration in force was read."), rl.Last)

	if c.s.Certificate != nil {
		if expires, broken := c.s.Certificate(); !expires.IsZero() {
			gauge(desc("tls_certificate_expiry_timestamp_seconds", "When the certificate of tls_listen expires."), float64(expires.Unix()))
			failed := 0.0
			if broken {
				failed = 1
			}
			gauge(desc("tls_certificate_files_failed", "1 while the files of the certificate have changed and cannot be used."), failed)
		}
	}
	if c.s.Fleet != nil {
		if status := c.s.Fleet(); status != nil {
			fleet(*status, counter, gauge)
		}
	}
	if c.s.Services == nil {
		return
	}
	up := desc("service_up", "1 when the last answer about the service was 200, only with metrics_per_service.", "service")
	asked := desc("service_answers_total", "Answers about the service, only with metrics_per_service.", "service")
	for _, s := range c.s.Services() {
		gauge(up, boolValue(s.Up), s.Name)
		counter(asked, s.Answers, s.Name)
	}
}

// fleet sends the metrics of the fleet, as this host knows it.
func fleet(s report.Status, counter countFunc, gauge gaugeFunc) {
	gauge(desc("fleet_connected", "1 while this host is connected to etcd, only with a fleet."), boolValue(s.Connected))
	age := math.Inf(1)
	if s.Confirmed != nil {
		age = max(time.Since(*s.Confirmed), 0).Seconds()
	}
	gauge(desc("fleet_revision_age_seconds", "Seconds since etcd last confirmed what this host knows of the fleet; +Inf if it never has."), age)
	gauge(desc("fleet_hosts", "Hosts of the fleet that are present, when last read."), float64(s.Hosts))
	gauge(desc("fleet_overrides", "Overrides of the fleet that this host obeys."), float64(s.Overrides))
	gauge(desc("fleet_overrides_lost", "Overrides of the fleet that are gone from etcd without a lift record, and that this host obeys."), float64(s.Lost))
	permits := desc("fleet_permits", "Permits of this host, by phase.", "phase")
	for _, phase := range []string{"asked", "used"} {
		gauge(permits, boolValue(s.Permit == phase), phase)
	}
	gauge(desc("fleet_queued", "Claims of this host that wait for a permit."), float64(s.Queued))
	gauge(desc("fleet_left", "1 while this host ignores overrides of the fleet (hacheck fleet leave)."), boolValue(s.Left))
	counter(desc("fleet_etcd_errors_total", "Calls to etcd that failed."), s.Errors)
}

func (c *collector) spool(counter countFunc, gauge gaugeFunc) {
	st := c.s.Spool()
	overrides := desc("overrides", "Overrides in force, by state.", "state")
	states := map[string]int{}
	ofAll, oldest := spool.Ready, map[spool.State]time.Time{}
	for _, e := range c.s.Overrides() {
		states[e.State.String()]++
		if e.Key == (spool.Key{Service: spool.All}) {
			ofAll = max(ofAll, e.State)
		}
		// An override that ends by itself cannot be forgotten. One without a creation time has no known age.
		if old, ok := oldest[e.State]; e.Expires.IsZero() && !e.Created.IsZero() && (!ok || e.Created.Before(old)) {
			oldest[e.State] = e.Created
		}
	}
	all := desc("override_of_all", "1 when an override of the whole host (all) is in force, by state.", "state")
	since := desc("override_oldest_timestamp_seconds", "When the oldest of the overrides in force that do not end by themselves was set, by state.", "state")
	for _, s := range []spool.State{spool.ForceUp, spool.Drain, spool.Down, spool.Maint} {
		gauge(overrides, float64(states[s.String()]), s.String())
		gauge(all, boolValue(ofAll == s), s.String())
		if at, ok := oldest[s]; ok {
			gauge(since, float64(at.UnixMilli())/1e3, s.String())
		}
	}
	c.weights(gauge)
	counter(desc("spool_events_total", "Kernel events about the spool directory."), st.Events)
	counter(desc("spool_reloads_total", "Spool files read."), st.Reloads)
	counter(desc("spool_rescans_total", "Readings of the whole spool directory."), st.Rescans)
	counter(desc("spool_overflows_total", "Times the kernel dropped events of the spool directory."), st.Overflows)
	counter(desc("spool_errors_total", "Spool files or directories that could not be read."), st.Errors)
	gauge(desc("spool_watching", "1 when the kernel tells of changes in the spool directory, 0 when each request looks for itself."), boolValue(st.Watching))
	gauge(desc("spool_lost", "1 when the spool directory is not where it was, and the last known overrides stand."), boolValue(st.Lost))
}

// weights sends two metrics of all weights together: each weight is in the log, on the page and in hastatus.
func (c *collector) weights(gauge gaugeFunc) {
	list := c.s.Weights()
	gauge(desc("weights", "Weights in force (haup --weight)."), float64(len(list)))
	var oldest time.Time // of those that do not end by themselves
	for _, w := range list {
		if w.Expires.IsZero() && (oldest.IsZero() || w.Created.Before(oldest)) {
			oldest = w.Created
		}
	}
	if !oldest.IsZero() {
		gauge(desc("weight_oldest_timestamp_seconds", "When the oldest of the weights in force that do not end by themselves was set."), float64(oldest.Unix()))
	}
}

func (c *collector) balancers(counter countFunc, gauge gaugeFunc) {
	balancers := desc("balancers", "Balancers' views of servers: those that ask, and those that have fallen silent.", "silent")
	silent, asking := 0, 0
	views := c.s.Balancers()
	for _, b := range views.Balancers {
		if b.Silent {
			silent++
		} else {
			asking++
		}
	}
	gauge(balancers, float64(asking), "false")
	gauge(balancers, float64(silent), "true")
	counter(desc("balancer_requests_not_kept_total", "Check requests whose balancer was not remembered, because too many were."), views.UnrecordedRequests)
}

func (c *collector) answers(counter countFunc, gauge gaugeFunc) {
	answers := desc("answers_total", "Answers, by protocol and by what decided: an override (down, drain, maint, up), or what the check found.", "protocol", "reason")
	for _, a := range c.s.Counters.Answers() {
		counter(answers, a.N, a.Protocol, a.Reason)
	}
	st := c.s.Evaluator()
	byCache := desc("cache_answers_total", "Answers, by X-Hacheck-Cache.", "outcome")
	for o := range cache.NumStatuses {
		counter(byCache, st.Answers[o], o.String())
	}
	gauge(desc("cache_entries", "Results in the cache."), float64(st.Cache.Entries))
	gauge(desc("cache_bytes", "Bytes of the results in the cache."), float64(st.Cache.Bytes))
	counter(desc("cache_uncached_total", "Results that were not cached because the cache was full."), st.Cache.Uncached)
	renewals := desc("cache_renewals_total", "Checks that renewed a cached result before it expired, by result.", "result")
	counter(renewals, st.Renewals.Done, "done")
	counter(renewals, st.Renewals.Busy, "busy")
	gauge(desc("checks_in_flight", "Checks that run now."), float64(st.InFlight+st.Renewals.InFlight-st.Waiting))
	gauge(desc("checks_waiting", "Checks that wait for a slot now (max_clients)."), float64(st.Waiting))
	counter(desc("busy_answers_total", "Answers without a result: no slot was free, or the check did not finish in time."), st.Busy)
}

func (c *collector) durations(ch chan<- prometheus.Metric) {
	d := desc("check_duration_seconds", "How long checks took, by protocol.", "protocol")
	for _, p := range c.s.Counters.Durations() {
		buckets := make(map[float64]uint64, len(p.AtMost))
		for i, n := range p.AtMost {
			buckets[health.DurationBuckets[i]] = n
		}
		ch <- prometheus.MustNewConstHistogram(d, p.Count, p.Sum.Seconds(), buckets, p.Protocol)
	}
}

// boolValue returns 1 for true and 0 for false.
func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
