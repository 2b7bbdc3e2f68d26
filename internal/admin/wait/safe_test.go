package wait

import (
	"strings"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// wantSafety fails unless CheckSafe, for a report requested 5 s after the command began, has that result.
func wantSafety(t *testing.T, targets []string, r *balancer.Report, want Safety, reason string) {
	t.Helper()
	var list []Target
	for _, name := range targets {
		k, err := spool.ParseKey(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Target{Key: k, Label: name})
	}
	got := CheckSafe(list, r, 5*time.Second, nil)
	if got.Safety != want || !strings.Contains(got.Reason, reason) || (got.Reason == "") != (reason == "") {
		t.Errorf("got %d, %q; want %d, %q", got.Safety, got.Reason, want, reason)
	}
}

// weighedRow is a row of a balancer that has web UP with that weight.
func weighedRow(node string, weight, total int) balancer.ServerView {
	b := row(node, "UP", 5, answer(1, "ok"), noAnswer)
	b.Weight, b.TotalWeight = &weight, &total
	return b
}

func TestCheckSafe(t *testing.T) {
	t.Parallel()
	silent := func(b *balancer.ServerView) { b.Silent = true }
	late := func(b *balancer.ServerView) { b.Last.Age = 9 }
	api := func(b *balancer.ServerView) { b.Service, b.Server = "api", "be/web2" }
	for _, test := range []struct {
		name    string
		targets []string
		rows    []balancer.ServerView
		want    Safety
		reason  string
	}{
		{"one more", nil, []balancer.ServerView{weighedRow("lb1", 1, 2)}, Safe, ""},
		{"on its way down", nil, []balancer.ServerView{with(weighedRow("lb1", 1, 2), func(b *balancer.ServerView) { b.State = "UP 1/3" })}, Safe, ""},
		{"the last one", nil, []balancer.ServerView{weighedRow("lb1", 1, 1)}, Unsafe, "web: lb1 (be/web1): no other server would be left, weight 1 of 1"},
		{"the last one for one of two", nil, []balancer.ServerView{weighedRow("lb1", 1, 2), weighedRow("lb2", 100, 100)}, Unsafe, "web: lb2 (be/web1): no other server"},
		{"out already", nil, []balancer.ServerView{row("lb1", "DOWN", 0, answer(1, "fail"), noAnswer), row("lb2", "NOLB", 0, answer(1, "drain"), noAnswer)}, Safe, ""},
		{"the last one, asked long ago", nil, []balancer.ServerView{with(weighedRow("lb1", 1, 1), late)}, Undecided, "web: lb1 (be/web1): has not asked within 10s"},
		{"one asked long ago", nil, []balancer.ServerView{weighedRow("lb1", 1, 2), with(weighedRow("lb2", 1, 2), late)}, Undecided, "web: lb2 (be/web1): has not asked within 10s"},
		{"one is gone", nil, []balancer.ServerView{weighedRow("lb1", 1, 2), with(weighedRow("lb2", 1, 1), silent)}, Safe, ""},
		{"all are gone", nil, []balancer.ServerView{with(weighedRow("lb2", 1, 2), silent)}, Undecided, "no balancer that asks sends a state, so it cannot be known which servers they have left; add \"http-check send-state\""},
		{"no state", nil, []balancer.ServerView{weighedRow("lb1", 1, 2), row("", "", 0, answer(1, "ok"), noAnswer)}, Unsafe, "web: 10.0.0.1 (/http/web/0/) sends no state, so it cannot be known which servers it has left; add \"http-check send-state\" to its backend"},
		{"no weight", nil, []balancer.ServerView{row("lb1", "UP", 0, answer(1, "ok"), noAnswer)}, Unsafe, `sends the state "UP" and no weights`},
		{"odd state", nil, []balancer.ServerView{with(weighedRow("lb1", 1, 2), func(b *balancer.ServerView) { b.State = "MAINT" })}, Unsafe, `sends the state "MAINT"`},
		{"no balancer", []string{"api"}, []balancer.ServerView{weighedRow("lb1", 1, 2)}, Undecided, "no balancer has asked within 10s"},
		{"no balancer of one of two", []string{"web", "api"}, []balancer.ServerView{weighedRow("lb1", 1, 2)}, Undecided, "api: no balancer has asked about it within 10s"},
		// Two servers of one backend go down together, so their weights add up.
		{"two of two", []string{"web", "api"}, []balancer.ServerView{weighedRow("lb1", 1, 2), with(weighedRow("lb1", 1, 2), api)}, Unsafe, "web: lb1 (be/web1) and api: lb1 (be/web2): no other server would be left, weight 2 of 2"},
		{"two of three", []string{"web", "api"}, []balancer.ServerView{weighedRow("lb1", 1, 3), with(weighedRow("lb1", 1, 3), api)}, Safe, ""},
		{"two of all", []string{"all"}, []balancer.ServerView{weighedRow("lb1", 1, 2), with(weighedRow("lb1", 1, 2), api)}, Unsafe, "weight 2 of 2"},
		{"two of three, of which one has gone meanwhile", []string{"web", "api"}, []balancer.ServerView{weighedRow("lb1", 1, 3), with(weighedRow("lb1", 1, 2), api)}, Unsafe, "weight 2 of 2"},
		{"two backends", []string{"web", "api"}, []balancer.ServerView{weighedRow("lb1", 1, 2), with(weighedRow("lb1", 1, 2), func(b *balancer.ServerView) { b.Service, b.Server = "api", "other/web2" })}, Safe, ""},
		{"two balancers of one name", nil, []balancer.ServerView{weighedRow("lb1", 1, 2), with(weighedRow("lb1", 1, 2), func(b *balancer.ServerView) { b.Address = "10.0.0.2" })}, Safe, ""},
		{"two balancers", nil, []balancer.ServerView{weighedRow("lb1", 1, 2), weighedRow("lb2", 1, 2)}, Safe, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.targets == nil {
				test.targets = []string{"web"}
			}
			for i := range test.rows {
				test.rows[i].RequestAge = test.rows[i].Last.Age
			}
			r := &balancer.Report{Uptime: 100, Balancers: test.rows, Services: []balancer.LastRequest{{Service: "web", Age: 1}}}
			wantSafety(t, test.targets, r, test.want, test.reason)
		})
	}
}

// An agent connection from an address that sends no checks is a balancer that reports nothing.
func TestCheckSafeOfAgentWithoutChecks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		agent  balancer.Agent
		want   Safety
		reason string
	}{
		{balancer.Agent{Service: "web", Address: "10.0.0.9", Age: 3, Confirmed: true}, Unsafe, "web: 10.0.0.9 asks the agent and sends no state"},
		{balancer.Agent{Service: "web:80", Address: "10.0.0.9", Age: 3, Confirmed: true}, Unsafe, `web:80: 10.0.0.9 asks the agent and sends no state, so it cannot be known which servers it has left; check web:80 by HTTP from there too, and add "http-check send-state"`},
		{balancer.Agent{Service: "web", Address: "10.0.0.1", Age: 3, Confirmed: true}, Safe, ""}, // it sends checks
		{balancer.Agent{Service: "web:80", Address: "10.0.0.1", Age: 3, Confirmed: true}, Safe, ""},
		{balancer.Agent{Service: "web:81", Address: "10.0.0.1", Age: 3, Confirmed: true}, Unsafe, "web:81: 10.0.0.1 asks"},
		{balancer.Agent{Service: "api", Address: "10.0.0.9", Age: 3, Confirmed: true}, Safe, ""},
		{balancer.Agent{Service: "all", Address: "10.0.0.9", Age: 3, Confirmed: true}, Safe, ""}, // web is not all
		{balancer.Agent{Service: "web", Address: "10.0.0.9", Age: 6, Confirmed: true, Silent: true}, Safe, ""},
		// A client that has asked once may be a person. The command waits until that is clear.
		{balancer.Agent{Service: "web", Address: "10.0.0.9", Age: 3}, Undecided, "web: 10.0.0.9 asks the agent and sends no state"},
	} {
		t.Run(test.agent.Service+" from "+test.agent.Address, func(t *testing.T) {
			t.Parallel()
			r := &balancer.Report{Uptime: 100, Balancers: []balancer.ServerView{weighedRow("lb1", 1, 2)}, Agents: []balancer.Agent{test.agent}}
			wantSafety(t, []string{"web"}, r, test.want, test.reason)
		})
	}
}

// A daemon that does not know every balancer cannot decide.
func TestCheckSafeOfIncompleteReport(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		report balancer.Report
		want   Safety
		reason string
	}{
		"daemon that has just started":        {balancer.Report{Uptime: 9}, Undecided, "not listened long enough"},
		"client without a row, older daemon":  {balancer.Report{Uptime: 100, UnrecordedRequests: 1}, Undecided, "the daemon could not record it"},
		"client without a row, web":           {balancer.Report{Uptime: 100, Unrecorded: []balancer.UnrecordedClient{{Service: "web", Client: "10.0.0.7"}}}, Undecided, "10.0.0.7 asked about web"},
		"client without a row, all":           {balancer.Report{Uptime: 100, Unrecorded: []balancer.UnrecordedClient{{Service: "all", Client: "10.0.0.7"}}}, Undecided, "the daemon could not record it"},
		"client without a row, any service":   {balancer.Report{Uptime: 100, Unrecorded: []balancer.UnrecordedClient{{Client: "10.0.0.7"}}}, Undecided, "the daemon could not record it"},
		"client without a row, other service": {balancer.Report{Uptime: 100, UnrecordedRequests: 1, Unrecorded: []balancer.UnrecordedClient{{Service: "api"}}}, Safe, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.report.Balancers = []balancer.ServerView{weighedRow("lb1", 1, 2)}
			wantSafety(t, []string{"web"}, &test.report, test.want, test.reason)
		})
	}
}

// The weight of other hosts that go out as well counts in every backend of their service.
func TestCheckSafeWithOthersLeaving(t *testing.T) {
	t.Parallel()
	other := with(weighedRow("lb2", 1, 2), func(b *balancer.ServerView) { b.Server = "other/web1" })
	for _, test := range []struct {
		name    string
		rows    []balancer.ServerView
		leaving map[string]int
		want    Safety
		reason  string
	}{
		{"nothing", []balancer.ServerView{weighedRow("lb1", 1, 2)}, nil, Safe, ""},
		{"another service", []balancer.ServerView{weighedRow("lb1", 1, 2)}, map[string]int{"api": 5}, Safe, ""},
		{"one stays", []balancer.ServerView{weighedRow("lb1", 1, 3)}, map[string]int{"web": 1}, Safe, ""},
		{"none stays", []balancer.ServerView{weighedRow("lb1", 1, 2)}, map[string]int{"web": 1}, Unsafe, "no other server would be left, weight 1 of 2, and other hosts that go out weigh 1"},
		{"none stays in one of two", []balancer.ServerView{weighedRow("lb1", 1, 3), other}, map[string]int{"web": 1}, Unsafe, "web: lb2 (other/web1)"},
		{"out already", []balancer.ServerView{row("lb1", "DOWN", 0, answer(1, "fail"), noAnswer)}, map[string]int{"web": 9}, Safe, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for i := range test.rows {
				test.rows[i].RequestAge = test.rows[i].Last.Age
			}
			r := &balancer.Report{Uptime: 100, Balancers: test.rows}
			got := CheckSafe([]Target{{Key: spool.Key{Service: "web"}, Label: "web"}}, r, 5*time.Second, test.leaving)
			if got.Safety != test.want || !strings.Contains(got.Reason, test.reason) {
				t.Errorf("got %d, %q; want %d, %q", got.Safety, got.Reason, test.want, test.reason)
			}
		})
	}
}
