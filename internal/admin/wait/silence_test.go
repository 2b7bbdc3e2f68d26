package wait

import (
	"strings"
	"testing"

	"hacheck/internal/balancer"
)

func TestSilent(t *testing.T) {
	t.Parallel()
	silent := func(b balancer.Balancer) balancer.Balancer {
		b.Silent = true
		return b
	}
	// Since before: named, not waited for; but waited for when it asks again.
	s := newScenario(t, Out, "web")
	s.lastRequest["web"] = -20
	s.rows = []balancer.Balancer{silent(row("lb1", "UP", 5, answer(-20, "ok"), noAnswer))}
	s.observe(0.5)
	s.write()
	s.observe(1.5)
	s.wantDecision(Done)
	s.wantText("has not asked since before this command, not waited for")
	s.rows[0] = row("lb1", "UP", 5, answer(2, "down"), answer(-20, "ok"))
	s.observe(2.5)
	s.wantDecision(Waiting)

	// Falling silent with its last words out and empty is out.
	s = newScenario(t, Out, "web")
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(0, "fail"), noAnswer)}
	s.observe(0.5)
	s.write()
	s.observe(1.5)
	s.wantDecision(Waiting)
	s.rows[0] = silent(s.rows[0])
	s.observe(7)
	s.wantDecision(Done)
	s.wantText("silent, was out")

	// Falling silent otherwise is open after half a minute; the others go on.
	s = newScenario(t, Out, "web")
	lb2 := row("lb2", "UP", 1, answer(4, "down"), answer(2, "down"))
	s.rows = []balancer.Balancer{row("lb1", "UP", 5, answer(2, "down"), noAnswer), lb2}
	s.observe(2.5)
	s.write()
	s.rows[0] = silent(s.rows[0])
	s.observe(8)
	s.wantDecision(Waiting)
	s.observe(37.9)
	s.wantDecision(Waiting)
	s.observe(38)
	s.wantDecision(Waiting) // for lb2
	if got := s.tracker.describe(s.tracker.views[0]); !strings.Contains(got, "silent for too long, counts as open; last known: UP, 5 sessions open") {
		t.Errorf("says %q", got)
	}
	s.rows[1] = row("lb2", "DOWN", 0, answer(39, "down"), answer(37, "down"))
	s.observe(39.1)
	s.wantDecision(Lost)
	// One that comes back is waited for.
	s.rows[0] = row("lb1", "UP", 5, answer(40, "down"), noAnswer)
	s.observe(40.1)
	s.wantDecision(Waiting)
	// A balancer that was out and went silent was out.
	s.rows[0] = row("lb1", "DOWN", 0, answer(44, "down"), answer(42, "down"))
	s.observe(44.1)
	s.wantDecision(Done)
	s.rows[0] = silent(s.rows[0])
	s.observe(90)
	s.wantDecision(Done)

	// Also one that says nothing, and is forgotten soon; and likewise one that was back.
	s = newScenario(t, Out, "web")
	s.write()
	stateless := row("", "", 0, answer(6, "down"), noAnswer)
	stateless.OutAnswers = 3
	s.rows = []balancer.Balancer{stateless}
	s.observe(6.1)
	s.wantDecision(Done)
	s.rows = nil
	s.observe(60)
	s.wantDecision(Done)
	s = newScenario(t, Up, "web")
	s.write()
	s.rows = []balancer.Balancer{row("lb1", "UP", 1, answer(6, "ok"), noAnswer)}
	s.observe(6.1)
	s.wantDecision(Done)
	s.rows[0] = silent(s.rows[0])
	s.observe(60)
	s.wantDecision(Done)
}

// A daemon that is started anew knows nobody, and what it says at first is no reason to end.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.lastRequest["web"] = 0
	before := row("lb1", "UP", 5, answer(2, "down"), answer(0, "ok"))
	outBefore := row("lb2", "DOWN", 0, answer(4, "down"), answer(2, "down"))
	s.rows = []balancer.Balancer{before, outBefore}
	s.observe(0.5)
	s.write()
	s.observe(4.1)
	s.wantDecision(Waiting)
	if s.tracker.restarts != 0 {
		t.Fatal("a restart that was none")
	}
	s.uptime = -5 // it began to listen at 5
	delete(s.lastRequest, "web")
	s.rows = nil
	s.observe(5.5)
	s.wantDecision(Waiting)
	if s.tracker.restarts != 1 {
		t.Fatalf("%d restarts, want 1", s.tracker.restarts)
	}
	s.observe(16)
	s.wantDecision(Waiting) // nobody has asked for ten seconds, but somebody was there
	s.observe(35.6)
	s.wantDecision(Lost)
	// lb1 is known again: its rows start anew, and lb2 was out.
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(36, "down"), noAnswer)}
	s.observe(36.1)
	s.wantDecision(Waiting)
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(38, "down"), answer(36, "down"))}
	s.observe(38.1)
	s.wantDecision(Done)

	// While nobody is known to ask, a daemon has to listen for ten seconds again; who was known need not wait.
	s = newScenario(t, Out, "web")
	s.observe(0.5)
	s.write()
	s.uptime = -2
	s.observe(3)
	s.wantDecision(Waiting)
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))}
	s.observe(6.1)
	s.wantDecision(Done)

	// Just before the command: who has not asked in ten seconds may still be there.
	s = newScenario(t, Out, "web")
	s.uptime = 0
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(3, "down"), answer(2, "down"))}
	s.write()
	s.observe(3.1)
	s.wantDecision(Waiting)
	s.observe(9.9)
	s.wantDecision(Waiting)
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(10, "down"), answer(9, "down"))}
	s.observe(10.1)
	s.wantDecision(Done)

	// One that asks every minute is given as long as it needs to be known again.
	s = newScenario(t, Out, "web")
	slow := row("lb1", "UP", 5, answer(2, "down"), answer(0, "ok"))
	slow.Interval = 60
	s.rows = []balancer.Balancer{slow}
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

func TestNobody(t *testing.T) {
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

	// What was known before the command wrote counts for nothing.
	s = newScenario(t, Out, "web")
	s.observe(0.5)
	s.write()
	s.wantDecision(Waiting)
	s.observe(1.5)
	s.wantDecision(Done)

	// Somebody asks who is no balancer, or noAnswer yet.
	s.lastRequest["web"] = 10
	s.observe(11)
	s.wantDecision(Waiting)
	s.observe(20.1)
	s.wantDecision(Done)
	// About another service is not about this one; but all is about everything.
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

	// Of several services each is waited for.
	s = newScenario(t, Out, "web", "api")
	s.write()
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))}
	s.lastRequest["web"], s.lastRequest["api"] = 6, 5
	s.observe(6.1)
	s.wantDecision(Waiting)
	s.observe(15.1)
	s.wantDecision(Done)

	// Questions about another instance are not about this one, and any other might be.
	s = newScenario(t, Out, "web:81")
	s.write()
	s.rows = []balancer.Balancer{row("lb1", "UP", 7, answer(6, "ok"), answer(4, "ok"))}
	s.lastRequest["web"] = 6
	s.observe(6.1)
	s.wantDecision(Done)
	s.lastRequest["web"] = 10
	s.observe(11)
	s.wantDecision(Waiting)
}
