package metrics

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/fleet/report"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

type noOverrides struct{}

func (noOverrides) Lookup(string, string, uint16, bool) spool.View { return spool.View{} }

// scrape returns the page of a judge that has answered a few times.
func scrape(t *testing.T, services func() []Service, fleet func() *report.Status) string {
	t.Helper()
	checks := check.Set{
		"spool": {Name: "spool", PortOptional: true},
		"tcp": {Name: "tcp", Check: func(_ context.Context, t check.Target) check.Result {
			if t.Port == 81 {
				return check.Result{Code: 503, Reason: check.ReasonRefused, Took: 3 * time.Millisecond}
			}
			return check.Result{Code: 200, Took: 20 * time.Second}
		}},
	}
	counters := health.NewCounters(checks)
	judge := health.New(health.Options{
		Overrides: noOverrides{}, Checks: checks, CacheTime: time.Minute, CacheTimeDown: time.Minute, CacheMaxEntries: 10,
		CacheMaxBytes: 1 << 20, Timeout: time.Minute, MaxClients: 2, Counters: counters, Log: slog.New(slog.DiscardHandler),
	})
	for _, port := range []uint16{80, 80, 81} {
		judge.Evaluate(&health.Request{Target: check.Target{Protocol: "tcp", Service: "web", Host: "127.0.0.1", Port: port}, Local: true})
	}
	h := Handler(Sources{
		Version:   "1.2.3",
		Evaluator: judge.Stats,
		Counters:  counters,
		Spool:     func() spool.Stats { return spool.Stats{Events: 7, Rescans: 2, Watching: true} },
		Overrides: func() []spool.Entry {
			at := func(s int64) time.Time { return time.Unix(s, 0) }
			return []spool.Entry{
				{Key: spool.Key{Service: "all"}, State: spool.Down, Created: at(1700000200)},
				{Key: spool.Key{Service: "web"}, State: spool.Down, Created: at(1700000100)},
				{Key: spool.Key{Service: "web", Port: 80}, State: spool.Maint, Created: at(1700000000), Expires: at(4000000000)},
				{Key: spool.Key{Service: "old"}, State: spool.Maint},
			}
		},
		Weights: func() []spool.Weight {
			return []spool.Weight{{Percent: 5, Created: time.Unix(1700000200, 0)}, {Percent: 5, Created: time.Unix(1700000100, 0)}, {Percent: 5, Created: time.Unix(1700000000, 0), Expires: time.Unix(4000000000, 0)}}
		},
		Balancers: func() balancer.Report {
			return balancer.Report{Balancers: []balancer.ServerView{{Silent: true}, {}, {}}, UnrecordedRequests: 9}
		},
		Refused:  func() uint64 { return 5 },
		Reloads:  func() Reloads { return Reloads{Done: 3, Failed: 1, Last: 1795215735.5} },
		Services: services,
		Fleet:    fleet,
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("%d, %v: %s", w.Code, err, body)
	}
	return string(body)
}

// TestFigures: each figure is where it belongs.
func TestFigures(t *testing.T) {
	t.Parallel()
	page := scrape(t, func() []Service { return []Service{{Name: "web", Up: true, Answers: 3}, {Name: "a-b.c_d"}} }, nil)
	for _, line := range []string{
		`hacheck_build_info{goversion="go`,
		`hacheck_answers_total{protocol="tcp",reason="ok"} 2`,
		`hacheck_answers_total{protocol="tcp",reason="refused"} 1`,
		`hacheck_cache_answers_total{outcome="hit"} 1`,
		`hacheck_cache_answers_total{outcome="miss"} 2`,
		`hacheck_cache_entries 2`,
		`hacheck_cache_renewals_total{result="done"} 0`,
		`hacheck_cache_renewals_total{result="busy"} 0`,
		`hacheck_check_duration_seconds_bucket{protocol="tcp",le="0.0025"} 0`,
		`hacheck_check_duration_seconds_bucket{protocol="tcp",le="0.005"} 1`,
		`hacheck_check_duration_seconds_bucket{protocol="tcp",le="10"} 1`,
		`hacheck_check_duration_seconds_bucket{protocol="tcp",le="+Inf"} 2`,
		`hacheck_check_duration_seconds_sum{protocol="tcp"} 20.003`,
		`hacheck_overrides{state="down"} 2`,
		`hacheck_overrides{state="drain"} 0`,
		`hacheck_overrides{state="maint"} 2`,
		`hacheck_override_of_all{state="down"} 1`,
		`hacheck_override_of_all{state="maint"} 0`,
		`hacheck_override_oldest_timestamp_seconds{state="down"} 1.7000001e+09`,
		`hacheck_weights 3`,
		`hacheck_weight_oldest_timestamp_seconds 1.7000001e+09`,
		`hacheck_balancer_requests_not_kept_total 9`,
		`hacheck_spool_events_total 7`,
		`hacheck_spool_watching 1`,
		`hacheck_balancers{silent="false"} 2`,
		`hacheck_balancers{silent="true"} 1`,
		`hacheck_remote_changes_refused_total 5`,
		`hacheck_config_reloads_total{result="done"} 3`,
		`hacheck_config_reloads_total{result="failed"} 1`,
		`hacheck_config_last_reload_timestamp_seconds 1.7952157355e+09`,
		`hacheck_service_up{service="web"} 1`,
		`hacheck_service_up{service="a-b.c_d"} 0`,
		`hacheck_service_answers_total{service="web"} 3`,
		`process_resident_memory_bytes `,
	} {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("missing: %s", line)
		}
	}
	if strings.Contains(page, `oldest_timestamp_seconds{state="maint"}`) {
		t.Error("an override that ends by itself, or whose age nobody knows, is called the oldest")
	}
	if t.Failed() {
		t.Log(page)
	}
	if page := scrape(t, func() []Service { return nil }, nil); strings.Contains(page, "service=") {
		t.Error("figures for services though none are wanted")
	}
}

// testFleet is the state of a host whose etcd answered 90 s ago.
func testFleet() *report.Status {
	confirmed := time.Now().Add(-90 * time.Second)
	return &report.Status{Confirmed: &confirmed, Left: true, Lost: 2, Overrides: 7, Permit: "used", Queued: 1, Errors: 11, Hosts: 20}
}

// TestFleetFigures: a host in a fleet has its figures, and no other host.
func TestFleetFigures(t *testing.T) {
	t.Parallel()
	page := scrape(t, nil, testFleet)
	for _, line := range []string{
		"hacheck_fleet_connected 0", "hacheck_fleet_revision_age_seconds 90.", "hacheck_fleet_hosts 20", "hacheck_fleet_overrides 7",
		"hacheck_fleet_overrides_lost 2", `hacheck_fleet_permits{phase="asked"} 0`, `hacheck_fleet_permits{phase="used"} 1`,
		"hacheck_fleet_queued 1", "hacheck_fleet_left 1", "hacheck_fleet_etcd_errors_total 11",
	} {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("missing: %s", line)
		}
	}
	page = scrape(t, nil, func() *report.Status { return &report.Status{Connected: true} })
	if !strings.Contains(page, "\nhacheck_fleet_connected 1\n") || !strings.Contains(page, "\nhacheck_fleet_revision_age_seconds +Inf\n") {
		t.Error("connected, and etcd has confirmed nothing yet: the page says otherwise")
	}
	for _, none := range []func() *report.Status{nil, func() *report.Status { return nil }} {
		if strings.Contains(scrape(t, nil, none), "fleet") {
			t.Error("figures of a fleet without one")
		}
	}
}

// TestFleetMetricsAreDocumented: docs/monitoring.md has a row for each figure of the fleet, and no other.
func TestFleetMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(text, pattern string) map[string]bool {
		found := map[string]bool{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found[m[1]] = true
		}
		return found
	}
	there := names(scrape(t, nil, testFleet), `(?m)^# TYPE (hacheck_fleet_[a-z_]+) `)
	if diff := cmp.Diff(there, names(string(text), "(?m)^\\| `(hacheck_fleet_[a-z_]+)")); diff != "" || len(there) == 0 {
		t.Error(diff)
	}
}

// TestPromtool: Prometheus' own critic has nothing to say.
func TestPromtool(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v; test/install.sh installs it", err)
	}
	cmd := exec.Command(path, "check", "metrics")
	cmd.Stdin = strings.NewReader(scrape(t, func() []Service { return []Service{{Name: "web"}} }, testFleet))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || out.Len() > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out.String())
	}
}
