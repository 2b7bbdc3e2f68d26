package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// script feeds a watcher with what a daemon would say, and looks at what it makes of it. Moments are in
// seconds since the command began; the override is written at 1.
type script struct {
	t      *testing.T
	w      *watcher
	uptime float64 // at moment 0
	asked  map[string]float64
	rows   []balancer.Balancer
	agents []balancer.Agent
	only   bool
}

// newScript has a command that is about these names: web, web:80, web:10.0.0.7:80.
func newScript(t *testing.T, up bool, names ...string) *script {
	t.Helper()
	var targets []target
	for _, name := range names {
		k, err := spool.ParseKey(name)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, target{key: k, label: name})
	}
	return &script{t: t, w: newWatcher(targets, up, 3), uptime: 1000, asked: map[string]float64{}}
}

// at is a daemon's answer at that moment; ages in rows and agents are given as moments.
func (s *script) at(now float64) {
	s.t.Helper()
	r := &balancer.Report{Uptime: now + s.uptime, AgentOnly: s.only}
	for service, when := range s.asked {
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
	s.w.see(r, d, d+time.Millisecond)
}

func (s *script) write() { s.w.wrote(time.Second) }

func (s *script) want(want status) {
	s.t.Helper()
	if got := s.w.verdict(); got != want {
		var says []string
		for _, v := range s.w.views[:min(len(s.w.views), 10)] {
			says = append(says, fmt.Sprintf("%v %s", v.status, s.w.says(v)))
		}
		s.t.Fatalf("at %v: %v, want %v; %q", s.w.now, got, want, says)
	}
}

func (s *script) says(want string) {
	s.t.Helper()
	if len(s.w.views) != 1 || !strings.Contains(s.w.says(s.w.views[0]), want) {
		for _, v := range s.w.views {
			s.t.Logf("%s", s.w.says(v))
		}
		s.t.Fatalf("at %v: that is not one line with %q", s.w.now, want)
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

// told is an answer at a moment: an override's word or "ok".
func told(at float64, word string) balancer.Answer {
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

var none balancer.Answer

func TestOut(t *testing.T) {
	t.Parallel()
	queued := row("lb1", "DOWN", 0, told(6, "down"), told(4, "down"))
	two := 2
	queued.Queued = &two
	unknown := row("lb1", "DOWN", 0, told(6, "down"), told(4, "down"))
	unknown.Sessions, unknown.Queued = nil, nil
	stateless := func(out int, last balancer.Answer) balancer.Balancer {
		b := row("", "", 0, last, none)
		b.OutAnswers = out
		return b
	}
	for _, test := range []struct {
		name string
		row  balancer.Balancer
		want status
		says string
	}{
		{"out", row("lb1", "DOWN", 0, told(6, "down"), told(4, "down")), followed, "DOWN, 0 sessions open: out"},
		{"on the way up", row("lb1", "DOWN 1/2", 0, told(6, "down"), told(4, "down")), followed, "DOWN 1/2, 0 sessions open: out"},
		{"drained", row("lb1", "NOLB 2/2", 0, told(6, "drain"), told(4, "drain")), followed, "NOLB 2/2, 0 sessions open: out"},
		{"drained, still open", row("lb1", "NOLB", 1, told(6, "drain"), told(4, "drain")), waiting, "NOLB, 1 session open"},
		// Clients with a cookie come until it is DOWN.
		{"down after a drain", row("lb1", "NOLB 2/3", 0, told(6, "down"), told(4, "down")), waiting, "NOLB 2/3, 0 sessions open, not down yet"},
		{"down for as many answers as HAProxy counts, and NOLB still", with(row("lb1", "NOLB", 0, told(6, "down"), told(4, "down")), func(b *balancer.Balancer) { b.SameAnswers = 4 }), followed, "NOLB, 0 sessions open: out"},
		{"a balancer that counts further", with(row("lb1", "NOLB 2/5", 0, told(6, "down"), told(4, "down")), func(b *balancer.Balancer) { b.SameAnswers = 5 }), waiting, "not down yet"},
		{"down not yet for as many", with(row("lb1", "NOLB", 0, told(6, "down"), told(4, "down")), func(b *balancer.Balancer) { b.SameAnswers = 3 }), waiting, "not down yet"},
		{"maint after a drain", row("lb1", "NOLB 1/3", 0, told(6, "maint"), told(4, "down")), waiting, "NOLB 1/3, 0 sessions open, not down yet"},
		{"still up", row("lb1", "UP 1/3", 14, told(6, "down"), told(4, "down")), waiting, "UP 1/3, 14 sessions open"},
		{"up and empty", row("lb1", "UP 1/3", 0, told(6, "down"), told(4, "down")), waiting, "UP 1/3, 0 sessions open"},
		{"queue", queued, waiting, "DOWN, 0 sessions open, 2 waiting"},
		{"an old haproxy", unknown, followed, "open sessions unknown: out"},
		{"no check", row("lb1", "no check", 0, told(6, "down"), told(4, "down")), waiting, "no check"},
		// Its state is from before it was told anything: it may be down for another reason, and coming back.
		{"not told", row("lb1", "DOWN", 0, told(6, "down"), told(4, "fail")), waiting, "not told yet"},
		{"told too early", row("lb1", "DOWN", 0, told(6, "down"), told(0.9, "down")), waiting, "not told yet"},
		{"first request", row("lb1", "DOWN", 0, told(6, "down"), none), waiting, "not told yet"},
		{"not told any more", row("lb1", "DOWN", 0, told(6, "fail"), told(4, "down")), waiting, "DOWN"},
		{"no state, twice", stateless(2, told(6, "down")), waiting, "told 2 of 3 times, open sessions unknown"},
		{"no state, three times", stateless(3, told(6, "down")), followed, "told 3 of 3 times, open sessions unknown: out"},
		{"no state, three times before", stateless(3, told(0.5, "down")), waiting, "told 3 of 3"},
		{"forced up", stateless(0, told(6, "up")), waiting, "told 0 of 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, false, "web")
			s.asked["web"] = 6
			s.rows = []balancer.Balancer{test.row}
			s.rows[0].Last.Age = 0.5
			if test.row.Previous != nil {
				s.rows[0].Previous = nil
			}
			s.at(0.6)
			s.want(waiting)
			s.write()
			s.want(waiting) // what was seen before counts for nothing
			s.rows[0] = test.row
			s.at(6.1)
			s.want(test.want)
			s.says(test.says)
		})
	}
}

// What one balancer says does not stand for another, nor for another service or port.
func TestWhoIsWaitedFor(t *testing.T) {
	t.Parallel()
	outNow := row("lb1", "DOWN", 0, told(6, "down"), told(4, "down"))
	up := func(change func(*balancer.Balancer)) balancer.Balancer {
		b := row("lb2", "UP", 3, told(6, "down"), told(4, "down"))
		change(&b)
		return b
	}
	for _, test := range []struct {
		name, target string
		other        balancer.Balancer
		want         status
	}{
		{"another node", "web", up(func(*balancer.Balancer) {}), waiting},
		{"the same node name elsewhere", "web", up(func(b *balancer.Balancer) { b.Node, b.Address = "lb1", "10.0.0.2" }), waiting},
		{"another server", "web", up(func(b *balancer.Balancer) { b.Node, b.Server = "lb1", "be/web2" }), waiting},
		{"another host of the service", "web", up(func(b *balancer.Balancer) { b.Host, b.Local = "10.0.0.9", false }), waiting},
		{"no state, another URL", "web", func() balancer.Balancer {
			b := row("", "", 0, told(6, "down"), none)
			b.URL = "/tcp/web/80"
			return b
		}(), waiting},
		{"another service", "web", up(func(b *balancer.Balancer) { b.Service = "api" }), followed},
		{"all is every service", "all", up(func(b *balancer.Balancer) { b.Service = "api" }), waiting},
		{"another port", "web:80", up(func(b *balancer.Balancer) { b.Port = 81 }), followed},
		{"the port elsewhere", "web:80", up(func(b *balancer.Balancer) { b.Host, b.Local = "10.0.0.9", false }), followed},
		{"the port by another address of this host", "web:80", up(func(b *balancer.Balancer) { b.Host = "10.0.0.7" }), waiting},
		{"the host by another spelling", "web:2001:db8::1:80", up(func(b *balancer.Balancer) { b.Host, b.Local = "2001:DB8:0::1", false }), waiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, false, test.target)
			s.asked["web"] = -20 // by nobody else, where lb1 is not concerned
			s.write()
			quiet := row("", "", 0, told(6, "down"), none)
			quiet.OutAnswers = 3
			s.rows = []balancer.Balancer{outNow, test.other, quiet}
			s.at(6.1)
			s.want(test.want)
		})
	}
}

func TestAgentOnly(t *testing.T) {
	t.Parallel()
	s := newScript(t, false, "web")
	s.only = true
	s.asked["web"] = 0
	s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "up ready", Age: 0.8}}
	s.rows = []balancer.Balancer{row("lb1", "UP", 4, told(0.5, "ok"), none)}
	s.at(0.9)
	s.write()
	s.at(1.1)
	s.says("its agent has not read it yet")
	s.rows[0] = row("lb1", "UP", 0, told(2, "ok"), told(0.5, "ok"))
	s.at(2.1)
	s.want(waiting) // empty, and may fill again
	s.agents[0].Answer, s.agents[0].Age = "up drain #new version", 3
	s.at(3.1)
	s.want(waiting) // its header is from before
	s.says("UP, 0 sessions open")
	s.agents[0].Age = 5 // it goes on asking, faster than checks come
	s.rows[0] = row("lb1", "UP", 1, told(4, "ok"), told(2, "ok"))
	s.at(5.1)
	s.want(waiting)
	s.rows[0] = row("lb1", "UP", 0, told(6, "ok"), told(4, "ok"))
	s.agents[0].Age = 6.05
	s.at(6.1)
	s.want(followed)
	s.says("UP, 0 sessions open: out")
	// The word is taken back.
	s.agents[0].Answer, s.agents[0].Age = "up ready", 7
	s.at(7.1)
	s.want(waiting)
	// Overrides speak through /spool all the same.
	s.rows[0] = row("lb1", "DOWN", 0, told(10, "down"), told(8, "down"))
	s.at(10.1)
	s.want(followed)
	// And what sends no state is out when its agent has read it.
	s.rows[0] = row("", "", 0, told(12, "ok"), none)
	s.agents[0].Answer, s.agents[0].Age = "maint down #x", 12
	s.at(12.1)
	s.forget(0) // the one from before is not the question
	s.want(followed)
	s.says("open sessions unknown: out")
}

// Under -S a server is out, or back, when all agent connections of an address that are about it have read so: those
// that ask the same are told apart by nothing but their number.
func TestAgentOnlyEveryConnection(t *testing.T) {
	t.Parallel()
	two := func(at float64) []balancer.Balancer {
		return []balancer.Balancer{
			row("lb1", "UP", 0, told(at, "ok"), told(at-2, "ok")),
			with(row("lb1", "UP", 0, told(at, "ok"), told(at-2, "ok")), func(b *balancer.Balancer) { b.Server = "tls/web1" }),
		}
	}
	agent := func(service, answer string, at float64, alike int) balancer.Agent {
		return balancer.Agent{Service: service, Address: "10.0.0.1", Answer: answer, Age: at, SameAnswers: alike}
	}
	const in, drained = "up ready", "up drain"
	for _, test := range []struct {
		name   string
		up     bool
		target string
		first  []balancer.Agent // that leave something to wait for
		then   []balancer.Agent
	}{
		{
			"the same twice", false, "web",
			[]balancer.Agent{agent("web", drained, 3, 1)},
			[]balancer.Agent{agent("web", drained, 5, 2)},
		},
		{
			"back twice", true, "web",
			[]balancer.Agent{agent("web", in, 3, 1)},
			[]balancer.Agent{agent("web", in, 5, 2)},
		},
		{
			"two names", false, "web",
			[]balancer.Agent{agent("web", drained, 3, 1), agent("web:80", in, 0.5, 9)},
			[]balancer.Agent{agent("web", drained, 5, 2), agent("web:80", drained, 5, 1)},
		},
		{
			"all for another service", false, "web",
			[]balancer.Agent{agent("web", drained, 3, 1), agent("all", in, 3, 9)},
			[]balancer.Agent{agent("web", drained, 5, 2), agent("all", in, 5, 9)},
		},
		{
			"one about all", false, "all",
			[]balancer.Agent{agent("web", drained, 3, 2), agent("all", drained, 3, 1)},
			[]balancer.Agent{agent("web", drained, 5, 2), agent("all", drained, 5, 2)},
		},
		{
			"a person, half a minute ago", false, "web",
			[]balancer.Agent{agent("web", drained, 3, 2), agent("web:80", in, -25, 1)},
			[]balancer.Agent{agent("web", drained, 5, 3), agent("web:80", in, -25, 1)},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, test.up, test.target)
			s.only = true
			s.asked["web"] = 0
			s.write()
			s.rows, s.agents = two(4), test.first
			s.at(4.1)
			s.rows = two(4.2)
			s.at(4.3)
			s.want(waiting)
			s.rows, s.agents = two(6), test.then
			s.at(6.1)
			s.rows = two(8)
			s.at(8.1)
			s.want(followed)
		})
	}
}

// forget makes the watcher forget a view.
func (s *script) forget(i int) {
	delete(s.w.index, s.w.views[i].key)
	s.w.views = slices.Delete(s.w.views, i, i+1)
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
		s := newScript(t, false, "web")
		s.only = true
		s.write()
		s.agents = []balancer.Agent{a}
		s.rows = []balancer.Balancer{row("lb1", "UP", 0, told(6, "ok"), told(4, "ok"))}
		s.at(6.1)
		s.want(waiting)
		if s.w.views[0].status != waiting {
			t.Errorf("%+v: %s", a, s.w.says(s.w.views[0]))
		}
	}
	// About all, or the very instance, it does.
	for _, service := range []string{"all", "web:80", "web:127.0.0.1:80"} {
		s := newScript(t, false, "web")
		s.only = true
		s.write()
		s.agents = []balancer.Agent{{Service: service, Address: "10.0.0.1", Answer: "up drain", Age: 3}}
		s.at(3.1)
		s.rows = []balancer.Balancer{row("lb1", "UP", 0, told(6, "ok"), told(4, "ok"))}
		s.at(6.1)
		s.want(followed)
	}
}

// A balancer that checks nothing here but asks the agent is out when it has read so.
func TestAgentAlone(t *testing.T) {
	t.Parallel()
	s := newScript(t, false, "web")
	s.agents = []balancer.Agent{{Service: "web:80", Address: "10.0.0.1", Answer: "up ready", Age: 1.5}, {Service: "api", Address: "10.0.0.1", Answer: "up ready", Age: 1.5}}
	s.write()
	s.at(2)
	s.want(waiting)
	s.says("has not read it yet")
	s.agents[0].Answer, s.agents[0].Age = "ready down #x", 3
	s.at(3.1)
	s.want(followed)
	s.says("has read it, open sessions unknown: out")
	// Checks from there about another instance say nothing about this one.
	s.agents[0].Age = 3.5
	other := row("lb1", "DOWN", 0, told(3.4, "down"), told(3.2, "down"))
	other.Port = 81
	s.rows = []balancer.Balancer{other}
	s.at(3.6)
	s.want(followed)
	if len(s.w.views) != 2 {
		t.Errorf("%d views, want the agent's and that of the other instance", len(s.w.views))
	}
	s.forget(1)
	// Once checks come from there, they count.
	s.rows = []balancer.Balancer{row("lb1", "UP", 2, told(4, "down"), none)}
	s.at(4.1)
	s.want(waiting)
	s.says("UP, 2 sessions open")
}

// An agent connection alone is silent as a balancer is; one that has asked once or twice may be a person, and is waited
// for until it is.
func TestAgentAloneSilent(t *testing.T) {
	t.Parallel()
	asked := func(at float64, known, silent bool) []balancer.Agent {
		return []balancer.Agent{{Service: "web", Address: "10.0.0.9", Answer: "up ready", Age: at, SameAnswers: 1, Confirmed: known, Silent: silent}}
	}
	s := newScript(t, false, "web")
	s.agents = asked(-6, true, true)
	s.write()
	s.at(2)
	s.want(followed)
	s.says("silent since before, not waited for")

	s = newScript(t, false, "web")
	s.agents = asked(0, true, false)
	s.write()
	s.at(2)
	s.want(waiting)
	s.agents = asked(0, true, true)
	s.at(6)
	s.want(waiting)
	s.at(35.9)
	s.want(waiting)
	s.at(36.1)
	s.want(lost)

	s = newScript(t, false, "web")
	s.agents = asked(0, false, false)
	s.write()
	s.at(2)
	s.want(waiting)
	s.agents = asked(0, false, true)
	s.at(10.1)
	s.want(followed)
	s.says("not waited for")

	// A daemon that was started anew has not forgotten for the command who is known.
	s = newScript(t, false, "web")
	s.agents = asked(0, true, false)
	s.write()
	s.at(2)
	s.agents = asked(3, false, false)
	s.at(3.1)
	s.agents = asked(3, false, true)
	s.at(14)
	s.want(waiting)
}

func TestSilent(t *testing.T) {
	t.Parallel()
	silent := func(b balancer.Balancer) balancer.Balancer {
		b.Silent = true
		return b
	}
	// Since before: named, not waited for; but waited for when it asks again.
	s := newScript(t, false, "web")
	s.asked["web"] = -20
	s.rows = []balancer.Balancer{silent(row("lb1", "UP", 5, told(-20, "ok"), none))}
	s.at(0.5)
	s.write()
	s.at(1.5)
	s.want(followed)
	s.says("silent since before, not waited for")
	s.rows[0] = row("lb1", "UP", 5, told(2, "down"), told(-20, "ok"))
	s.at(2.5)
	s.want(waiting)

	// Falling silent with its last words out and empty is out.
	s = newScript(t, false, "web")
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(0, "fail"), none)}
	s.at(0.5)
	s.write()
	s.at(1.5)
	s.want(waiting)
	s.rows[0] = silent(s.rows[0])
	s.at(7)
	s.want(followed)
	s.says("silent, and it was out")

	// Falling silent otherwise is open after half a minute; the others go on.
	s = newScript(t, false, "web")
	lb2 := row("lb2", "UP", 1, told(4, "down"), told(2, "down"))
	s.rows = []balancer.Balancer{row("lb1", "UP", 5, told(2, "down"), none), lb2}
	s.at(2.5)
	s.write()
	s.rows[0] = silent(s.rows[0])
	s.at(8)
	s.want(waiting)
	s.at(37.9)
	s.want(waiting)
	s.at(38)
	s.want(waiting) // for lb2
	if got := s.w.says(s.w.views[0]); !strings.Contains(got, "silent, counts as open; last it said: UP, 5 sessions open") {
		t.Errorf("says %q", got)
	}
	s.rows[1] = row("lb2", "DOWN", 0, told(39, "down"), told(37, "down"))
	s.at(39.1)
	s.want(lost)
	// One that comes back is waited for.
	s.rows[0] = row("lb1", "UP", 5, told(40, "down"), none)
	s.at(40.1)
	s.want(waiting)
	// A balancer that was out and went silent was out.
	s.rows[0] = row("lb1", "DOWN", 0, told(44, "down"), told(42, "down"))
	s.at(44.1)
	s.want(followed)
	s.rows[0] = silent(s.rows[0])
	s.at(90)
	s.want(followed)

	// Also one that says nothing, and is forgotten soon; and likewise one that was back.
	s = newScript(t, false, "web")
	s.write()
	stateless := row("", "", 0, told(6, "down"), none)
	stateless.OutAnswers = 3
	s.rows = []balancer.Balancer{stateless}
	s.at(6.1)
	s.want(followed)
	s.rows = nil
	s.at(60)
	s.want(followed)
	s = newScript(t, true, "web")
	s.write()
	s.rows = []balancer.Balancer{row("lb1", "UP", 1, told(6, "ok"), none)}
	s.at(6.1)
	s.want(followed)
	s.rows[0] = silent(s.rows[0])
	s.at(60)
	s.want(followed)
}

// A daemon that is started anew knows nobody, and what it says at first is no reason to end.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newScript(t, false, "web")
	s.asked["web"] = 0
	before := row("lb1", "UP", 5, told(2, "down"), told(0, "ok"))
	outBefore := row("lb2", "DOWN", 0, told(4, "down"), told(2, "down"))
	s.rows = []balancer.Balancer{before, outBefore}
	s.at(0.5)
	s.write()
	s.at(4.1)
	s.want(waiting)
	if s.w.restarts != 0 {
		t.Fatal("a restart that was none")
	}
	s.uptime = -5 // it began to listen at 5
	delete(s.asked, "web")
	s.rows = nil
	s.at(5.5)
	s.want(waiting)
	if s.w.restarts != 1 {
		t.Fatalf("%d restarts, want 1", s.w.restarts)
	}
	s.at(16)
	s.want(waiting) // nobody has asked for ten seconds, but somebody was there
	s.at(35.6)
	s.want(lost)
	// lb1 is known again: its rows start anew, and lb2 was out.
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(36, "down"), none)}
	s.at(36.1)
	s.want(waiting)
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(38, "down"), told(36, "down"))}
	s.at(38.1)
	s.want(followed)

	// While nobody is known to ask, a daemon has to listen for ten seconds again; who was known need not wait.
	s = newScript(t, false, "web")
	s.at(0.5)
	s.write()
	s.uptime = -2
	s.at(3)
	s.want(waiting)
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(6, "down"), told(4, "down"))}
	s.at(6.1)
	s.want(followed)

	// Just before the command: who has not asked in ten seconds may still be there.
	s = newScript(t, false, "web")
	s.uptime = 0
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(3, "down"), told(2, "down"))}
	s.write()
	s.at(3.1)
	s.want(waiting)
	s.at(9.9)
	s.want(waiting)
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(10, "down"), told(9, "down"))}
	s.at(10.1)
	s.want(followed)

	// One that asks every minute is given as long as it needs to be known again.
	s = newScript(t, false, "web")
	slow := row("lb1", "UP", 5, told(2, "down"), told(0, "ok"))
	slow.Interval = 60
	s.rows = []balancer.Balancer{slow}
	s.write()
	s.at(2.1)
	s.uptime = -5
	s.rows = nil
	s.at(10)
	s.at(249)
	s.want(waiting)
	s.at(251)
	s.want(lost)
}

func TestNobody(t *testing.T) {
	t.Parallel()
	s := newScript(t, false, "web")
	s.uptime = 0
	s.at(0.5)
	s.write()
	s.at(1.5)
	s.want(waiting)
	s.at(9.9)
	s.want(waiting)
	s.at(10.1)
	s.want(followed)

	// What was known before the command wrote counts for nothing.
	s = newScript(t, false, "web")
	s.at(0.5)
	s.write()
	s.want(waiting)
	s.at(1.5)
	s.want(followed)

	// Somebody asks who is no balancer, or none yet.
	s.asked["web"] = 10
	s.at(11)
	s.want(waiting)
	s.at(20.1)
	s.want(followed)
	// About another service is not about this one; but all is about everything.
	s.asked["api"] = 20
	s.at(21)
	s.want(followed)
	s = newScript(t, false, "all")
	s.write()
	s.asked["api"] = 20
	s.at(21)
	s.want(waiting)
	s.at(30.1)
	s.want(followed)

	// Of several services each is waited for.
	s = newScript(t, false, "web", "api")
	s.write()
	s.rows = []balancer.Balancer{row("lb1", "DOWN", 0, told(6, "down"), told(4, "down"))}
	s.asked["web"], s.asked["api"] = 6, 5
	s.at(6.1)
	s.want(waiting)
	s.at(15.1)
	s.want(followed)

	// Questions about another instance are not about this one, and any other might be.
	s = newScript(t, false, "web:81")
	s.write()
	s.rows = []balancer.Balancer{row("lb1", "UP", 7, told(6, "ok"), told(4, "ok"))}
	s.asked["web"] = 6
	s.at(6.1)
	s.want(followed)
	s.asked["web"] = 10
	s.at(11)
	s.want(waiting)
}

func TestBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		row   balancer.Balancer
		agent string
		want  status
		says  string
	}{
		{"up", row("lb1", "UP", 3, told(6, "ok"), told(4, "ok")), "", followed, "UP, 3 sessions open: up"},
		{"never noticed", row("lb1", "UP 1/3", 3, told(6, "ok"), told(0, "down")), "", followed, "UP 1/3, 3 sessions open: up"},
		{"not checked", row("lb1", "no check", 3, told(6, "ok"), none), "", followed, "no check"},
		{"redirect", row("lb1", "UP", 3, balancer.Answer{Age: 6, Code: 302}, none), "", followed, "UP"},
		{"forced", row("lb1", "UP", 3, balancer.Answer{Age: 6, Code: 200, Override: "up"}, none), "", followed, "UP"},
		{"on the way", row("lb1", "DOWN 1/2", 0, told(6, "ok"), told(4, "ok")), "", waiting, "DOWN 1/2, 0 sessions open"},
		{"drained still", row("lb1", "NOLB", 0, told(6, "ok"), told(4, "ok")), "", waiting, "NOLB"},
		{"fails", row("lb1", "UP 2/3", 0, told(6, "fail"), told(4, "ok")), "", waiting, "UP 2/3, 0 sessions open, was told 503"},
		{"another override", row("lb1", "UP", 0, told(6, "drain"), told(4, "ok")), "", waiting, "was told drain"},
		{"before", row("lb1", "UP", 0, told(0.5, "ok"), none), "", waiting, "UP"},
		{"no state", row("", "", 0, told(6, "ok"), told(4, "ok")), "", followed, "sends no state, was told 200: up"},
		{"no state, once", row("", "", 0, told(6, "ok"), told(4, "fail")), "", waiting, "sends no state, was told 200"},
		{"no state, once since", row("", "", 0, told(6, "ok"), told(0, "ok")), "", waiting, "sends no state"},
		{"agent", row("lb1", "UP", 3, told(6, "ok"), told(4, "ok")), "up ready", followed, "UP"},
		{"agent says drain", row("lb1", "UP", 3, told(6, "ok"), told(4, "ok")), "up drain", waiting, "UP"},
		{"agent waits for a check", row("lb1", "UP", 3, told(6, "ok"), told(4, "ok")), "ready down #coming back", waiting, "UP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, true, "web")
			s.write()
			s.rows = []balancer.Balancer{test.row}
			if test.agent != "" {
				s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: test.agent, Age: 6}}
			}
			s.at(6.1)
			s.want(test.want)
			s.says(test.says)
		})
	}

	// After maintenance the balancer has been silent, but its agent has not.
	s := newScript(t, true, "web")
	b := row("lb1", "UP", 0, told(-100, "ok"), none)
	b.Silent = true
	s.rows = []balancer.Balancer{b}
	s.agents = []balancer.Agent{{Service: "web", Address: "10.0.0.1", Answer: "maint down #x", Age: 0.5}}
	s.at(0.6)
	s.write()
	s.at(1.5)
	s.want(waiting)
	s.agents[0].Answer, s.agents[0].Age = "up ready", 2
	s.at(2.1)
	s.want(waiting) // for its first check
	s.rows[0] = row("lb1", "UP", 0, told(3, "ok"), told(-100, "ok"))
	s.at(3.1)
	s.want(followed)
	// Without an agent it is not waited for.
	s = newScript(t, true, "web")
	s.rows = []balancer.Balancer{b}
	s.at(0.6)
	s.write()
	s.at(1.5)
	s.want(followed)
}

// A hundred balancers are waited for to the last, and told apart.
func TestHundred(t *testing.T) {
	t.Parallel()
	s := newScript(t, false, "web")
	s.write()
	for i := range 100 {
		b := row(fmt.Sprintf("lb%d", i%50), "DOWN", 0, told(6, "down"), told(4, "down"))
		b.Address = fmt.Sprintf("10.0.%d.1", i)
		s.rows = append(s.rows, b)
	}
	one := 1
	s.rows[99].Sessions = &one
	s.at(6.1)
	s.want(waiting)
	seen := map[string]bool{}
	for _, name := range s.w.names() {
		seen[name] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d names for 100 balancers", len(seen))
	}
	s.rows[99].Sessions = s.rows[0].Sessions
	s.at(6.3)
	s.want(followed)
}

// What answers on the daemon's port may say what it likes: what is kept of it is bounded, and the time it takes.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := newScript(t, false, "web")
	s.write()
	for round := range 3 {
		now := 6 + float64(round)*40
		s.rows, s.agents = nil, nil
		for i := range 15_000 {
			b := row(fmt.Sprintf("lb%d.%d", round, i), "UP", 1, told(now, "down"), told(now-1, "down"))
			b.Address = fmt.Sprintf("a%d.%d", round, i%5000)
			s.rows = append(s.rows, b)
			s.agents = append(s.agents, balancer.Agent{Service: "web", Address: fmt.Sprintf("b%d.%d", round, i), Answer: "up ready", Age: now})
		}
		s.at(now + 0.1)
	}
	if s.w.verdict() == followed {
		t.Error("all of them have followed")
	}
	if len(s.w.views) > maxViews || len(s.w.index) > maxViews || len(s.w.agents) > 15_000 || !s.w.crowded {
		t.Errorf("%d views, %d in the index, %d agents, crowded: %v", len(s.w.views), len(s.w.index), len(s.w.agents), s.w.crowded)
	}
}

func TestJudgeSafe(t *testing.T) {
	t.Parallel()
	weigh := func(b balancer.Balancer, weight, total int) balancer.Balancer {
		b.Weight, b.TotalWeight = &weight, &total
		return b
	}
	up := func(node string, weight, total int) balancer.Balancer {
		return weigh(row(node, "UP", 5, told(1, "ok"), none), weight, total)
	}
	silent := func(b *balancer.Balancer) { b.Silent = true }
	late := func(b *balancer.Balancer) { b.Last.Age = 9 }
	api := func(b *balancer.Balancer) { b.Service, b.Server = "api", "be/web2" }
	for _, test := range []struct {
		name               string
		targets            []string
		rows               []balancer.Balancer
		objection, missing string
	}{
		{"one more", nil, []balancer.Balancer{up("lb1", 1, 2)}, "", ""},
		{"on its way down", nil, []balancer.Balancer{with(up("lb1", 1, 2), func(b *balancer.Balancer) { b.State = "UP 1/3" })}, "", ""},
		{"the last one", nil, []balancer.Balancer{up("lb1", 1, 1)}, "web: lb1 (be/web1): no other server would be left, weight 1 of 1", ""},
		{"the last one for one of two", nil, []balancer.Balancer{up("lb1", 1, 2), up("lb2", 100, 100)}, "web: lb2 (be/web1): no other server", ""},
		{"out already", nil, []balancer.Balancer{row("lb1", "DOWN", 0, told(1, "fail"), none), row("lb2", "NOLB", 0, told(1, "drain"), none)}, "", ""},
		{"the last one, asked long ago", nil, []balancer.Balancer{with(up("lb1", 1, 1), late)}, "", "web: lb1 (be/web1): has not asked within 10s"},
		{"one asked long ago", nil, []balancer.Balancer{up("lb1", 1, 2), with(up("lb2", 1, 2), late)}, "", "web: lb2 (be/web1): has not asked within 10s"},
		{"one is gone", nil, []balancer.Balancer{up("lb1", 1, 2), with(up("lb2", 1, 1), silent)}, "", ""},
		{"all are gone", nil, []balancer.Balancer{with(up("lb2", 1, 2), silent)}, "", "no balancer that asks sends a state, so that what they have left cannot be known; add \"http-check send-state\""},
		{"no state", nil, []balancer.Balancer{up("lb1", 1, 2), row("", "", 0, told(1, "ok"), none)}, "web: 10.0.0.1 (/http/web/0/) sends no state, so that what it has left cannot be known; add \"http-check send-state\" to its backend", ""},
		{"no weight", nil, []balancer.Balancer{row("lb1", "UP", 0, told(1, "ok"), none)}, `says "UP" and no weights`, ""},
		{"odd state", nil, []balancer.Balancer{with(up("lb1", 1, 2), func(b *balancer.Balancer) { b.State = "MAINT" })}, `says "MAINT"`, ""},
		{"nobody about it", []string{"api"}, []balancer.Balancer{up("lb1", 1, 2)}, "", "no balancer has asked within 10s"},
		{"nobody about one of two", []string{"web", "api"}, []balancer.Balancer{up("lb1", 1, 2)}, "", "api: no balancer has asked about it within 10s"},
		// Two of one backend go down together, and have to be spared together.
		{"two of two", []string{"web", "api"}, []balancer.Balancer{up("lb1", 1, 2), with(up("lb1", 1, 2), api)}, "web: lb1 (be/web1) and api: lb1 (be/web2): no other server would be left, weight 2 of 2", ""},
		{"two of three", []string{"web", "api"}, []balancer.Balancer{up("lb1", 1, 3), with(up("lb1", 1, 3), api)}, "", ""},
		{"two of all", []string{"all"}, []balancer.Balancer{up("lb1", 1, 2), with(up("lb1", 1, 2), api)}, "weight 2 of 2", ""},
		{"two of three, of which one has gone meanwhile", []string{"web", "api"}, []balancer.Balancer{up("lb1", 1, 3), with(up("lb1", 1, 2), api)}, "weight 2 of 2", ""},
		{"two backends", []string{"web", "api"}, []balancer.Balancer{up("lb1", 1, 2), with(up("lb1", 1, 2), func(b *balancer.Balancer) { b.Service, b.Server = "api", "other/web2" })}, "", ""},
		{"two balancers of one name", nil, []balancer.Balancer{up("lb1", 1, 2), with(up("lb1", 1, 2), func(b *balancer.Balancer) { b.Address = "10.0.0.2" })}, "", ""},
		{"two balancers", nil, []balancer.Balancer{up("lb1", 1, 2), up("lb2", 1, 2)}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.targets == nil {
				test.targets = []string{"web"}
			}
			s := newScript(t, false, test.targets...)
			for i := range test.rows {
				test.rows[i].RequestAge = test.rows[i].Last.Age
			}
			r := &balancer.Report{Uptime: 100, Balancers: test.rows, Services: []balancer.LastRequest{{Service: "web", Age: 1}}}
			objection, missing := judgeSafe(s.w.targets, r, 5*time.Second)
			if !strings.Contains(objection, test.objection) || (objection == "") != (test.objection == "") ||
				!strings.Contains(missing, test.missing) || (missing == "") != (test.missing == "") {
				t.Errorf("objection %q, missing %q; want %q and %q", objection, missing, test.objection, test.missing)
			}
		})
	}
	for _, test := range []struct {
		agent              balancer.Agent
		objection, missing string
	}{
		{balancer.Agent{Service: "web", Address: "10.0.0.9", Age: 3, Confirmed: true}, "web: 10.0.0.9 asks the agent and sends no state", ""},
		{balancer.Agent{Service: "web:80", Address: "10.0.0.9", Age: 3, Confirmed: true}, `web:80: 10.0.0.9 asks the agent and sends no state, so that what it has left cannot be known; check web:80 by HTTP from there too, and add "http-check send-state"`, ""},
		{balancer.Agent{Service: "web", Address: "10.0.0.1", Age: 3, Confirmed: true}, "", ""}, // checks come from there
		{balancer.Agent{Service: "web:80", Address: "10.0.0.1", Age: 3, Confirmed: true}, "", ""},
		{balancer.Agent{Service: "web:81", Address: "10.0.0.1", Age: 3, Confirmed: true}, "web:81: 10.0.0.1 asks", ""},
		{balancer.Agent{Service: "api", Address: "10.0.0.9", Age: 3, Confirmed: true}, "", ""},
		{balancer.Agent{Service: "all", Address: "10.0.0.9", Age: 3, Confirmed: true}, "", ""}, // web is not all
		{balancer.Agent{Service: "web", Address: "10.0.0.9", Age: 6, Confirmed: true, Silent: true}, "", ""},
		// One that has asked once may be a person, who is waited for until that is clear.
		{balancer.Agent{Service: "web", Address: "10.0.0.9", Age: 3}, "", "web: 10.0.0.9 asks the agent and sends no state"},
	} {
		s := newScript(t, false, "web")
		r := &balancer.Report{Uptime: 100, Balancers: []balancer.Balancer{up("lb1", 1, 2)}, Agents: []balancer.Agent{test.agent}}
		objection, missing := judgeSafe(s.w.targets, r, 5*time.Second)
		if !strings.Contains(objection, test.objection) || (objection == "") != (test.objection == "") ||
			!strings.Contains(missing, test.missing) || (missing == "") != (test.missing == "") {
			t.Errorf("%+v: objection %q, missing %q; want %q and %q", test.agent, objection, missing, test.objection, test.missing)
		}
	}
	s := newScript(t, false, "web")
	rows := []balancer.Balancer{up("lb1", 1, 2)}
	if objection, missing := judgeSafe(s.w.targets, &balancer.Report{Uptime: 9, Balancers: rows}, 5*time.Second); objection != "" || !strings.Contains(missing, "not listened long enough") {
		t.Errorf("a daemon that has just started: %q, %q", objection, missing)
	}
	for name, r := range map[string]*balancer.Report{
		"of an older daemon": {DroppedRequests: 1},
		"of web":             {Unrecorded: []balancer.UnrecordedClient{{Service: "web", Client: "10.0.0.7"}}},
		"of all":             {Unrecorded: []balancer.UnrecordedClient{{Service: "all", Client: "10.0.0.7"}}},
		"of any":             {Unrecorded: []balancer.UnrecordedClient{{Client: "10.0.0.7"}}},
	} {
		r.Uptime, r.Balancers = 100, rows
		if objection, missing := judgeSafe(s.w.targets, r, 5*time.Second); objection != "" || !strings.Contains(missing, "the daemon could not record it") {
			t.Errorf("a client that is not recorded, %s: %q, %q", name, objection, missing)
		}
	}
	r := &balancer.Report{Uptime: 100, Balancers: rows, DroppedRequests: 1, Unrecorded: []balancer.UnrecordedClient{{Service: "api"}}}
	if objection, missing := judgeSafe(s.w.targets, r, 5*time.Second); objection != "" || missing != "" {
		t.Errorf("a client that is not recorded, of another service: %q, %q", objection, missing)
	}
}
