package test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"hacheck/internal/spool"
	"hacheck/test/servertest"
)

const (
	rulesFile     = "../packaging/prometheus/hacheck.rules.yml"
	rulesTestFile = "../packaging/prometheus/hacheck.rules.test.yml"
	dashboardFile = "../packaging/grafana/hacheck.json"
)

// startBusyDaemon starts a daemon and causes one event of every kind.
func startBusyDaemon(t *testing.T) *daemon {
	t.Helper()
	cert, key := servertest.NewAuthority(t).Issue(t, "hacheck")
	d := startDaemon(t, fmt.Sprintf("metrics_per_service: true\nhealthcheck_timeout: 1\ncache_max_entries: 1\n"+
		"tls_listen: 127.0.0.1:0\ntls_cert_file: %s\ntls_key_file: %s\n", cert, key))
	web := startService(t, "127.0.0.1", 0, serveOK)
	sick := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	d.mustRun("hadown", "down-now", "-r", "why")
	d.mustRun("hadown", "ends", "--for", "1h", "-r", "why")
	dir, err := spool.OpenDir(d.spool)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.WriteWeight(spool.Weight{Key: spool.Key{Service: "canary"}, Percent: 5}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/spool/web/0/", "/spool/down-now/0/", "/http/web/%d/", "/http/web/%d/", "/http/web/%d/other", "/http/sick/%[2]d/",
		"/tcp/web/%d/", fmt.Sprintf("/tcp/web/%d/", freePort(t)), "/tcp/web/0/", "/smtp/web/%d/", "/redis/web/%d/", "/mysql/web/%d/", "/checks/web/0/",
	} {
		if strings.Contains(path, "%") {
			path = fmt.Sprintf(path+"%[3]s", web.port, sick.port, "")
		}
		d.get(path)
	}
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/http/web/%d/", d.url, web.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Haproxy-Server-State", "UP; name=be/web; node=lb1; weight=1/2; scur=0/0; qcur=0")
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	resp, err = client.PostForm(d.url+"/spool/web/0/", url.Values{"status": {"up"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.get("/spool/all/0/")
	d.mustRun("hadown", "all", "-r", "why")
	eventually(t, func() error {
		if page := d.get("/metrics").body; !strings.Contains(page, `hacheck_config_reloads_total{result="done"} 1`) {
			return fmt.Errorf("not reloaded")
		}
		return nil
	})
	return d
}

// metricName matches a metric of hacheck or of the Go and process collectors in a text.
var metricName = regexp.MustCompile(`\b(?:hacheck|process|go|promhttp)_[a-z0-9_]+\b`)

// family returns the metric name of a histogram series.
func family(name string, page map[string]bool) string {
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if base := strings.TrimSuffix(name, part); base != name && page[base] {
			return base
		}
	}
	return name
}

// metricsOn returns the names of the metrics on a page at /metrics.
func metricsOn(page string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(page) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "#" && f[1] == "TYPE" {
			names[f[2]] = true
		}
	}
	return names
}

// readFile returns the content of a file.
func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// expressions returns every expression of the dashboard, with values for its variables.
func expressions(t *testing.T) []string {
	t.Helper()
	type target struct {
		Expr string `json:"expr"`
	}
	var board struct {
		Title  string `json:"title"`
		Panels []struct {
			ID      int      `json:"id"`
			Type    string   `json:"type"`
			Title   string   `json:"title"`
			Targets []target `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(readFile(t, dashboardFile)), &board); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	fill := strings.NewReplacer("$job", "hacheck", "$instance", ".+", "$__rate_interval", "5m")
	var list []string
	ids := map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("panel %d is there twice", p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && (p.Title == "" || len(p.Targets) == 0) {
			t.Errorf("panel %d %q shows nothing", p.ID, p.Title)
		}
		for _, tg := range p.Targets {
			e := fill.Replace(tg.Expr)
			if strings.Contains(e, "$") {
				t.Errorf("panel %q has a variable that nobody fills in: %s", p.Title, e)
			}
			list = append(list, e)
		}
	}
	if len(list) < 20 {
		t.Errorf("the dashboard has %d expressions only", len(list))
	}
	return list
}

// TestMetricsPage: promlint finds no problem in /metrics of a busy daemon. docs/monitoring.md lists exactly its
// metrics, and the rules, the dashboard and the documents name only metrics that exist.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	page := startBusyDaemon(t).get("/metrics").body
	critic := exec.Command(findTool(t, "promtool"), "check", "metrics")
	critic.Stdin = strings.NewReader(page)
	if out, err := critic.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	there := metricsOn(page)
	for _, file := range []string{rulesFile, rulesTestFile, dashboardFile, "../docs/monitoring.md", "../docs/operating.md", "../docs/security.md"} {
		text := readFile(t, file)
		named := 0
		for _, name := range metricName.FindAllString(text, -1) {
			if strings.HasSuffix(name, "_") || strings.HasPrefix(name, "hacheck_fleet_") { // process_*; see TestFleetMetricsAreDocumented
				continue
			}
			named++
			if !there[family(name, there)] {
				t.Errorf("%s names %s, which is not on the page at /metrics", file, name)
			}
		}
		if named == 0 && file != "../docs/security.md" {
			t.Errorf("%s names no metric: this test looks for the wrong thing", file)
		}
	}
	listed := map[string]bool{}
	for line := range strings.Lines(readFile(t, "../docs/monitoring.md")) {
		if m := regexp.MustCompile("^\\| `(hacheck_[a-z_]+)").FindStringSubmatch(line); m != nil {
			listed[m[1]] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if strings.HasPrefix(name, "hacheck_") && !listed[name] {
			t.Errorf("docs/monitoring.md has no row for %s", name)
		}
	}
}

// TestRules: the alert rules are valid and pass their tests. Each alert has a test and a text that says what to do.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}} {
		if out, err := exec.Command(findTool(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	rules, tests := readFile(t, rulesFile), readFile(t, rulesTestFile)
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(rules, -1)
	if n := strings.Count(rules, "summary: "); n != len(alerts) || n == 0 {
		t.Errorf("%d alerts, %d summaries", len(alerts), n)
	}
	for _, a := range alerts {
		_, tested, ok := strings.Cut(tests, "alertname: "+a[1]+"\n")
		tested, _, _ = strings.Cut(tested, "alertname: ")
		if !ok || !strings.Contains(tested, "exp_labels") {
			t.Errorf("no test has %s fire", a[1])
		}
		if doc := readFile(t, "../docs/monitoring.md"); !strings.Contains(doc, "`"+a[1]+"`") {
			t.Errorf("docs/monitoring.md does not say what to do about %s", a[1])
		}
	}
}

// TestDocumentedScrape: Prometheus accepts the example of docs/monitoring.md together with the rules.
func TestDocumentedScrape(t *testing.T) {
	t.Parallel()
	_, example, ok := strings.Cut(readFile(t, "../docs/monitoring.md"), "```yml\n")
	example, _, closed := strings.Cut(example, "```")
	if !ok || !closed {
		t.Fatal("docs/monitoring.md has no ```yml block")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"prometheus.yml": example, "hacheck.rules.yml": readFile(t, rulesFile)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(findTool(t, "promtool"), "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool check config: %v\n%s", err, out)
	}
}

// TestPrometheus: a real Prometheus scrapes a real daemon, loads the rules and evaluates every expression of the
// dashboard.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	d := startBusyDaemon(t)
	dir := t.TempDir()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs:\n"+
		"  - {job_name: hacheck, static_configs: [{targets: [%q]}]}\n", rules, d.addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + strconv.Itoa(freePort(t))
	p := start(t, findTool(t, "prometheus"), "--config.file="+conf, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--log.level=warn")
	p.waitReady(t, addr)

	ask := func(path string, into any) error {
		a, err := get("http://" + addr + path)
		if err != nil {
			return err
		}
		if a.code != 200 {
			return fmt.Errorf("%s: %d %s", path, a.code, a.body)
		}
		return json.Unmarshal([]byte(a.body), into)
	}
	// query returns the value of an instant query that has one result.
	query := func(expr string) (string, error) {
		var q struct {
			Status string
			Data   struct {
				ResultType string
				Result     []struct{ Value [2]any }
			}
		}
		if err := ask("/api/v1/query?query="+url.QueryEscape(expr), &q); err != nil {
			return "", err
		}
		if q.Status != "success" {
			return "", fmt.Errorf("%s: %s", expr, q.Status)
		}
		if len(q.Data.Result) != 1 {
			return "", nil
		}
		return fmt.Sprint(q.Data.Result[0].Value[1]), nil
	}
	for expr, want := range map[string]string{
		`up{job="hacheck"}`:                                                 "1",
		`hacheck_build_info{version="1.2.3"}`:                               "1",
		`hacheck_overrides{state="down"}`:                                   "3",
		`hacheck_override_of_all{state="down"}`:                             "1",
		`hacheck_answers_total{protocol="spool",reason="down"}`:             "1",
		`hacheck_check_duration_seconds_count{protocol="tcp"} >= bool 2`:    "1",
		`hacheck_service_up{service="sick"}`:                                "0",
		`hacheck_balancers{silent="false"} + hacheck_balancers{silent="x"}`: "",
		`hacheck_remote_changes_refused_total`:                              "1",
	} {
		eventually(t, func() error {
			got, err := query(expr)
			if err == nil && got != want {
				err = fmt.Errorf("%s is %q, want %q", expr, got, want)
			}
			return err
		})
	}
	for _, expr := range expressions(t) {
		if _, err := query(expr); err != nil {
			t.Errorf("the dashboard asks what Prometheus does not understand: %v", err)
		}
	}
	eventually(t, func() error {
		var r struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := ask("/api/v1/rules", &r); err != nil {
			return err
		}
		n := 0
		for _, g := range r.Data.Groups {
			for _, rule := range g.Rules {
				if n++; rule.Health != "ok" {
					return fmt.Errorf("rule %s: %s %s", rule.Name, rule.Health, rule.LastError)
				}
			}
		}
		if want := strings.Count(readFile(t, rulesFile), "- alert: "); n != want {
			return fmt.Errorf("%d rules, want %d", n, want)
		}
		return nil
	})
	if out := p.out.String(); out != "" {
		t.Errorf("Prometheus complains:\n%s", out)
	}
}

// TestMetricsPerServiceBounded: a client chooses the names of services, so the number of metrics for them has a
// limit.
func TestMetricsPerServiceBounded(t *testing.T) {
	t.Parallel()
	const limit, asked = 10_000, 10_500
	d := startDaemon(t, "metrics_per_service: true\n")
	keep := &http.Client{Transport: &http.Transport{}, Timeout: waitLimit}
	defer keep.CloseIdleConnections()
	for i := range asked {
		resp, err := keep.Get(fmt.Sprintf("%s/spool/service-%d/0/", d.url, i))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	page := d.get("/metrics").body
	for _, name := range []string{"hacheck_service_up{", "hacheck_service_answers_total{"} {
		if n := strings.Count(page, "\n"+name); n != limit {
			t.Errorf("%d of %s, want %d", n, name, limit)
		}
	}
	if !strings.Contains(page, fmt.Sprintf("\nhacheck_balancer_requests_not_kept_total %d\n", asked-limit)) {
		t.Errorf("the page does not say that %d requests were not remembered", asked-limit)
	}
}

// metric returns the value of a metric at /metrics.
func (d *daemon) metric(name string) float64 {
	d.t.Helper()
	page := d.get("/metrics").body
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(page)
	if m == nil {
		d.t.Fatalf("no %s on the page:\n%s", name, page)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}
