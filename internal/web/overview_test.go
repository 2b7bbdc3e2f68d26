package web

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestServiceState: the last answer to each balancer about each server decides, unless it is old.
func TestServiceState(t *testing.T) {
	t.Parallel()
	now := time.Now()
	view := func(code int, override string, silent bool) balancer.ServerView {
		return balancer.ServerView{Silent: silent, Last: balancer.Answer{Code: code, Override: override}}
	}
	answered := func(code int, ago time.Duration) *latest {
		return &latest{at: now.Add(-ago), answered: true, code: code}
	}
	said := func(s spool.State, port uint16) *spool.Entry {
		return &spool.Entry{Key: spool.Key{Service: "web", Port: port}, State: s}
	}
	for name, c := range map[string]struct {
		last     *latest
		views    []balancer.ServerView
		agents   []balancer.Agent
		instance *spool.Entry
		want, by string
	}{
		"one asks":                {answered(200, time.Second), nil, nil, nil, "up", ""},
		"one asked long ago":      {answered(200, 2*time.Minute), nil, nil, nil, "unasked", ""},
		"not answered yet":        {&latest{at: now}, nil, nil, nil, "unasked", ""},
		"balancers know more":     {answered(200, time.Second), []balancer.ServerView{view(200, "", false), view(500, "", false)}, nil, nil, "failing", ""},
		"silent ones know less":   {answered(200, time.Second), []balancer.ServerView{view(200, "", false), view(500, "", true)}, nil, nil, "up", ""},
		"all silent":              {answered(200, 2*time.Minute), []balancer.ServerView{view(200, "", true)}, nil, nil, "unasked", ""},
		"one instance down":       {answered(503, time.Second), []balancer.ServerView{view(200, "", false), view(503, "down", false)}, nil, said(spool.Down, 80), "up", ""},
		"every instance down":     {answered(503, time.Second), []balancer.ServerView{view(503, "down", false)}, nil, said(spool.Down, 80), "down", "web:80"},
		"no instance down now":    {answered(503, time.Second), []balancer.ServerView{view(503, "down", false)}, nil, nil, "unasked", ""},
		"an agent":                {nil, nil, []balancer.Agent{{Age: 1}}, nil, "ready", ""},
		"an agent once":           {nil, nil, []balancer.Agent{{Age: 100}}, nil, "unasked", ""},
		"an agent, and a failure": {answered(500, time.Second), nil, []balancer.Agent{{Age: 1}}, nil, "failing", ""},
	} {
		b := overviewBuilder{
			now: now, recent: map[string]*latest{"web": c.last}, views: map[string][]balancer.ServerView{"web": c.views},
			agents: map[string][]balancer.Agent{"web": c.agents}, instances: map[string]*spool.Entry{"web": c.instance},
		}
		if r := b.service("web"); r.State != c.want || r.Covering != c.by {
			t.Errorf("%s: %q by %q, want %q by %q", name, r.State, r.Covering, c.want, c.by)
		}
	}
}

// TestInstanceViews: an override of one instance shows the balancers of that instance.
func TestInstanceViews(t *testing.T) {
	t.Parallel()
	b := overviewBuilder{views: map[string][]balancer.ServerView{"web": {
		{Node: "here 80", Host: "127.0.0.1", Port: 80, Local: true},
		{Node: "here 81", Host: "127.0.0.1", Port: 81, Local: true},
		{Node: "own 80", Host: "10.0.0.5", Port: 80, Local: true},
		{Node: "there 80", Host: "10.0.0.9", Port: 80},
	}}}
	for _, c := range []struct {
		key  spool.Key
		want []string
	}{
		{spool.Key{Service: "web"}, []string{"here 80", "here 81", "own 80", "there 80"}},
		{spool.Key{Service: "web", Port: 80}, []string{"here 80", "own 80"}},
		{spool.Key{Service: "web", Host: "10.0.0.5", Port: 80}, []string{"own 80"}},
		{spool.Key{Service: "web", Host: "10.0.0.9", Port: 80}, []string{"there 80"}},
		{spool.Key{Service: "web", Host: "10.0.0.9", Port: 81}, nil},
		{spool.Key{Service: "other"}, nil},
	} {
		var got []string
		for _, v := range b.balancersOf(c.key) {
			got = append(got, v.Name)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.key.Name(), diff)
		}
	}
}

// TestOverridesOfOneKey: a file and overrides of the fleet may have one key. Each has a row, and the first one decides.
func TestOverridesOfOneKey(t *testing.T) {
	t.Parallel()
	key := spool.Key{Service: spool.All}
	list := []spool.Entry{
		{Key: key, State: spool.Maint, Reason: "power", Scope: "group:rack7", By: "alice", Lost: true},
		{Key: key, State: spool.Drain, Reason: "file", By: "bob"},
	}
	b := newOverviewBuilder(time.Now(), &balancer.Report{}, list)
	b.recent = map[string]*latest{spool.All: {at: time.Now(), answered: true, code: 503}}
	first, second := b.override(&list[0], true), b.override(&list[1], false)
	if first.Last == nil || first.SetBy != "alice" || first.Scope != "group:rack7" || !first.Lost || first.Reason != "power" {
		t.Errorf("the one that decides is %+v", first)
	}
	if second.Last != nil || second.SetBy != "bob" || second.Scope != "" || second.State != "drain" {
		t.Errorf("the other one is %+v", second)
	}
	if r := b.service("web"); r.State != "maint" || r.Covering != spool.All {
		t.Errorf("web is %q by %q, want maint by all", r.State, r.Covering)
	}
}

// TestOverviewText: what curl gets.
func TestOverviewText(t *testing.T) {
	t.Parallel()
	n := func(i int) *int { return &i }
	f := func(f float64) *float64 { return &f }
	for name, o := range map[string]*overview{
		"empty": {overviewHead: overviewHead{Host: "app1", Now: 1e9, Uptime: 3}},
		"full": {
			overviewHead: overviewHead{Host: "app1\x1b", Now: 1e9, Uptime: 100_000, AgentOnly: true, SpoolLost: true, Weights: []overviewWeight{
				{Service: "canary", Weight: 5, Since: 1e9 - 60},
				{Service: "web", Host: "10.0.0.1", Port: 80, Weight: 25, SetBy: "alice", Since: 1e9 - 60, Until: f(1e9 + 3600)},
			}},
			Overrides: []overviewRow{
				{Service: "all", State: "drain", Since: f(1e9 - 4), Until: f(1e9 + 3599.6), Reason: "kernel", SetBy: "alice", Scope: "group:rack7"},
				{Service: "all", State: "drain", Reason: "alice", Scope: "all", Lost: true},
				{Service: "web", Host: "2001:db8::1", Port: 80, State: "down", Reason: "<script>", Balancers: []overviewBalancer{
					{Name: "lb1", Server: "be/web1", State: "UP", Sessions: n(14), Queued: 2}, {Name: "lb2\x07", Silent: true, Ago: 12},
				}},
			},
			Services: []overviewRow{
				{Service: "api", State: "failing", Last: &overviewAnswer{Code: 503, Why: "refused", Ago: 1, Took: f(0.000_061_4)}, Balancers: []overviewBalancer{{Name: "10.0.0.1", Server: "/tcp/api/80", Code: 503}}},
				{Service: strings.Repeat("long-", 10), State: "drain", Covering: "all", Last: &overviewAnswer{Code: 404, Override: "drain"}},
				{Service: "mail", State: "ready", Agents: []overviewAgent{{"10.0.0.1", "up ready", 1}}},
				{Service: "ok", State: "up", Last: &overviewAnswer{Code: 200, Ago: 1, Took: f(1.25)}, Balancers: []overviewBalancer{{Name: "lb1", State: "UP", Sessions: n(1)}}},
			},
		},
	} {
		got := o.appendText(nil)
		if o.empty() {
			got = appendFirstSteps(got, "app1:3333")
		}
		golden := filepath.Join("testdata", "overview-"+name+".golden")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: %s", golden, diff)
		}
	}
}
