package wait

import (
	"strings"
	"testing"

	"hacheck/internal/balancer"
)

// silent is b of a balancer that has stopped asking.
func silent(b balancer.ServerView) balancer.ServerView {
	b.Silent = true
	return b
}

// A balancer that was silent before the command is named and not waited for, until it asks again.
func TestSilentBeforeTheCommand(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.lastRequest["web"] = -20
	s.rows = []balancer.ServerView{silent(row("lb1", "UP", 5, answer(-20, "ok"), noAnswer))}
	s.observe(0.5)
	s.write()
	s.observe(1.5)
	s.wantDecision(Done)
	s.wantText("has not asked since before this command, not waited for")
	s.rows[0] = row("lb1", "UP", 5, answer(2, "down"), answer(-20, "ok"))
	s.observe(2.5)
	s.wantDecision(Waiting)
}

// haup does not wait either for a balancer that was silent before the command, unless maintenance is why it is silent.
func TestSilentBeforeUp(t *testing.T) {
	t.Parallel()
	const down, maint, up = "ready down #x", "maint down #x", "up ready"
	for _, test := range []struct {
		name       string
		requestAge float64 // of the last check
		agent      balancer.Agent
		want       Status
	}{
		{"no agent connection", 60, balancer.Agent{Service: "api"}, Done},
		{"an agent connection that reads down", 60, balancer.Agent{Service: "web", Answer: down, SameFor: 300}, Done},
		{"an agent connection that reads up", 60, balancer.Agent{Service: "web", Answer: up, SameFor: 300}, Done},
		{"maintenance ended the checks", 305, balancer.Agent{Service: "web", Answer: maint, SameFor: 300}, Waiting},
		{"maintenance of all", 298, balancer.Agent{Service: "all", Answer: maint, SameFor: 300}, Waiting},
		{"the checks ended long before maintenance", 900, balancer.Agent{Service: "web", Answer: maint, SameFor: 300}, Done},
		{"the agent connection is silent too", 305, balancer.Agent{Service: "web", Answer: maint, SameFor: 300, Silent: true}, Done},
		{"maintenance of another service", 305, balancer.Agent{Service: "api", Answer: maint, SameFor: 300}, Done},
		{"the agent has just read another state", 305, balancer.Agent{Service: "web", Answer: up, SameFor: 2}, Waiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, Up, "web")
			s.lastRequest["web"] = -20
			b := silent(row("lb1", "DOWN", 0, answer(-60, "down"), noAnswer))
			b.RequestAge = test.requestAge
			// The connection has read the end of the override soon after the write.
			test.agent.Address, test.agent.Confirmed, test.agent.Age = "10.0.0.1", true, 0.4
			s.rows, s.agents = []balancer.ServerView{b}, []balancer.Agent{test.agent}
			s.observe(0.5)
			s.write()
			s.agents[0].Answer, s.agents[0].Age, s.agents[0].SameFor = up, 1.4, 0.1
			s.observe(1.5)
			s.wantDecision(test.want)
		})
	}
}

// A balancer whose server may have left maintenance just before the command is passed over if it does not ask again.
func TestSilentAfterMaintenance(t *testing.T) {
	t.Parallel()
	for _, asksAgain := range []bool{true, false} {
		s := newScenario(t, Up, "web")
		s.lastRequest["web"] = -20
		b := silent(row("lb1", "DOWN", 0, answer(-60, "down"), noAnswer))
		b.RequestAge = 60
		s.rows = []balancer.ServerView{b}
		s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "up ready", Age: 0.4, SameFor: 0.1, Confirmed: true}}
		s.observe(0.5)
		s.write()
		s.agents[0].Age = 1.4
		s.observe(1.5)
		s.wantDecision(Waiting)
		if asksAgain {
			s.rows[0] = row("lb1", "DOWN 1/2", 0, answer(6, "ok"), answer(-60, "down"))
			s.lastRequest["web"] = 6
			s.observe(6.1)
			s.observe(20)
			s.wantDecision(Waiting)
			continue
		}
		s.observe(6.4) // three intervals of 2 s
		s.wantDecision(Waiting)
		s.observe(6.6)
		s.wantDecision(Done)
		if got := s.tracker.Views()[0].Text; !strings.HasPrefix(got, "has not asked since before this command, not waited for") {
			t.Errorf("text %q", got)
		}
	}
}

// A balancer that falls silent is done if its last state was out without sessions.
func TestFallsSilentAfterDrained(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(0, "fail"), noAnswer)}
	s.observe(0.5)
	s.write()
	s.observe(1.5)
	s.wantDecision(Waiting)
	s.rows[0] = silent(s.rows[0])
	s.observe(7)
	s.wantDecision(Done)
	s.wantText("silent, was out")
}

// Any other balancer that falls silent is lost after 30 s. The command still waits for the others.
func TestFallsSilentWithSessions(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	lb2 := row("lb2", "UP", 1, answer(4, "down"), answer(2, "down"))
	s.rows = []balancer.ServerView{row("lb1", "UP", 5, answer(2, "down"), noAnswer), lb2}
	s.observe(2.5)
	s.write()
	s.rows[0] = silent(s.rows[0])
	for _, moment := range []float64{8, 37.9, 38} {
		s.observe(moment)
		s.wantDecision(Waiting)
	}
	if got := s.tracker.Views()[0].Text; !strings.Contains(got, "silent for too long, counts as open; last known: UP, 5 sessions open") {
		t.Errorf("text %q", got)
	}
	s.rows[1] = row("lb2", "DOWN", 0, answer(39, "down"), answer(37, "down"))
	s.observe(39.1)
	s.wantDecision(Lost)

	// It comes back and is waited for.
	s.rows[0] = row("lb1", "UP", 5, answer(40, "down"), noAnswer)
	s.observe(40.1)
	s.wantDecision(Waiting)
	s.rows[0] = row("lb1", "DOWN", 0, answer(44, "down"), answer(42, "down"))
	s.observe(44.1)
	s.wantDecision(Done)
}

// A balancer that has followed stays done when it falls silent or expires.
func TestFallsSilentAfterDone(t *testing.T) {
	t.Parallel()
	stateless := row("", "", 0, answer(6, "down"), noAnswer)
	stateless.OutAnswers = 3
	for _, test := range []struct {
		name string
		goal Goal
		row  balancer.ServerView
	}{
		{"out", Out, row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))},
		{"out, no state", Out, stateless},
		{"up", Up, row("lb1", "UP", 1, answer(6, "ok"), noAnswer)},
	} {
		for name, rows := range map[string][]balancer.ServerView{"silent": {silent(test.row)}, "expired": nil} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				s := newScenario(t, test.goal, "web")
				s.write()
				s.rows = []balancer.ServerView{test.row}
				s.observe(6.1)
				s.wantDecision(Done)
				s.rows = rows
				s.observe(60)
				s.wantDecision(Done)
			})
		}
	}
}

// A restarted daemon does not know the balancers. The tracker waits until they are known again or lost.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.lastRequest["web"] = 0
	s.rows = []balancer.ServerView{
		row("lb1", "UP", 5, answer(2, "down"), answer(0, "ok")),
		row("lb2", "DOWN", 0, answer(4, "down"), answer(2, "down")),
	}
	s.observe(0.5)
	s.write()
	s.observe(4.1)
	s.wantDecision(Waiting)
	if n := s.tracker.Restarts(); n != 0 {
		t.Fatalf("%d restarts, want 0", n)
	}
	s.uptime = -5 // it began to listen at 5
	delete(s.lastRequest, "web")
	s.rows = nil
	s.observe(5.5)
	s.wantDecision(Waiting)
	if n := s.tracker.Restarts(); n != 1 {
		t.Fatalf("%d restarts, want 1", n)
	}
	s.observe(16)
	s.wantDecision(Waiting) // no request for ten seconds, but there was a balancer before
	s.observe(35.6)
	s.wantDecision(Lost)
	// lb1 is known again, with new rows. lb2 was out before.
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(36, "down"), noAnswer)}
	s.observe(36.1)
	s.wantDecision(Waiting)
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(38, "down"), answer(36, "down"))}
	s.observe(38.1)
	s.wantDecision(Done)
}

// A restart before any balancer was known does not make the tracker wait for LearnTime again.
func TestRestartWithoutBalancers(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.observe(0.5)
	s.write()
	s.uptime = -2
	s.observe(3)
	s.wantDecision(Waiting)
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))}
	s.observe(6.1)
	s.wantDecision(Done)
}

// A daemon that started just before the command may not know every balancer for LearnTime.
func TestRestartJustBeforeTheCommand(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.uptime = 0
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(3, "down"), answer(2, "down"))}
	s.write()
	s.observe(3.1)
	s.wantDecision(Waiting)
	s.observe(9.9)
	s.wantDecision(Waiting)
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(10, "down"), answer(9, "down"))}
	s.observe(10.1)
	s.wantDecision(Done)
}

// After a restart, a balancer with a long interval has four intervals to be known again.
func TestRestartWithSlowBalancer(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	slow := row("lb1", "UP", 5, answer(2, "down"), answer(0, "ok"))
	slow.Interval = 60
	s.rows = []balancer.ServerView{slow}
	s.write()
	s.observe(2.1)
	s.uptime = -5
	s.rows = nil
	s.observe(10)
	s.observe(249)
	s.wantDecision(Waiting)
	s.observe(251)
	s.wantDecision(Lost)
}

// Without a request for LearnTime there is no balancer to wait for.
func TestNoBalancer(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.uptime = 0
	s.observe(0.5)
	s.write()
	s.observe(1.5)
	s.wantDecision(Waiting)
	s.observe(9.9)
	s.wantDecision(Waiting)
	s.observe(10.1)
	s.wantDecision(Done)
}

// A report from before the write decides nothing.
func TestNoBalancerNeedsReportAfterWrite(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.observe(0.5)
	s.write()
	s.wantDecision(Waiting)
	s.observe(1.5)
	s.wantDecision(Done)
}

// A request of a client that is not a known balancer delays the decision for LearnTime, if it is about a target.
func TestRequestsOfOtherClients(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.write()
	s.lastRequest["web"] = 10
	s.observe(11)
	s.wantDecision(Waiting)
	s.observe(20.1)
	s.wantDecision(Done)
	s.lastRequest["api"] = 20
	s.observe(21)
	s.wantDecision(Done)

	s = newScenario(t, Out, "all")
	s.write()
	s.lastRequest["api"] = 20
	s.observe(21)
	s.wantDecision(Waiting)
	s.observe(30.1)
	s.wantDecision(Done)
}

func TestEveryTargetIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web", "api")
	s.write()
	s.rows = []balancer.ServerView{row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))}
	s.lastRequest["web"], s.lastRequest["api"] = 6, 5
	s.observe(6.1)
	s.wantDecision(Waiting)
	s.observe(15.1)
	s.wantDecision(Done)
}

// A request about another instance, which has a row, does not count. Any other request about the service might be about
// the target.
func TestRequestsAboutOtherInstance(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web:81")
	s.write()
	s.rows = []balancer.ServerView{row("lb1", "UP", 7, answer(6, "ok"), answer(4, "ok"))}
	s.lastRequest["web"] = 6
	s.observe(6.1)
	s.wantDecision(Done)
	s.lastRequest["web"] = 10
	s.observe(11)
	s.wantDecision(Waiting)
}
