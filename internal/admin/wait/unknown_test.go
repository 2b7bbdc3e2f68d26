package wait

import (
	"testing"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// A target is unknown if no balancer asks about it, or only one that was silent before the command.
func TestUnknown(t *testing.T) {
	t.Parallel()
	outNow := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	for _, test := range []struct {
		name   string
		rows   []balancer.ServerView
		agents []balancer.Agent
		want   int
	}{
		{"a balancer asks", []balancer.ServerView{outNow}, nil, 0},
		{"no balancer", nil, nil, 1},
		{"a silent balancer", []balancer.ServerView{silent(row("lb1", "UP", 5, answer(-20, "ok"), noAnswer))}, nil, 1},
		{"an agent connection", nil, []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "ready down #x", Age: 6, Confirmed: true}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, Out, "web")
			s.lastRequest["web"] = -20
			s.write()
			s.rows, s.agents = test.rows, test.agents
			s.observe(6.1)
			s.wantDecision(Done)
			if got := s.tracker.Unknown(); len(got) != test.want {
				t.Errorf("unknown: %v, want %d", got, test.want)
			}
		})
	}
}

func TestNearestName(t *testing.T) {
	t.Parallel()
	other := func(service string, port uint16, isSilent bool) balancer.ServerView {
		return balancer.ServerView{Service: service, Host: "127.0.0.1", Port: port, Local: true, Silent: isSilent}
	}
	report := &balancer.Report{
		Balancers: []balancer.ServerView{other("web", 80, false), other("api", 81, false), other("wbs", 82, true)},
		Agents: []balancer.Agent{
			{Service: "database:5432", Confirmed: true},
			{Service: "databasf"}, // perhaps a person
		},
	}
	for _, test := range []struct{ key, label, want string }{
		{"wbe", "wbe", "web"},
		{"apu", "apu", "api"},
		{"databse", "databse", "database"},
		{"databasg", "databasg", "database"},
		{"mail", "mail", ""},
		{"wbs", "wbs", ""}, // the name is right, and its balancer is silent
		{"web:8", "web:8", "web:80"},
		{"api:127.0.0.1:80", "api:127.0.0.1:80", "api:127.0.0.1:81"},
	} {
		k, err := spool.ParseKey(test.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := NearestName(Target{Key: k, Label: test.label}, report); got != test.want {
			t.Errorf("nearest to %s: %q, want %q", test.label, got, test.want)
		}
	}
}
