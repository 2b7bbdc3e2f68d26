package wait

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// scenario gives a tracker the reports of a daemon. Moments are in seconds since the command began. The override is
// written at 1.
type scenario struct {
	t           *testing.T
	tracker     *Tracker
	uptime      float64            // of the daemon at moment 0
	lastRequest map[string]float64 // moment by service
	rows        []balancer.Balancer
	agents      []balancer.Agent
	agentOnly   bool
}

// newScenario makes a tracker of the targets with these names: web, web:80, web:10.0.0.7:80.
func newScenario(t *testing.T, goal Goal, names ...string) *scenario {
	t.Helper()
	var targets []Target
	for _, name := range names {
		k, err := spool.ParseKey(name)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, Target{Key: k, Label: name})
	}
	return &scenario{t: t, tracker: NewTracker(targets, goal, 3), uptime: 1000, lastRequest: map[string]float64{}}
}

// observe gives the tracker the report of that moment. The ages in rows and agents are moments.
func (s *scenario) observe(now float64) {
	s.t.Helper()
	r := &balancer.Report{Uptime: now + s.uptime, AgentOnly: s.agentOnly}
	for service, when := range s.lastRequest {
		r.Services = append(r.Services, balancer.LastRequest{Service: service, Age: now - when})
	}
	for _, row := range s.rows {
		row.Last.Age = now - row.Last.Age
		if row.Previous != nil {
			previous := *row.Previous
			previous.Age = now - previous.Age
			row.Previous = &previous
		}
		r.Balancers = append(r.Balancers, row)
	}
	for _, a := range s.agents {
		a.Age = now - a.Age
		r.Agents = append(r.Agents, a)
	}
	d := time.Duration(now * float64(time.Second))
	s.tracker.Observe(r, d, d+time.Millisecond)
}

func (s *scenario) write() { s.tracker.SetWritten(time.Second) }

func (s *scenario) wantDecision(want Status) {
	s.t.Helper()
	if got := s.tracker.Decide(); got != want {
		var texts []string
		for _, v := range s.tracker.Views()[:min(len(s.tracker.views), 10)] {
			texts = append(texts, fmt.Sprintf("%v %s", v.Status, v.Text))
		}
		s.t.Fatalf("at %v: %v, want %v; %q", s.tracker.received, got, want, texts)
	}
}

// wantText fails unless there is one view and its text has want in it.
func (s *scenario) wantText(want string) {
	s.t.Helper()
	if views := s.tracker.Views(); len(views) != 1 || !strings.Contains(views[0].Text, want) {
		for _, v := range views {
			s.t.Log(v.Text)
		}
		s.t.Fatalf("at %v: not one view with %q", s.tracker.received, want)
	}
}

// row is a balancer's view of web on port 80 here.
func row(node, state string, open int, last, previous balancer.Answer) balancer.Balancer {
	b := balancer.Balancer{
		Service: "web", Host: "127.0.0.1", Port: 80, Local: true, URL: "/http/web/0/",
		Address: "10.0.0.1", Node: node, Server: "be/web1", State: state, Interval: 2, Last: last,
	}
	if state == "" {
		b.Node, b.Server = "", ""
	} else {
		zero := 0
		b.Sessions, b.Queued = &open, &zero
	}
	if previous.Code != 0 {
		b.Previous = &previous
	}
	return b
}

// with is b after a change.
func with(b balancer.Balancer, change func(*balancer.Balancer)) balancer.Balancer {
	change(&b)
	return b
}

// answer is an answer at a moment. word is an override, "ok" or "fail".
func answer(at float64, word string) balancer.Answer {
	a := balancer.Answer{Age: at, Code: 200}
	switch word {
	case "ok":
	case "fail":
		a.Code = 503
	default:
		a.Code, a.Override = 503, word
	}
	return a
}

var noAnswer balancer.Answer

func TestOut(t *testing.T) {
	t.Parallel()
	queued := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	two := 2
	queued.Queued = &two
	unknown := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	unknown.Sessions, unknown.Queued = nil, nil
	stateless := func(out int, last balancer.Answer) balancer.Balancer {
		b := row("", "", 0, last, noAnswer)
		b.OutAnswers = out
		return b
	}
	for _, test := range []struct {
		name string
		row  balancer.Balancer
		want Status
		says string
	}{
		{"out", row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down")), Done, "DOWN, 0 sessions open: out"},
		{"on the way up", row("lb1", "DOWN 1/2", 0, answer(6, "down"), answer(4, "down")), Done, "DOWN 1/2, 0 sessions open: out"},
		{"drained", row("lb1", "NOLB 2/2", 0, answer(6, "drain"), answer(4, "drain")), Done, "NOLB 2/2, 0 sessions open: out"},
		{"drained, still open", row("lb1", "NOLB", 1, answer(6, "drain"), answer(4, "drain")), Waiting, "NOLB, 1 session open"},
		// Clients with a cookie come until it is DOWN.
		{"down after a drain", row("lb1", "NOLB 2/3", 0, answer(6, "down"), answer(4, "down")), Waiting, "NOLB 2/3, 0 sessions open, not down yet"},
		{"down for as many answers as HAProxy counts, and NOLB still", with(row("lb1", "NOLB", 0, answer(6, "down"), answer(4, "down")), func(b *balancer.Balancer) { b.SameAnswers = 4 }), Done, "NOLB, 0 sessions open: out"},
		{"a balancer that counts further", with(row("lb1", "NOLB 2/5", 0, answer(6, "down"), answer(4, "down")), func(b *balancer.Balancer) { b.SameAnswers = 5 }), Waiting, "not down yet"},
		{"down not yet for as many", with(row("lb1", "NOLB", 0, answer(6, "down"), answer(4, "down")), func(b *balancer.Balancer) { b.SameAnswers = 3 }), Waiting, "not down yet"},
		{"maint after a drain", row("lb1", "NOLB 1/3", 0, answer(6, "maint"), answer(4, "down")), Waiting, "NOLB 1/3, 0 sessions open, not down yet"},
		{"still up", row("lb1", "UP 1/3", 14, answer(6, "down"), answer(4, "down")), Waiting, "UP 1/3, 14 sessions open"},
		{"up and empty", row("lb1", "UP 1/3", 0, answer(6, "down"), answer(4, "down")), Waiting, "UP 1/3, 0 sessions open"},
		{"queue", queued, Waiting, "DOWN, 0 sessions open, 2 waiting"},
		{"an old haproxy", unknown, Done, "open sessions unknown: out"},
		{"no check", row("lb1", "no check", 0, answer(6, "down"), answer(4, "down")), Waiting, "no check"},
		// Its state is from before it last answer anything: it may be down for another reason, and coming back.
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
			s.rows = []balancer.Balancer{test.row}
			s.rows[0].Last.Age = 0.5
			if test.row.Previous != nil {
				s.rows[0].Previous = nil
			}
			s.observe(0.6)
			s.wantDecision(Waiting)
			s.write()
			s.wantDecision(Waiting) // what was seen before counts for nothing
			s.rows[0] = test.row
			s.observe(6.1)
			s.wantDecision(test.want)
			s.wantText(test.says)
		})
	}
}

// What one balancer says does not stand for another, nor for another service or port.
func TestWhoIsWaitedFor(t *testing.T) {
	t.Parallel()
	outNow := row("lb1", "DOWN", 0, answer(6, "down"), answer(4, "down"))
	up := func(change func(*balancer.Balancer)) balancer.Balancer {
		b := row("lb2", "UP", 3, answer(6, "down"), answer(4, "down"))
		change(&b)
		return b
	}
	for _, test := range []struct {
		name, target string
		other        balancer.Balancer
		want         Status
	}{
		{"another node", "web", up(func(*balancer.Balancer) {}), Waiting},
		{"the same node name elsewhere", "web", up(func(b *balancer.Balancer) { b.Node, b.Address = "lb1", "10.0.0.2" }), Waiting},
		{"another server", "web", up(func(b *balancer.Balancer) { b.Node, b.Server = "lb1", "be/web2" }), Waiting},
		{"another host of the service", "web", up(func(b *balancer.Balancer) { b.Host, b.Local = "10.0.0.9", false }), Waiting},
		{"no state, another URL", "web", func() balancer.Balancer {
			b := row("", "", 0, answer(6, "down"), noAnswer)
			b.URL = "/tcp/web/80"
			return b
		}(), Waiting},
		{"another service", "web", up(func(b *balancer.Balancer) { b.Service = "api" }), Done},
		{"all is every service", "all", up(func(b *balancer.Balancer) { b.Service = "api" }), Waiting},
		{"another port", "web:80", up(func(b *balancer.Balancer) { b.Port = 81 }), Done},
		{"the port elsewhere", "web:80", up(func(b *balancer.Balancer) { b.Host, b.Local = "10.0.0.9", false }), Done},
		{"the port by another address of this host", "web:80", up(func(b *balancer.Balancer) { b.Host = "10.0.0.7" }), Waiting},
		{"the host by another spelling", "web:2001:db8::1:80", up(func(b *balancer.Balancer) { b.Host, b.Local = "2001:DB8:0::1", false }), Waiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, Out, test.target)
			s.lastRequest["web"] = -20 // by nobody else, where lb1 is not concerned
			s.write()
			quiet := row("", "", 0, answer(6, "down"), noAnswer)
			quiet.OutAnswers = 3
			s.rows = []balancer.Balancer{outNow, test.other, quiet}
			s.observe(6.1)
			s.wantDecision(test.want)
		})
	}
}

func TestAgentOnly(t *testing.T) {
	t.Parallel()
	s := newScenario(t, Out, "web")
	s.agentOnly = true
	s.lastRequest["web"] = 0
	s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "up ready", Age: 0.8}}
	s.rows = []balancer.Balancer{row("lb1", "UP", 4, answer(0.5, "ok"), noAnswer)}
	s.observe(0.9)
	s.write()
	s.observe(1.1)
	s.wantText("its agent check has not got the override yet")
	s.rows[0] = row("lb1", "UP", 0, answer(2, "ok"), answer(0.5, "ok"))
	s.observe(2.1)
	s.wantDecision(Waiting) // empty, and may fill again
	s.agents[0].Answer, s.agents[0].Age = "up drain #new version", 3
	s.observe(3.1)
	s.wantDecision(Waiting) // its header is from before
	s.wantText("UP, 0 sessions open")
	s.agents[0].Age = 5 // it goes on asking, faster than checks come
	s.rows[0] = row("lb1", "UP", 1, answer(4, "ok"), answer(2, "ok"))
	s.observe(5.1)
	s.wantDecision(Waiting)
	s.rows[0] = row("lb1", "UP", 0, answer(6, "ok"), answer(4, "ok"))
	s.agents[0].Age = 6.05
	s.observe(6.1)
	s.wantDecision(Done)
	s.wantText("UP, 0 sessions open: out")
	// The word is taken back.
	s.agents[0].Answer, s.agents[0].Age = "up ready", 7
	s.observe(7.1)
	s.wantDecision(Waiting)
	// Overrides speak through /spool all the same.
	s.rows[0] = row("lb1", "DOWN", 0, answer(10, "down"), answer(8, "down"))
	s.observe(10.1)
	s.wantDecision(Done)
	// And what sends no state is out when its agent has read it.
	s.rows[0] = row("", "", 0, answer(12, "ok"), noAnswer)
	s.agents[0].Answer, s.agents[0].Age = "maint down #x", 12
	s.observe(12.1)
	s.forget(0) // the one from before is not the question
	s.wantDecision(Done)
	s.wantText("open sessions unknown: out")
}

// Under -S a server is out, or back, when all agent connections of an address that are about it have read so: those
// that ask the same are told apart by nothing but their number.
func TestAgentOnlyEveryConnection(t *testing.T) {
	t.Parallel()
	two := func(at float64) []balancer.Balancer {
		return []balancer.Balancer{
			row("lb1", "UP", 0, answer(at, "ok"), answer(at-2, "ok")),
			with(row("lb1", "UP", 0, answer(at, "ok"), answer(at-2, "ok")), func(b *balancer.Balancer) { b.Server = "tls/web1" }),
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
		first  []balancer.Agent // that leave something to wait for
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

// forget makes the watcher forget a view.
func (s *scenario) forget(i int) {
	delete(s.tracker.index, s.tracker.views[i].id)
	s.tracker.views = slices.Delete(s.tracker.views, i, i+1)
}

// What another address has read, or about another instance, does not count.
func TestAgentOfAnother(t *testing.T) {
	t.Parallel()
	for _, a := range []balancer.Agent{
		{Service: "web", Address: "10.0.0.9", Answer: "up drain", Age: 3},
		{Service: "web:81", Address: "10.0.0.1", Answer: "up drain", Age: 3},
		{Service: "api", Address: "10.0.0.1", Answer: "up drain", Age: 3},
		{Service: "web", Address: "10.0.0.1", Answer: "up drain", Age: 0.9}, // before the command wrote
		{Service: "../x", Address: "10.0.0.1", Answer: "up drain", Age: 3},
	} {
		s := newScenario(t, Out, "web")
		s.agentOnly = true
		s.write()
		s.agents = []balancer.Agent{a}
		s.rows = []balancer.Balancer{row("lb1", "UP", 0, answer(6, "ok"), answer(4, "ok"))}
		s.observe(6.1)
		s.wantDecision(Waiting)
		if s.tracker.views[0].status != Waiting {
			t.Errorf("%+v: %s", a, s.tracker.describe(s.tracker.views[0]))
		}
	}
	// About all, or the very instance, it does.
	for _, service := range []string{"all", "web:80", "web:127.0.0.1:80"} {
		s := newScenario(t, Out, "web")
		s.agentOnly = true
		s.write()
		s.agents = []balancer.Agent{{Service: service, Address: "10.0.0.1", Answer: "up drain", Age: 3}}
		s.observe(3.1)
		s.rows = []balancer.Balancer{row("lb1", "UP", 0, answer(6, "ok"), answer(4, "ok"))}
		s.observe(6.1)
		s.wantDecision(Done)
	}
}

// A balancer that checks nothing here but asks the agent is out when it has read so.
func TestAgentAlone(t *testing.T) {
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
	// Checks from there about another instance say nothing about this one.
	s.agents[0].Age = 3.5
	other := row("lb1", "DOWN", 0, answer(3.4, "down"), answer(3.2, "down"))
	other.Port = 81
	s.rows = []balancer.Balancer{other}
	s.observe(3.6)
	s.wantDecision(Done)
	if len(s.tracker.views) != 2 {
		t.Errorf("%d views, want the agent's and that of the other instance", len(s.tracker.views))
	}
	s.forget(1)
	// Once checks come from there, they count.
	s.rows = []balancer.Balancer{row("lb1", "UP", 2, answer(4, "down"), noAnswer)}
	s.observe(4.1)
	s.wantDecision(Waiting)
	s.wantText("UP, 2 sessions open")
}

// An agent connection alone is silent as a balancer is; one that has asked once or twice may be a person, and is waited
// for until it is.
func TestAgentAloneSilent(t *testing.T) {
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

	// A daemon that was started anew has not forgotten for the command who is known.
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

func TestBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		row   balancer.Balancer
		agent string
		want  Status
		says  string
	}{
		{"up", row("lb1", "UP", 3, answer(6, "ok"), answer(4, "ok")), "", Done, "UP, 3 sessions open: up"},
		{"never noticed", row("lb1", "UP 1/3", 3, answer(6, "ok"), answer(0, "down")), "", Done, "UP 1/3, 3 sessions open: up"},
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
			s.rows = []balancer.Balancer{test.row}
			if test.agent != "" {
				s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: test.agent, Age: 6}}
			}
			s.observe(6.1)
			s.wantDecision(test.want)
			s.wantText(test.says)
		})
	}

	// After maintenance the balancer has been silent, but its agent has not.
	s := newScenario(t, Up, "web")
	b := row("lb1", "UP", 0, answer(-100, "ok"), noAnswer)
	b.Silent = true
	s.rows = []balancer.Balancer{b}
	s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "maint down #x", Age: 0.5}}
	s.observe(0.6)
	s.write()
	s.observe(1.5)
	s.wantDecision(Waiting)
	s.agents[0].Answer, s.agents[0].Age = "up ready", 2
	s.observe(2.1)
	s.wantDecision(Waiting) // for its first check
	s.rows[0] = row("lb1", "UP", 0, answer(3, "ok"), answer(-100, "ok"))
	s.observe(3.1)
	s.wantDecision(Done)
	// Without an agent it is not waited for.
	s = newScenario(t, Up, "web")
	s.rows = []balancer.Balancer{b}
	s.observe(0.6)
	s.write()
	s.observe(1.5)
	s.wantDecision(Done)
}

// A hundred balancers are waited for to the last, and told apart.
func TestHundred(t *testing.T) {
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

// What answers on the daemon's port may say what it likes: what is kept of it is bounded, and the time it takes.
func TestFlood(t *testing.T) {
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
