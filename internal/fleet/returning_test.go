package fleet

import (
	"strings"
	"testing"
	"time"

	"hacheck/internal/balancer"
)

// returnTest feeds a returning with reports.
type returnTest struct {
	returnTracker
	t      *testing.T
	now    time.Time
	permit permit
}

func newReturnTest(t *testing.T, balancers ...string) *returnTest {
	return &returnTest{t: t, now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), permit: permit{Host: "a", Services: []string{"web"}, Balancers: balancers}}
}

// after lets time pass and takes in a report. want is part of what the permit waits for; "": it is returned.
func (r *returnTest) after(d time.Duration, want string, rows []balancer.ServerView, agents ...balancer.Agent) returnStep {
	r.t.Helper()
	r.now = r.now.Add(d)
	step := r.observe(r.now, r.permit, &balancer.Report{Balancers: rows, Agents: agents}, false, func(host string) bool { return host == "" })
	if step.isBack != (want == "") || !strings.Contains(step.waiting, want) {
		r.t.Fatalf("after %v: back %v, waits for %q; want %q", d, step.isBack, step.waiting, want)
	}
	return step
}

// answered returns row with the ages of its last two answers.
func answered(row balancer.ServerView, last, previous float64, previousCode int) balancer.ServerView {
	row.Last.Age = last
	row.Previous = &balancer.Answer{Age: previous, Code: previousCode}
	return row
}

const lb1 = "web: lb1 at 10.0.0.1"

// TestPermitIsReturnedWhenBalancersAreUp: UP counts after an answer "up" that came after the end of the override.
func TestPermitIsReturnedWhenBalancersAreUp(t *testing.T) {
	t.Parallel()
	r := newReturnTest(t, lb1)
	down := webRow("DOWN", 503, "down")
	r.after(0, "reports DOWN", rows(down))
	r.after(2*time.Second, "reports DOWN 1/2", rows(answered(webRow("DOWN 1/2", 200, ""), 0.5, 3, 503)))
	r.after(2*time.Second, "has not reported UP since", rows(answered(webRow("UP", 200, ""), 0.1, 9, 503)))
	r.after(2*time.Second, "its check fails", rows(answered(webRow("UP", 503, ""), 0.1, 2, 200)))
	r.after(2*time.Second, "", rows(answered(webRow("UP", 200, ""), 0.1, 2, 200)))
}

// TestPermitStaysWhileAnOverrideDecides: the answers before the last end of an override do not count.
func TestPermitStaysWhileAnOverrideDecides(t *testing.T) {
	t.Parallel()
	r := newReturnTest(t, lb1)
	up := answered(webRow("UP", 200, ""), 0.1, 2, 200)
	step := r.observe(r.now, r.permit, &balancer.Report{Balancers: rows(up)}, true, nil)
	if step.isBack {
		t.Fatal("returned under an override")
	}
	r.after(time.Second, "has not reported UP since", rows(up))
	r.after(3*time.Second, "", rows(up))
}

// TestSilentBalancerIsPassedOver: after two minutes it is named, once. It is waited for again when it is back.
func TestSilentBalancerIsPassedOver(t *testing.T) {
	t.Parallel()
	r := newReturnTest(t, lb1, "web: lb2 at 10.0.0.2")
	up := answered(webRow("UP", 200, ""), 0.1, 2, 200)
	r.after(0, "lb2 at 10.0.0.2 is silent", rows(up))
	r.after(119*time.Second, "lb2 at 10.0.0.2 is silent", rows(up))
	lb2 := webRow("DOWN", 200, "")
	lb2.Node, lb2.Address = "lb2", "10.0.0.2"
	r.after(time.Second, "lb2 at 10.0.0.2 reports DOWN", rows(up, lb2))
	lb2.Silent = true
	r.after(time.Second, "lb2 at 10.0.0.2 is silent", rows(up, lb2))
	step := r.after(120*time.Second, "", rows(up, lb2))
	if len(step.passedOver) != 1 || step.passedOver[0] != "web: lb2 at 10.0.0.2" {
		t.Errorf("passed over: %q", step.passedOver)
	}
	if step = r.after(time.Second, "", rows(up, lb2)); len(step.passedOver) != 0 {
		t.Errorf("named twice: %q", step.passedOver)
	}
}

// TestNoBalancerReports: the check has to pass twice, 10 s apart, without a failure between.
func TestNoBalancerReports(t *testing.T) {
	t.Parallel()
	row := func(code int) []balancer.ServerView {
		w := webRow("", code, "")
		w.Last.Age = 0.1
		return rows(w)
	}
	r := newReturnTest(t)
	r.after(0, "pass twice", row(200)) // the answer is older than the end of the override
	r.after(time.Second, "pass twice", row(200))
	r.after(9*time.Second, "pass twice", row(200))
	r.after(time.Second, "", row(200))

	r = newReturnTest(t)
	r.after(0, "pass twice", row(200))
	r.after(time.Second, "pass twice", row(200))
	r.after(5*time.Second, "its check fails", row(503))
	r.after(5*time.Second, "pass twice", row(200))
	r.after(9*time.Second, "pass twice", row(200))
	r.after(time.Second, "", row(200))

	agent := balancer.Agent{Service: "web", Address: "10.0.0.1", Answer: "up ready", Age: 0.1, Confirmed: true}
	r = newReturnTest(t)
	r.after(0, "pass twice", nil, agent)
	r.after(time.Second, "pass twice", nil, agent)
	r.after(10*time.Second, "", nil, agent)

	r = newReturnTest(t)
	r.after(0, "no balancer asks", nil)
	r.after(10*time.Minute-time.Second, "hacheck fleet release web --host a", nil)
	if step := r.after(time.Second, "", nil); len(step.passedOver) != 1 {
		t.Errorf("passed over: %q", step.passedOver)
	}
}

// TestEveryServiceOfThePermit: one service that is back does not return the permit of two.
func TestEveryServiceOfThePermit(t *testing.T) {
	t.Parallel()
	r := newReturnTest(t, lb1, "api: lb1 at 10.0.0.1")
	r.permit.Services = []string{"api", "web"}
	web := answered(webRow("UP", 200, ""), 0.1, 2, 200)
	api := web
	api.Service, api.State = "api", "DOWN"
	r.after(0, "api: lb1 at 10.0.0.1 reports DOWN", rows(web, api))
	r.after(3*time.Second, "api: lb1 at 10.0.0.1 reports DOWN", rows(web, api))
	api.State = "UP"
	r.after(time.Second, "", rows(web, api))
}
