package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/balancer"
	"hacheck/internal/fleet/report"
	"hacheck/internal/web"
	"hacheck/test/proxytest"
)

// testFleet is a fleet that has one report.
type testFleet struct {
	report *report.Fleet
	err    error
	status report.Status
	reads  atomic.Int64
}

func (f *testFleet) Report(context.Context) (*report.Fleet, error) {
	f.reads.Add(1)
	return f.report, f.err
}
func (f *testFleet) Status() report.Status { return f.status }

// newFleetServer returns the pages of a host in f, and none if f is nil.
func newFleetServer(f web.Fleet, s web.Settings) *web.Server {
	return web.New(web.Options{
		Log: slog.New(slog.DiscardHandler), Balancers: balancer.New(), Overrides: proxytest.NewOverrides(), Fleet: f,
	}, s)
}

// getPage requests a path from an address of another machine, with an Accept header.
func getPage(s http.Handler, path, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = "192.0.2.7:4711"
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const (
	acceptHTML = "text/html,application/xhtml+xml,*/*;q=0.8"
	acceptJSON = "application/json"
)

var allowAll = web.Settings{StatusAllowed: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}

// smallFleet returns a fleet of three hosts in which everything happens.
func smallFleet() *report.Fleet {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	until := at.Add(time.Hour)
	return &report.Fleet{
		Self: "web1", Prefix: "/hacheck/", Connected: true, Revision: 77, ReadAt: at,
		Overrides: []report.Override{
			{Scope: "group:rack7", Service: "web", State: "maint", Reason: "new switch", By: "alice", Created: at, Expires: &until},
			{Scope: "all", Service: "mail", State: "up", By: "bob", Created: at, Lost: true},
		},
		Services: []report.Service{
			{Name: "mail", Budget: 1, Rule: "default", Members: []report.Member{
				{Host: "web1", State: "force-up"}, {Host: "web2", State: "up"}, {Host: "web3", State: "up"},
			}},
			{Name: "web", Budget: 2, Rule: "67%", Out: 2, Members: []report.Member{
				{Host: "web1", State: "up"},
				{Host: "web2", State: "drain", Out: true, Since: &at, Until: &until, Reason: "new kernel", By: "deploy", Scope: "host:web2", Permit: true, BalancersOut: true},
				{Host: "web3", State: "absent", Out: true, Since: &at},
			}},
		},
		Hosts: []report.Host{
			{Name: "web1", Present: true, Since: &at, Groups: []string{"rack7", "eu"}, Version: "1.2.3", Revision: 77},
			{Name: "web2", Present: true, Since: &at, Version: "1.2.3", Revision: 70, Left: true},
			{Name: "web3", Since: &at, Groups: []string{"rack7"}},
		},
		Queue:   []report.Claim{{Host: "web1", Services: []string{"web"}, By: "carol", Reason: "disk", At: at, Waiting: "2 of 3 hosts are out"}},
		Permits: []report.Permit{{Host: "web2", Services: []string{"web"}, Phase: "used", By: "deploy", Reason: "new kernel", At: at, Waiting: "lb1 to report UP"}},
		Budgets: []report.Budget{{Service: "*", Rule: "1"}, {Service: "web", Rule: "67%"}},
	}
}

// TestFleetPage: the page shows what a person needs to know about each host.
func TestFleetPage(t *testing.T) {
	t.Parallel()
	f := &testFleet{report: smallFleet(), status: report.Status{Connected: true, Lost: 1}}
	r := getPage(newFleetServer(f, allowAll), "/fleet", acceptHTML)
	if r.Code != 200 || r.Header().Get("Content-Type") != "text/html; charset=utf-8" || r.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", r.Code, r.Header())
	}
	policy := r.Header().Get("Content-Security-Policy")
	if strings.Contains(policy, "script-src") || !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "form-action 'self'") {
		t.Errorf("policy %q", policy)
	}
	body := r.Body.String()
	for _, want := range []string{
		"3 hosts, 1 host absent, 1 host left, 2 services, 2 members out, 2 fleet overrides, 1 override lost in etcd, 1 permit, 1 claim waiting.",
		"Read at 2026-03-01 12:00:00 UTC, revision 77.",
		`<span class="badge s-force-up">forced up</span> <b class="badge lost">lost in etcd</b></td><th scope="row">mail</th><td>all</td>`,
		"1 fleet override lost in etcd, still obeyed here",
		"2 of 3 out, budget 2 (67%)",
		`<span class="badge s-drain">drain</span> <span class="dim">balancers have it out</span>`,
		"<td>deploy</td><td>host:web2</td><td><bdi>new kernel</bdi></td><td>holds one</td>",
		`<span class="badge s-absent">absent</span>`,
		"hacheck fleet forget web3",
		"0 of 3 out, budget 1 (default)",
		"<summary>1 service</summary>",
		`<span class="badge s-up">up</span> 2: <a href="?host=web2">web2</a>, <a href="?host=web3">web3</a>`,
		"<bdi>2 of 3 hosts are out</bdi>",
		"<td>used</td>",
		"<bdi>lb1 to report UP</bdi>",
		"Hosts that left",
		`<a href="?host=web1">web1</a> <span class="dim">this host</span>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "etcd cannot be asked") {
		t.Error("the page has a script, or says that etcd cannot be asked")
	}
	if t.Failed() {
		t.Log(body)
	}
}

// TestFleetJSON: every client but a browser gets the report as it is.
func TestFleetJSON(t *testing.T) {
	t.Parallel()
	s := newFleetServer(&testFleet{report: smallFleet()}, allowAll)
	r := getPage(s, "/fleet?service=web", acceptJSON)
	if r.Code != 200 || r.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Fatalf("%d %v", r.Code, r.Header())
	}
	golden := filepath.Join("testdata", "fleet.json.golden")
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(golden, r.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), r.Body.String()); diff != "" {
		t.Error(diff)
	}
	if r := getPage(s, "/fleet", "*/*"); r.Body.String() != string(want) {
		t.Errorf("to curl: %s", r.Body)
	}
	if r := getPage(s, "/fleet", acceptHTML+","+acceptJSON); r.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("to a client that accepts both: %v", r.Header())
	}
}

// TestFleetAccess: the page obeys status_allowed, shows nothing to a balancer and changes nothing.
func TestFleetAccess(t *testing.T) {
	t.Parallel()
	f := &testFleet{report: smallFleet()}
	if r := getPage(newFleetServer(f, web.Settings{}), "/fleet", acceptHTML); r.Code != 403 || !strings.Contains(r.Body.String(), "status_allowed") {
		t.Errorf("with status_allowed: []: %d %s", r.Code, r.Body)
	}
	s := newFleetServer(f, allowAll)
	request := func(method, header string) int {
		r := httptest.NewRequest(method, "/fleet", nil)
		r.Header.Set(header, "UP")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	if code := request(http.MethodPost, "X-Test"); code != 405 {
		t.Errorf("POST: %d", code)
	}
	if code := request(http.MethodGet, balancer.StateHeader); code != 404 {
		t.Errorf("by a balancer: %d", code)
	}
	if n := f.reads.Load(); n != 0 {
		t.Errorf("the fleet was read %d times for clients that may not see it", n)
	}
}

// TestFleetUnavailable: without a fleet, or without a report, the answer says why.
func TestFleetUnavailable(t *testing.T) {
	t.Parallel()
	if r := getPage(newFleetServer(nil, allowAll), "/fleet", acceptHTML); r.Code != 404 || !strings.Contains(r.Body.String(), "the key fleet") {
		t.Errorf("without a fleet: %d %s", r.Code, r.Body)
	}
	f := &testFleet{err: errors.New("etcd has no leader\x1b[2J")}
	r := getPage(newFleetServer(f, allowAll), "/fleet", acceptJSON)
	if r.Code != 503 || r.Body.String() != "Cannot read the fleet: etcd has no leader [2J" {
		t.Errorf("without a report: %d %q", r.Code, r.Body)
	}
}

// setTexts sets every string below v.
func setTexts(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		if !v.IsNil() {
			setTexts(v.Elem(), text)
		}
	case reflect.Slice:
		for i := range v.Len() {
			setTexts(v.Index(i), text)
		}
	case reflect.Struct:
		if _, isTime := v.Interface().(time.Time); isTime {
			return
		}
		for i := range v.NumField() {
			setTexts(v.Field(i), text)
		}
	default:
	}
}

// TestFleetHostileTexts: no text of etcd becomes markup, a URL of another page or a terminal's command.
func TestFleetHostileTexts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`"><script>alert(1)</script><img src=x onerror='alert(1)'>`, "javascript:alert(1)", "</style><b id=evil>", "\x1b[2J\u202e\x00\x07",
		strings.Repeat(`<"'&>`, 2000), "{{.Self}}", "\xff\xfe",
	} {
		f := &testFleet{report: smallFleet(), status: report.Status{Lost: 1}}
		setTexts(reflect.ValueOf(f.report), text)
		setTexts(reflect.ValueOf(&f.status), text)
		s := newFleetServer(f, allowAll)
		page := getPage(s, "/fleet", acceptHTML).Body.String()
		if !strings.HasSuffix(strings.TrimSpace(page), "</html>") {
			t.Fatalf("%.50q: the page ends early: %q", text, page[max(0, len(page)-200):])
		}
		_, main, _ := strings.Cut(page, "</style>")
		for _, bad := range []string{"<script", "<img", "<b id", "</style", `href="javascript`, "onerror='", "\x1b", "\u202e", "\x00", "\x07", "\xff"} {
			if strings.Contains(main, bad) {
				t.Errorf("%.50q: the page has %q", text, bad)
			}
		}
		if len(page) > 200_000 {
			t.Errorf("%.50q: %d bytes for three hosts", text, len(page))
		}
		for _, path := range []string{"/fleet", "/overview"} {
			body := getPage(s, path, acceptJSON).Body.String()
			if strings.ContainsAny(body, "<>\x1b\u202e\x00") || !json.Valid([]byte(body)) {
				t.Errorf("%.50q: %s: %.300s", text, path, body)
			}
		}
		if body := getPage(s, "/", "*/*").Body.String(); strings.ContainsAny(body, "\x1b\u202e\x00") {
			t.Errorf("%.50q: /: %q", text, body)
		}
	}
}

// bigFleet returns a fleet of 1,000 hosts with 50 services, with out members of each of the first two.
func bigFleet(out int) *report.Fleet {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := &report.Fleet{Self: "host0000", Connected: true, Revision: 1 << 40, ReadAt: at}
	for h := range 1000 {
		name := fmt.Sprintf("host%04d.example.org", h)
		f.Hosts = append(f.Hosts, report.Host{Name: name, Present: h%100 != 0, Since: &at, Groups: []string{fmt.Sprintf("rack%d", h/40)}, Version: "1.2.3", Revision: 1 << 40})
	}
	for s := range 50 {
		service := report.Service{Name: fmt.Sprintf("service%02d", s), Budget: 10, Rule: "1%"}
		for h, host := range f.Hosts {
			m := report.Member{Host: host.Name, State: "up", Since: &at}
			if s < 2 && h < out {
				m = report.Member{Host: host.Name, State: "down", Out: true, Since: &at, Reason: strings.Repeat("why not? ", 60), By: "deploy", Scope: "all", Permit: true}
				service.Out++
			}
			service.Members = append(service.Members, m)
		}
		f.Services = append(f.Services, service)
	}
	return f
}

// TestFleetOfThousandHosts: the page stays small and quick, begins with what is out, and says what it leaves out.
func TestFleetOfThousandHosts(t *testing.T) {
	t.Parallel()
	for _, out := range []int{0, 10, 1000} {
		s := newFleetServer(&testFleet{report: bigFleet(out)}, allowAll)
		begun := time.Now()
		body := getPage(s, "/fleet", acceptHTML).Body.String()
		took := time.Since(begun)
		t.Logf("%d out: %d bytes in %v", 2*out, len(body), took)
		if len(body) >= 2<<20 || took > 5*time.Second {
			t.Errorf("%d out: %d bytes in %v", 2*out, len(body), took)
		}
		if hidden := "1000 more members are out and not shown"; strings.Contains(body, hidden) != (out == 1000) {
			t.Errorf("%d out: the page has %q: %v", 2*out, hidden, out != 1000)
		}
		if !strings.Contains(body, "<summary><span class=\"badge s-up\">up</span> 1000</summary>\n<p><a href=\"?host=host0000.example.org\">host0000.example.org</a>, ") || !strings.Contains(body, "and 950 more</a>") || !strings.Contains(body, "<summary>500 hosts, and 490 more that are not shown; use the filter</summary>") {
			t.Errorf("%d out: the page does not say that it leaves hosts out", 2*out)
		}
		for _, closed := range []string{fmt.Sprintf("<details><summary>%d services</summary>", 50-2*min(out, 1))} {
			if !strings.Contains(body, closed) {
				t.Errorf("%d out: the page has no %q", 2*out, closed)
			}
		}
		if out > 0 && strings.Index(body, "service01") > strings.Index(body, "Services with nothing out") {
			t.Errorf("%d out: what is out does not come first", 2*out)
		}
	}
}

// TestFleetFilter: the filter selects services, hosts and groups by their whole name, and what is out.
func TestFleetFilter(t *testing.T) {
	t.Parallel()
	const none = "Nothing in the fleet matches this filter"
	for query, c := range map[string]struct{ has, hasNot []string }{
		"service=mail":      {[]string{`?service=mail`, "lost in etcd</b>", `value="mail"`}, []string{"?service=web", "new switch", "new kernel", none}},
		"service=mai":       {nil, []string{"?service=mail", "?service=web", "fleet forget"}},
		"host=web3":         {[]string{"fleet forget web3", "?service=web", "new switch"}, []string{"new kernel", "carol", ">web1</a>"}},
		"host=web2":         {[]string{"new kernel", "holds one", "Hosts that left"}, []string{"new switch", "fleet forget", "carol"}},
		"group=rack7":       {[]string{"new switch", "fleet forget web3", "carol"}, []string{"new kernel", ">web2</a>"}},
		"group=rack8":       {[]string{"lost in etcd</b>"}, []string{"?service=", ">web1</a>", "new switch"}},
		"out=1":             {[]string{"new kernel", "fleet forget web3", " checked"}, []string{"?service=mail", "Present hosts"}},
		"out=1&host=web1":   {[]string{"carol"}, []string{"?service=", "Present hosts"}},
		"host=%3Cscript%3E": {[]string{`value="&lt;script&gt;"`}, []string{"<script", ">web1</a>"}},
		"unknown=1":         {[]string{"?service=mail", "?service=web"}, []string{none, "Show everything"}},
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			body := getPage(newFleetServer(&testFleet{report: smallFleet()}, allowAll), "/fleet?"+query, acceptHTML).Body.String()
			for _, want := range c.has {
				if !strings.Contains(body, want) {
					t.Errorf("no %q", want)
				}
			}
			for _, bad := range c.hasNot {
				if strings.Contains(body, bad) {
					t.Errorf("the page has %q", bad)
				}
			}
			if t.Failed() {
				_, main, _ := strings.Cut(body, "<main>")
				t.Log(main)
			}
		})
	}
	empty := &report.Fleet{}
	if body := getPage(newFleetServer(&testFleet{report: empty}, allowAll), "/fleet?host=web9", acceptHTML).Body.String(); !strings.Contains(body, none) || !strings.Contains(body, "etcd was never read") {
		t.Error(body)
	}
}

// TestFleetIsReadOnceASecond: any number of clients cause one reading a second, and pages with a filter take turns.
func TestFleetIsReadOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &testFleet{report: smallFleet()}
		s := newFleetServer(f, allowAll)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 5 {
					if r := getPage(s, fmt.Sprintf("/fleet?host=web%d", i), acceptHTML); r.Code != 200 {
						t.Errorf("%d %s", r.Code, r.Body)
					}
				}
			})
		}
		all.Wait()
		if n := f.reads.Load(); n < 5 || n > 6 {
			t.Errorf("read %d times for 8 clients that ask 5 times, want 5", n)
		}
		time.Sleep(2 * time.Second)
	})
}

// TestFleetInOverview: the overview says whether the fleet works, and nothing without a fleet.
func TestFleetInOverview(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status report.Status // Since is set by the test
		want   []string
	}{
		"well": {report.Status{Connected: true, Hosts: 3, Overrides: 1}, nil},
		"not connected": {
			report.Status{Error: "no route to host."},
			[]string{"Not connected to etcd for 5m00s: no route to host. The fleet overrides known last stay in force and end at their time; hadown --safe, --group, --host and --fleet fail."},
		},
		"state_dir": {report.Status{Connected: true, Error: "state_dir is full"}, []string{"Trouble with the fleet for 5m00s: state_dir is full."}},
		"lost and left": {report.Status{Connected: true, Lost: 2, Left: true}, []string{
			"2 fleet overrides lost in etcd, still obeyed here: lift or set again with the same scope.",
			"This host has left the fleet and ignores fleet overrides: hacheck fleet join ends that.",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c.status.Since = time.Now().Add(-5 * time.Minute)
				s := newFleetServer(&testFleet{status: c.status}, allowAll)
				var doc struct {
					Fleet    *report.Status `json:"fleet"`
					Warnings []string       `json:"fleet_warnings"`
				}
				if err := json.Unmarshal(getPage(s, "/overview", acceptJSON).Body.Bytes(), &doc); err != nil {
					t.Fatal(err)
				}
				if doc.Fleet == nil || doc.Fleet.Connected != c.status.Connected || doc.Fleet.Lost != c.status.Lost || !slices.Equal(doc.Warnings, c.want) {
					t.Errorf("%+v %q", doc.Fleet, doc.Warnings)
				}
				line := "\nFleet: connected to etcd, 3 hosts present, 1 fleet override here. /fleet has all hosts.\n"
				if c.want != nil {
					line = "\nFleet: " + strings.Join(c.want, " ") + "\n"
				}
				if body := getPage(s, "/", "*/*").Body.String(); !strings.Contains(body, line) {
					t.Errorf("no %q in %s", line, body)
				}
			})
		})
	}
	s := newFleetServer(nil, allowAll)
	if body := getPage(s, "/overview", acceptJSON).Body.String(); strings.Contains(body, "fleet") {
		t.Error(body)
	}
	if body := getPage(s, "/", "*/*").Body.String(); strings.Contains(body, "Fleet") {
		t.Error(body)
	}
}
