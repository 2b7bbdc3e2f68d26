package wait

import (
	"fmt"
	"testing"

	"hacheck/internal/balancer"
)

func TestOut(t *testing.T) {
	t.Parallel()
	queued := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	two := 2
	queued.Queued = &two
	unknown := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	unknown.Sessions, unknown.Queued = nil, nil
	stateless := func(out int, last balancer.Answer) balancer.ServerView {
		b := row("", "", 0, last, noAnswer)
		b.OutAnswers = out
		return b
	}
	for _, test := range []struct {
		name string
		row  balancer.ServerView
		want Status
		text string
	}{
		{"out", row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down")), Done, "DOWN, 0 sessions open: out"},
		{"on the way up", row("lb1", "DOWN 1/2", 0, answer(6, "down"), answer(4, "down")), Done, "DOWN 1/2, 0 sessions open: out"},
		{"drained", row("lb1", "NOLB 2/2", 0, answer(6, "drain"), answer(4, "drain")), Done, "NOLB 2/2, 0 sessions open: out"},
		{"drained, still open", row("lb1", "NOLB", 1, answer(6, "drain"), answer(4, "drain")), Waiting, "NOLB, 1 session open"},
		// Clients with a cookie reach the server until it is DOWN.
		{"down after a drain", row("lb1", "NOLB 2/3", 0, answer(6, "down"), answer(4, "down")), Waiting, "NOLB 2/3, 0 sessions open, not down yet"},
		{"down for as many answers as HAProxy counts, and NOLB still", with(row("lb1", "NOLB", 0, answer(6, "down"), answer(4, "down")), func(b *balancer.ServerView) { b.SameAnswers = 4 }), Done, "NOLB, 0 sessions open: out"},
		{"a balancer that counts further", with(row("lb1", "NOLB 2/5", 0, answer(6, "down"), answer(4, "down")), func(b *balancer.ServerView) { b.SameAnswers = 5 }), Waiting, "not down yet"},
		{"down not yet for as many", with(row("lb1", "NOLB", 0, answer(6, "down"), answer(4, "down")), func(b *balancer.ServerView) { b.SameAnswers = 3 }), Waiting, "not down yet"},
		{"maint after a drain", row("lb1", "NOLB 1/3", 0, answer(6, "maint"), answer(4, "down")), Waiting, "NOLB 1/3, 0 sessions open, not down yet"},
		{"still up", row("lb1", "UP 1/3", 14, answer(6, "down"), answer(4, "down")), Waiting, "UP 1/3, 14 sessions open"},
		{"up and empty", row("lb1", "UP 1/3", 0, answer(6, "down"), answer(4, "down")), Waiting, "UP 1/3, 0 sessions open"},
		{"queue", queued, Waiting, "DOWN, 0 sessions open, 2 waiting"},
		{"an old haproxy", unknown, Done, "open sessions unknown: out"},
		{"no check", row("lb1", "no check", 0, answer(6, "down"), answer(4, "down")), Waiting, "no check"},
		// The state is older than the first answer with the override: the server may be down for another reason.
		{"no override yet", row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "fail")), Waiting, "has not got the override yet"},
		{"override before the command", row("lb1", "DOWN", 0, answer(6, "down"), answer(0.9, "down")), Waiting, "has not got the override yet"},
		{"first request", row("lb1", "DOWN", 0, answer(6, "down"), noAnswer), Waiting, "has not got the override yet"},
		{"no override any more", row("lb1", "DOWN", 0, answer(6, "fail"), answer(4, "down")), Waiting, "DOWN"},
		{"no state, twice", stateless(2, answer(6, "down")), Waiting, "sends no state, got 2 of 3 answers with the override, open sessions unknown"},
		{"no state, three times", stateless(3, answer(6, "down")), Done, "got 3 of 3 answers with the override, open sessions unknown: out"},
		{"no state, three times before", stateless(3, answer(0.5, "down")), Waiting, "got 3 of 3"},
		{"forced up", stateless(0, answer(6, "up")), Waiting, "got 0 of 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, Out, "web")
			s.lastRequest["web"] = 6
			s.rows = []balancer.ServerView{test.row}
			s.rows[0].Last.Age = 0.5
			if test.row.Previous != nil {
				s.rows[0].Previous = nil
			}
			s.observe(0.6)
			s.wantDecision(Waiting)
			s.write()
			s.wantDecision(Waiting) // the report is older than the write
			s.rows[0] = test.row
			s.observe(6.1)
			s.wantDecision(test.want)
			s.wantText(test.text)
		})
	}
}

// Each balancer counts for itself, and only for targets.
func TestBalancersThatAreWaitedFor(t *testing.T) {
	t.Parallel()
	outNow := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	up := func(change func(*balancer.ServerView)) balancer.ServerView {
		b := row("lb2", "UP", 3, answer(6, "down"), answer(4, "down"))
		change(&b)
		return b
	}
	for _, test := range []struct {
		name, target string
		other        balancer.ServerView
		want         Status
	}{
		{"another node", "web", up(func(*balancer.ServerView) {}), Waiting},
		{"the same node name elsewhere", "web", up(func(b *balancer.ServerView) { b.Node, b.Address = "lb1", "10.0.0.2" }), Waiting},
		{"another server", "web", up(func(b *balancer.ServerView) { b.Node, b.Server = "lb1", "be/web2" }), Waiting},
		{"another host of the service", "web", up(func(b *balancer.ServerView) { b.Host, b.Local = "10.0.0.9", false }), Waiting},
		{"no state, another URL", "web", func() balancer.ServerView {
			b := row("", "", 0, answer(6, "down"), noAnswer)
			b.URL = "/tcp/web/80"
			return b
		}(), Waiting},
		{"another service", "web", up(func(b *balancer.ServerView) { b.Service = "api" }), Done},
		{"all is every service", "all", up(func(b *balancer.ServerView) { b.Service = "api" }), Waiting},
		{"another port", "web:80", up(func(b *balancer.ServerView) { b.Port = 81 }), Done},
		{"the port elsewhere", "web:80", up(func(b *balancer.ServerView) { b.Host, b.Local = "10.0.0.9", false }), Done},
		{"the port by another address of this host", "web:80", up(func(b *balancer.ServerView) { b.Host = "10.0.0.7" }), Waiting},
		{"the host by another spelling", "web:2001:db8::1:80", up(func(b *balancer.ServerView) { b.Host, b.Local = "2001:DB8:0::1", false }), Waiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, Out, test.target)
			s.lastRequest["web"] = -20
			s.write()
			quiet := row("", "", 0, answer(6, "down"), noAnswer)
			quiet.OutAnswers = 3
			s.rows = []balancer.ServerView{outNow, test.other, quiet}
			s.observe(6.1)
			s.wantDecision(test.want)
		})
	}
}

func TestUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		row   balancer.ServerView
		agent string
		want  Status
		text  string
	}{
		{"up", row("lb1", "UP", 3, answer(6, "ok"), answer(4, "ok")), "", Done, "UP, 3 sessions open: up"},
		{"has not noticed the override", row("lb1", "UP 1/3", 3, answer(6, "ok"), answer(0, "down")), "", Done, "UP 1/3, 3 sessions open: up"},
		{"not checked", row("lb1", "no check", 3, answer(6, "ok"), noAnswer), "", Done, "no check"},
		{"redirect", row("lb1", "UP", 3, balancer.Answer{Age: 6, Code: 302}, noAnswer), "", Done, "UP"},
		{"forced", row("lb1", "UP", 3, balancer.Answer{Age: 6, Code: 200, Override: "up"}, noAnswer), "", Done, "UP"},
		{"on the way", row("lb1", "DOWN 1/2", 0, answer(6, "ok"), answer(4, "ok")), "", Waiting, "DOWN 1/2, 0 sessions open"},
		{"drained still", row("lb1", "NOLB", 0, answer(6, "ok"), answer(4, "ok")), "", Waiting, "NOLB"},
		{"fails", row("lb1", "UP 2/3", 0, answer(6, "fail"), answer(4, "ok")), "", Waiting, "UP 2/3, 0 sessions open, last answer 503"},
		{"another override", row("lb1", "UP", 0, answer(6, "drain"), answer(4, "ok")), "", Waiting, "last answer drain"},
		{"before", row("lb1", "UP", 0, answer(0.5, "ok"), noAnswer), "", Waiting, "UP"},
		{"no state", row("", "", 0, answer(6, "ok"), answer(4, "ok")), "", Done, "sends no state, last answer 200: up"},
		{"no state, once", row("", "", 0, answer(6, "ok"), answer(4, "fail")), "", Waiting, "sends no state, last answer 200"},
		{"no state, once since", row("", "", 0, answer(6, "ok"), answer(0, "ok")), "", Waiting, "sends no state"},
		{"agent", row("lb1", "UP", 3, answer(6, "ok"), answer(4, "ok")), "up ready", Done, "UP"},
		{"agent says drain", row("lb1", "UP", 3, answer(6, "ok"), answer(4, "ok")), "up drain", Waiting, "UP"},
		{"agent waits for a check", row("lb1", "UP", 3, answer(6, "ok"), answer(4, "ok")), "ready down #coming back", Waiting, "UP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, Up, "web")
			s.write()
			s.rows = []balancer.ServerView{test.row}
			if test.agent != "" {
				s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: test.agent, Age: 6}}
			}
			s.observe(6.1)
			s.wantDecision(test.want)
			s.wantText(test.text)
		})
	}

	// After maintenance the balancer is silent, but its agent connection is not.
	s := newScenario(t, Up, "web")
	b := row("lb1", "UP", 0, answer(-100, "ok"), noAnswer)
	b.Silent = true
	s.rows = []balancer.ServerView{b}
	s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "maint down #x", Age: 0.5}}
	s.observe(0.6)
	s.write()
	s.observe(1.5)
	s.wantDecision(Waiting)
	s.agents[0].Answer, s.agents[0].Age = "up ready", 2
	s.observe(2.1)
	s.wantDecision(Waiting) // until its first check
	s.rows[0] = row("lb1", "UP", 0, answer(3, "ok"), answer(-100, "ok"))
	s.observe(3.1)
	s.wantDecision(Done)
	// Without an agent connection it is not waited for.
	s = newScenario(t, Up, "web")
	s.rows = []balancer.ServerView{b}
	s.observe(0.6)
	s.write()
	s.observe(1.5)
	s.wantDecision(Done)
}

func TestHundredBalancersHaveNamesAndAreWaitedFor(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.write()
	for i := range 100 {
		b := row(fmt.Sprintf("lb%d", i%50), "DOWN", 0, answer(6, "down"), answer(4, "down"))
		b.Address = fmt.Sprintf("10.0.%d.1", i)
		s.rows = append(s.rows, b)
	}
	one := 1
	s.rows[99].Sessions = &one
	s.observe(6.1)
	s.wantDecision(Waiting)
	seen := map[string]bool{}
	for _, v := range s.tracker.Views() {
		seen[v.Name] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d names for 100 balancers", len(seen))
	}
	s.rows[99].Sessions = s.rows[0].Sessions
	s.observe(6.3)
	s.wantDecision(Done)
}

// Another program may answer on the daemon's port with any report. Memory and time are bounded.
func TestHugeReports(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.write()
	for round := range 3 {
		now := 6 + float64(round)*40
		s.rows, s.agents = nil, nil
		for i := range 15_000 {
			b := row(fmt.Sprintf("lb%d.%d", round, i), "UP", 1, answer(now, "down"), answer(now-1, "down"))
			b.Address = fmt.Sprintf("a%d.%d", round, i%5000)
			s.rows = append(s.rows, b)
			s.agents = append(s.agents, balancer.Agent{Service: "web", Address: fmt.Sprintf("b%d.%d", round, i), Answer: "up ready", Age: now})
		}
		s.observe(now + 0.1)
	}
	if s.tracker.Decide() == Done {
		t.Error("all of them have followed")
	}
	if len(s.tracker.views) > maxViews || len(s.tracker.index) > maxViews || len(s.tracker.agents) > 15_000 || !s.tracker.hasOverflow {
		t.Errorf("%d views, %d in the index, %d agents, crowded: %v", len(s.tracker.views), len(s.tracker.index), len(s.tracker.agents), s.tracker.hasOverflow)
	}
}
