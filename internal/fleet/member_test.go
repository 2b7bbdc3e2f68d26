package fleet

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// memberTest feeds members with reports, second by second.
type memberTest struct {
	*members
	t         *testing.T
	now       time.Time
	report    balancer.Report
	overrides []spool.Entry
	permit    []string
}

func newMemberTest(t *testing.T, options map[string]bool) *memberTest {
	return &memberTest{members: newMembers(options), t: t, now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}
}

// pass lets time pass, with a report each second.
func (m *memberTest) pass(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); {
		m.now = m.now.Add(time.Second)
		m.observe(m.now, &m.report, m.overrides, m.permit)
	}
}

// ask makes the report one of rows and agents.
func (m *memberTest) ask(rows []balancer.ServerView, agents ...balancer.Agent) {
	m.report = balancer.Report{Uptime: 100, Balancers: rows, Agents: agents}
	m.pass(time.Second)
}

func (m *memberTest) wantState(want string) {
	m.t.Helper()
	if got := m.stateOf("web", m.overrides, nil, nil, m.now).State; got != want {
		m.t.Fatalf("state %q, want %q", got, want)
	}
}

// webRow is a balancer's view of web on this host, which was asked a second ago.
func webRow(state string, code int, override string) balancer.ServerView {
	r := balancer.ServerView{
		Service: "web", Host: "127.0.0.1", Port: 80, Local: true, Address: "10.0.0.1", State: state, Interval: 2, RequestAge: 1,
		Last: balancer.Answer{Age: 1, Code: code, Override: override},
	}
	if state != "" {
		r.Node, r.Server = "lb1", "be/web1"
	}
	return r
}

func rows(list ...balancer.ServerView) []balancer.ServerView { return list }

func TestMembership(t *testing.T) {
	t.Parallel()
	elsewhere, silent := webRow("UP", 200, ""), webRow("UP", 200, "")
	elsewhere.Local = false
	silent.Silent = true
	agent := balancer.Agent{Service: "web", Address: "10.0.0.9", Answer: "up ready", Confirmed: true}
	out, person, other, all := agent, agent, agent, agent
	out.Answer = "ready down #x"
	person.Confirmed = false
	other.Service = "web:192.0.2.1:80"
	all.Service = "all"
	sameAddress := agent
	sameAddress.Address = "10.0.0.1"
	for name, test := range map[string]struct {
		options map[string]bool
		rows    []balancer.ServerView
		agents  []balancer.Agent
		want    bool
	}{
		"UP":                                   {nil, rows(webRow("UP", 200, "")), nil, true},
		"on its way down":                      {nil, rows(webRow("UP 1/3", 503, "")), nil, true},
		"DOWN":                                 {nil, rows(webRow("DOWN", 200, "")), nil, false},
		"DOWN and UP elsewhere":                {nil, rows(webRow("DOWN", 503, ""), webRow("UP", 200, "")), nil, true},
		"about another host":                   {nil, rows(elsewhere), nil, false},
		"UP long ago":                          {nil, rows(silent), nil, false},
		"no state, answered 200":               {nil, rows(webRow("", 200, "")), nil, true},
		"no state, answered 503":               {nil, rows(webRow("", 503, "")), nil, false},
		"no state, answered down":              {nil, rows(webRow("", 503, "down")), nil, false},
		"agent":                                {nil, nil, []balancer.Agent{agent}, true},
		"agent, down":                          {nil, nil, []balancer.Agent{out}, false},
		"agent of a person":                    {nil, nil, []balancer.Agent{person}, false},
		"agent about another host":             {nil, nil, []balancer.Agent{other}, false},
		"agent about all":                      {nil, nil, []balancer.Agent{all}, false},
		"agent of a balancer that sends state": {nil, rows(webRow("DOWN", 503, "")), []balancer.Agent{sameAddress}, false},
		"nothing, member: true":                {map[string]bool{"web": true}, nil, nil, true},
		"UP, member: false":                    {map[string]bool{"web": false}, rows(webRow("UP", 200, "")), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemberTest(t, test.options)
			m.ask(test.rows, test.agents...)
			if got := len(m.names()) == 1; got != test.want {
				t.Errorf("member: %v, want %v", got, test.want)
			}
		})
	}
}

// TestMembershipEnds: it ends after 10 minutes and 20 intervals without a request, but not while an override or a permit
// keeps the host.
func TestMembershipEnds(t *testing.T) {
	t.Parallel()
	slow := webRow("UP", 200, "")
	slow.Interval = 60
	down := spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}
	for name, test := range map[string]struct {
		row       balancer.ServerView
		overrides []spool.Entry
		permit    []string
		member    time.Duration // still a member after it
		gone      time.Duration // no member any more after it; 0: it stays one
	}{
		"unasked":     {webRow("UP", 200, ""), nil, nil, 595 * time.Second, 605 * time.Second},
		"slow checks": {slow, nil, nil, 1195 * time.Second, 1205 * time.Second},
		"overridden":  {webRow("UP", 200, ""), []spool.Entry{down}, nil, time.Hour, 0},
		"permit":      {webRow("UP", 200, ""), nil, []string{"web"}, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemberTest(t, nil)
			m.ask(rows(test.row))
			m.report, m.overrides, m.permit = balancer.Report{}, test.overrides, test.permit
			m.pass(test.member)
			if len(m.names()) != 1 {
				t.Fatalf("no member after %v", test.member)
			}
			if test.gone == 0 {
				return
			}
			m.pass(test.gone - test.member)
			if len(m.names()) != 0 || len(m.services) != 0 {
				t.Fatalf("still known after %v", test.gone)
			}
		})
	}
}

// TestFailingAndPassing: a check has to fail for 2 s, and to pass again for 5 s.
func TestFailingAndPassing(t *testing.T) {
	t.Parallel()
	m := newMemberTest(t, nil)
	m.ask(rows(webRow("UP", 200, "")))
	m.wantState(stateUp)
	m.ask(rows(webRow("UP", 503, "")))
	m.pass(time.Second)
	m.wantState(stateUp)
	m.pass(time.Second)
	m.wantState(stateFailing)
	m.ask(rows(webRow("DOWN", 200, "")))
	m.pass(4 * time.Second)
	m.wantState(stateFailing)
	m.ask(rows(webRow("DOWN", 503, ""))) // once more: the five seconds begin again
	m.ask(rows(webRow("DOWN", 200, "")))
	m.pass(4 * time.Second)
	m.wantState(stateFailing)
	m.pass(time.Second)
	m.wantState(stateUp)
	// Without an answer nothing is known, and the state stays.
	m.ask(rows(webRow("UP", 503, "")))
	m.pass(3 * time.Second)
	m.ask(nil)
	m.pass(time.Minute)
	m.wantState(stateFailing)
}

// TestOverrideAndItsEnd: an override counts at once. After its end the first healthy answer counts at once.
func TestOverrideAndItsEnd(t *testing.T) {
	t.Parallel()
	m := newMemberTest(t, nil)
	m.ask(rows(webRow("UP", 200, "")))
	m.overrides = []spool.Entry{{Key: spool.Key{Service: "web", Port: 81}, State: spool.Drain, By: "deploy", Reason: "new"}}
	m.wantState("drain") // of one instance
	m.ask(rows(webRow("UP", 503, "drain")))
	m.wantState("drain")
	m.overrides = nil
	m.ask(rows(webRow("DOWN", 503, "drain")))
	m.wantState(stateFailing) // the check has not run yet
	m.ask(rows(webRow("DOWN", 200, "")))
	m.wantState(stateUp)
}

// TestStrongestOverride: the state names the strongest override, among equals that of the widest scope.
func TestStrongestOverride(t *testing.T) {
	t.Parallel()
	web, all := spool.Key{Service: "web"}, spool.Key{Service: spool.All}
	for name, test := range map[string]struct {
		list        []spool.Entry
		state, text string
	}{
		"drain and down":  {[]spool.Entry{{Key: web, State: spool.Down, Reason: "a"}, {Key: all, State: spool.Drain, Reason: "b"}}, "down", "a"},
		"two scopes":      {[]spool.Entry{{Key: web, State: spool.Down, Reason: "a"}, {Key: web, State: spool.Down, Reason: "b", Scope: "group:x"}}, "down", "b"},
		"forced up":       {[]spool.Entry{{Key: all, State: spool.ForceUp, Reason: "a"}}, "force-up", "a"},
		"instance up":     {[]spool.Entry{{Key: spool.Key{Service: "web", Port: 80}, State: spool.ForceUp}}, stateUp, ""},
		"another service": {[]spool.Entry{{Key: spool.Key{Service: "api"}, State: spool.Down}}, stateUp, ""},
		"another host":    {[]spool.Entry{{Key: spool.Key{Service: "web", Host: "192.0.2.1", Port: 80}, State: spool.Down}}, stateUp, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemberTest(t, nil)
			m.ask(rows(webRow("UP", 200, "")))
			s := m.stateOf("web", test.list, nil, nil, m.now)
			if s.State != test.state || s.Reason != test.text {
				t.Errorf("got %q, %q; want %q, %q", s.State, s.Reason, test.state, test.text)
			}
		})
	}
}

// TestStateIsBounded: a value has at most 600 bytes, and texts are cut at characters.
func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	for name, reason := range map[string]string{
		"letters": strings.Repeat("x", 5000), "umlauts": strings.Repeat("ü", 5000), "quotes": strings.Repeat(`"<`, 2500), "short": "kernel",
	} {
		m := newMemberTest(t, nil)
		m.ask(rows(webRow("UP", 200, "")))
		until := m.now.Add(time.Hour)
		s := m.stateOf("web", []spool.Entry{{
			Key: spool.Key{Service: "web"}, State: spool.Down, Reason: reason, By: strings.Repeat("b", 300), Scope: "group:rack7", Expires: until,
		}}, []string{"rack7", "eu"}, nil, m.now)
		value := encode(s)
		back, err := decode[state]([]byte(value))
		if len(value) > maxStateSize || err != nil || back.State != "down" || len(back.Groups) != 2 || !back.Until.Equal(until) || !json.Valid([]byte(value)) {
			t.Errorf("%s: %d bytes, %v: %s", name, len(value), err, value)
		}
		if name == "short" && back.Reason != "kernel" {
			t.Errorf("reason %q", back.Reason)
		}
	}
}
