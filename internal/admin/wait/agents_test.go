package wait

import (
	"testing"

	"hacheck/internal/balancer"
)

func TestAgentOnly(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.agentOnly = true
	s.lastRequest["web"] = 0
	s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "up ready", Age: 0.8}}
	s.rows = []balancer.ServerView{row("lb1", "UP", 4, answer(0.5, "ok"), noAnswer)}
	s.observe(0.9)
	s.write()
	s.observe(1.1)
	s.wantText("its agent check has not got the override yet")
	s.rows[0] = row("lb1", "UP", 0, answer(2, "ok"), answer(0.5, "ok"))
	s.observe(2.1)
	s.wantDecision(Waiting) // no sessions now, but new ones may come
	s.agents[0].Answer, s.agents[0].Age = "up drain #new version", 3
	s.observe(3.1)
	s.wantDecision(Waiting) // its state is older than the answer of the agent
	s.wantText("UP, 0 sessions open")
	s.agents[0].Age = 5 // the agent connection asks more often than checks come
	s.rows[0] = row("lb1", "UP", 1, answer(4, "ok"), answer(2, "ok"))
	s.observe(5.1)
	s.wantDecision(Waiting)
	s.rows[0] = row("lb1", "UP", 0, answer(6, "ok"), answer(4, "ok"))
	s.agents[0].Age = 6.05
	s.observe(6.1)
	s.wantDecision(Done)
	s.wantText("UP, 0 sessions open: out")
	// The override is lifted.
	s.agents[0].Answer, s.agents[0].Age = "up ready", 7
	s.observe(7.1)
	s.wantDecision(Waiting)
	// /spool obeys overrides under -S as well.
	s.rows[0] = row("lb1", "DOWN", 0, answer(10, "down"), answer(8, "down"))
	s.observe(10.1)
	s.wantDecision(Done)
	// A balancer that sends no state is out when its agent connection has read it.
	s.rows[0] = row("", "", 0, answer(12, "ok"), noAnswer)
	s.agents[0].Answer, s.agents[0].Age = "maint down #x", 12
	s.observe(12.1)
	s.forget(0) // the view with a state
	s.wantDecision(Done)
	s.wantText("open sessions unknown: out")
}

// Under -S a server is out, or up, when all agent connections about it have read so. Connections with the same address
// and key differ only in their number.
func TestAgentOnlyEveryConnection(t *testing.T) {
	t.Parallel()
	two := func(at float64) []balancer.ServerView {
		return []balancer.ServerView{
			row("lb1", "UP", 0, answer(at, "ok"), answer(at-2, "ok")),
			with(row("lb1", "UP", 0, answer(at, "ok"), answer(at-2, "ok")), func(b *balancer.ServerView) { b.Server = "tls/web1" }),
		}
	}
	agent := func(service, answer string, at float64, alike int) balancer.Agent {
		return balancer.Agent{Service: service, Address: "10.0.0.1", Answer: answer, Age: at, SameAnswers: alike}
	}
	const in, drained = "up ready", "up drain"
	for _, test := range []struct {
		name   string
		goal   Goal
		target string
		first  []balancer.Agent // one connection has not read the change
		then   []balancer.Agent
	}{
		{
			"the same twice", Out, "web",
			[]balancer.Agent{agent("web", drained, 3, 1)},
			[]balancer.Agent{agent("web", drained, 5, 2)},
		},
		{
			"back twice", Up, "web",
			[]balancer.Agent{agent("web", in, 3, 1)},
			[]balancer.Agent{agent("web", in, 5, 2)},
		},
		{
			"two names", Out, "web",
			[]balancer.Agent{agent("web", drained, 3, 1), agent("web:80", in, 0.5, 9)},
			[]balancer.Agent{agent("web", drained, 5, 2), agent("web:80", drained, 5, 1)},
		},
		{
			"all for another service", Out, "web",
			[]balancer.Agent{agent("web", drained, 3, 1), agent("all", in, 3, 9)},
			[]balancer.Agent{agent("web", drained, 5, 2), agent("all", in, 5, 9)},
		},
		{
			"one about all", Out, "all",
			[]balancer.Agent{agent("web", drained, 3, 2), agent("all", drained, 3, 1)},
			[]balancer.Agent{agent("web", drained, 5, 2), agent("all", drained, 5, 2)},
		},
		{
			"a person, half a minute ago", Out, "web",
			[]balancer.Agent{agent("web", drained, 3, 2), agent("web:80", in, -25, 1)},
			[]balancer.Agent{agent("web", drained, 5, 3), agent("web:80", in, -25, 1)},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, test.goal, test.target)
			s.agentOnly = true
			s.lastRequest["web"] = 0
			s.write()
			s.rows, s.agents = two(4), test.first
			s.observe(4.1)
			s.rows = two(4.2)
			s.observe(4.3)
			s.wantDecision(Waiting)
			s.rows, s.agents = two(6), test.then
			s.observe(6.1)
			s.rows = two(8)
			s.observe(8.1)
			s.wantDecision(Done)
		})
	}
}

// An agent connection counts only for its own address, service and instance, and only after the write.
func TestAgentOfOtherServer(t *testing.T) {
	t.Parallel()
	for _, a := range []balancer.Agent{
		{Service: "web", Address: "10.0.0.9", Answer: "up drain", Age: 3},
		{Service: "web:81", Address: "10.0.0.1", Answer: "up drain", Age: 3},
		{Service: "api", Address: "10.0.0.1", Answer: "up drain", Age: 3},
		{Service: "web", Address: "10.0.0.1", Answer: "up drain", Age: 0.9}, // before the write
		{Service: "../x", Address: "10.0.0.1", Answer: "up drain", Age: 3},
	} {
		s := newScenario(t, Out, "web")
		s.agentOnly = true
		s.write()
		s.agents = []balancer.Agent{a}
		s.rows = []balancer.ServerView{row("lb1", "UP", 0, answer(6, "ok"), answer(4, "ok"))}
		s.observe(6.1)
		s.wantDecision(Waiting)
		if s.tracker.views[0].status != Waiting {
			t.Errorf("%+v: %s", a, s.tracker.describe(s.tracker.views[0]))
		}
	}
	// A connection about all or about the instance counts.
	for _, service := range []string{"all", "web:80", "web:127.0.0.1:80"} {
		s := newScenario(t, Out, "web")
		s.agentOnly = true
		s.write()
		s.agents = []balancer.Agent{{Service: service, Address: "10.0.0.1", Answer: "up drain", Age: 3}}
		s.observe(3.1)
		s.rows = []balancer.ServerView{row("lb1", "UP", 0, answer(6, "ok"), answer(4, "ok"))}
		s.observe(6.1)
		s.wantDecision(Done)
	}
}

// A balancer that sends no checks but asks the agent is done when it has read the change.
func TestAgentWithoutChecks(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.agents = []balancer.Agent{{Service: "web:80", Address: "10.0.0.1", Answer: "up ready", Age: 1.5}, {Service: "api", Address: "10.0.0.1", Answer: "up ready", Age: 1.5}}
	s.write()
	s.observe(2)
	s.wantDecision(Waiting)
	s.wantText("has not got the change yet")
	s.agents[0].Answer, s.agents[0].Age = "ready down #x", 3
	s.observe(3.1)
	s.wantDecision(Done)
	s.wantText("has got the change, open sessions unknown: out")
	// Checks from its address of another instance do not replace it.
	s.agents[0].Age = 3.5
	other := row("lb1", "DOWN", 0, answer(3.4, "down"), answer(3.2, "down"))
	other.Port = 81
	s.rows = []balancer.ServerView{other}
	s.observe(3.6)
	s.wantDecision(Done)
	if len(s.tracker.views) != 2 {
		t.Errorf("%d views, want the agent's and that of the other instance", len(s.tracker.views))
	}
	s.forget(1)
	// Checks of the target do.
	s.rows = []balancer.ServerView{row("lb1", "UP", 2, answer(4, "down"), noAnswer)}
	s.observe(4.1)
	s.wantDecision(Waiting)
	s.wantText("UP, 2 sessions open")
}

// An agent connection without checks falls silent as a balancer does. One with few requests may be a person, so it is not
// lost when it falls silent.
func TestAgentWithoutChecksFallsSilent(t *testing.T) {
	t.Parallel()
	asked := func(at float64, known, silent bool) []balancer.Agent {
		return []balancer.Agent{{Service: "web", Address: "10.0.0.9", Answer: "up ready", Age: at, SameAnswers: 1, Confirmed: known, Silent: silent}}
	}
	s := newScenario(t, Out, "web")
	s.agents = asked(-6, true, true)
	s.write()
	s.observe(2)
	s.wantDecision(Done)
	s.wantText("has not asked since before this command, not waited for")

	s = newScenario(t, Out, "web")
	s.agents = asked(0, true, false)
	s.write()
	s.observe(2)
	s.wantDecision(Waiting)
	s.agents = asked(0, true, true)
	s.observe(6)
	s.wantDecision(Waiting)
	s.observe(35.9)
	s.wantDecision(Waiting)
	s.observe(36.1)
	s.wantDecision(Lost)

	s = newScenario(t, Out, "web")
	s.agents = asked(0, false, false)
	s.write()
	s.observe(2)
	s.wantDecision(Waiting)
	s.agents = asked(0, false, true)
	s.observe(10.1)
	s.wantDecision(Done)
	s.wantText("not waited for")

	// A confirmed connection stays confirmed after a restart of the daemon.
	s = newScenario(t, Out, "web")
	s.agents = asked(0, true, false)
	s.write()
	s.observe(2)
	s.agents = asked(3, false, false)
	s.observe(3.1)
	s.agents = asked(3, false, true)
	s.observe(14)
	s.wantDecision(Waiting)
}
