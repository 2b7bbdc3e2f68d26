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
	rows        []balancer.ServerView
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

// forget removes a view.
func (s *scenario) forget(i int) {
	delete(s.tracker.index, s.tracker.views[i].id)
	s.tracker.views = slices.Delete(s.tracker.views, i, i+1)
}

// row returns a balancer's view of web on port 80 of this host.
func row(node, state string, open int, last, previous balancer.Answer) balancer.ServerView {
	b := balancer.ServerView{
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

// with returns b after a change.
func with(b balancer.ServerView, change func(*balancer.ServerView)) balancer.ServerView {
	change(&b)
	return b
}

// answer returns an answer at a moment. word is an override, "ok" or "fail".
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
