package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"hacheck/internal/balancer"
)

const (
	// pollInterval is the time between two requests for the states in HAProxy and hacheck. They change twice a second.
	pollInterval = 100 * time.Millisecond
	// rateWindow is the time over which the rate of a service is measured.
	rateWindow = time.Second
	// waitLimit is how long a step may take. Shortly after the start of hacheck, hadown --wait needs 10 s, in which
	// hacheck learns which balancers ask.
	waitLimit = 60 * time.Second
)

// The states of a server in HAProxy.
const (
	up   = "UP"
	down = "DOWN"
	nolb = "NOLB" // no new requests, it is being drained
)

// serviceView is a service as HAProxy and hacheck see it.
type serviceView struct {
	*service
	lb       lbServer
	reported string          // the state in the last check of HAProxy that hacheck received
	answer   balancer.Answer // to that check
	printed  string          // the state that was last printed
	uptime   float64         // of its hacheck, in seconds
	counts   []count         // within rateWindow, the oldest first
}

// count is the number of requests answered until a time.
type count struct {
	at       time.Time
	answered int64
}

// hasSettled reports whether HAProxy has the server in state, has reported it to hacheck, and has sent requests to it
// in the last second only if the state is UP.
func (v *serviceView) hasSettled(state string) bool {
	return v.lb.state == state && v.reported == state && (v.rate() > 0) == (state == up)
}

// rate returns the number of requests that the service answered in the last second.
func (v *serviceView) rate() int {
	if len(v.counts) == 0 {
		return 0
	}
	first, last := v.counts[0], v.counts[len(v.counts)-1]
	return int(math.Ceil(float64(last.answered-first.answered) / max(last.at.Sub(first.at), rateWindow).Seconds()))
}

// update records the state of the service at a time.
func (v *serviceView) update(now time.Time, lb lbServer, report *balancer.Report) {
	v.lb, v.uptime = lb, report.Uptime
	for _, b := range report.Balancers {
		if b.Service == v.key {
			v.reported, v.answer = b.State, b.Last
		}
	}
	v.counts = append(v.counts, count{now, v.answered.Load()})
	for len(v.counts) > 2 && now.Sub(v.counts[1].at) >= rateWindow {
		v.counts = v.counts[1:]
	}
}

// demo runs the steps on a cluster and shows them on a screen.
type demo struct {
	*cluster
	*screen
	pace  float64
	views []*serviceView
	lines chan string // the output of commands

	mostOut       int          // servers that were not UP at once
	printedStates []string     // the states in the table that was printed last, if no table is drawn
	downloadDone  <-chan error // receives nil when the download is complete
}

func newDemo(c *cluster, s *screen, pace float64) *demo {
	d := &demo{cluster: c, screen: s, pace: pace, lines: make(chan string)}
	for _, t := range c.services {
		d.views = append(d.views, &serviceView{service: t})
	}
	return d
}

// step is a command and its result.
type step struct {
	explanation string
	before      func(context.Context) error
	command     string
	exit        int                         // the expected exit code
	during      func(context.Context) error // runs while the command runs
	web1        string                      // the state of web1 at the end; web2 is always UP
	pause       float64                     // seconds to show that state
}

// run runs the demo from the first line to the last.
func (d *demo) run(ctx context.Context) error {
	d.paragraph("", "Two toy services, web1 and web2, a HAProxy before them, and a hacheck that HAProxy asks about both: "+
		"all on 127.0.0.1, and gone at the end. All the time 40 requests a second go through HAProxy. "+
		"The commands are run as they stand, with --spool-root and -p behind them, which a real host does not need.")
	if err := d.waitStates(ctx, 5, up, up); err != nil {
		return err
	}
	for _, st := range []step{
		{
			explanation: "web1 shall get no more requests, whatever its own check finds.",
			command:     "hadown web1 -r 'kernel upgrade'", web1: down, pause: 4,
		},
		{
			explanation: "What is down, and why? (It exits with 1 when something is.)",
			command:     "hastatus web1 web2", exit: 1, web1: down, pause: 2,
		},
		{
			explanation: "web2 as well? --safe first asks what every balancer has left.",
			command:     "hadown web2 --safe -r 'kernel upgrade'", exit: 1, web1: down, pause: 3,
		},
		{
			explanation: "The upgrade is done.",
			command:     "haup web1", web1: up, pause: 3,
		},
		{
			explanation: "A client has begun a large download from web1. A drain lets it go on and nothing new in (NOLB, HAProxy says); " +
				"--wait returns when nothing is open any more. Then web1 can go down.",
			before: d.startDownload, command: "hadown web1 --drain --wait -r 'version 2' && hadown web1 -r 'version 2'",
			during: d.watchDrain, web1: down, pause: 2,
		},
		{
			explanation: "web1 was stopped, and runs again as version 2. --wait returns when HAProxy has it back.",
			before:      d.restartWeb1, command: "haup web1 --wait", web1: up, pause: 4,
		},
	} {
		if err := d.runStep(ctx, st); err != nil {
			return err
		}
	}
	return d.summarize("web1 was taken out twice and replaced once",
		"README.md (hacheck beside your own HAProxy), docs/operating.md, bin/hadown --help.")
}

// runStep runs one step.
func (d *demo) runStep(ctx context.Context, st step) error {
	if st.before != nil {
		if err := st.before(ctx); err != nil {
			return err
		}
	}
	d.explain(st.explanation)
	c, err := d.startCommand(ctx, st.command)
	if err != nil {
		return err
	}
	if st.during != nil {
		if err := st.during(ctx); err != nil {
			return err
		}
	}
	if err := d.waitExit(ctx, c, st.command, st.exit); err != nil {
		return err
	}
	return d.waitStates(ctx, st.pause, st.web1, up)
}

// explain prints what the next command does.
func (d *demo) explain(text string) {
	d.print(nil)
	d.paragraph("# ", text)
}

// startCommand shows a command and starts it after a pause.
func (d *demo) startCommand(ctx context.Context, command string) (*command, error) {
	d.print(line{{"$ " + command, bold}})
	if err := d.sleep(ctx, 2); err != nil {
		return nil, err
	}
	return d.runShell(ctx, d.services[0].path, command, "", d.lines)
}

// waitExit waits for the end of a command. It returns an error for another exit code.
func (d *demo) waitExit(ctx context.Context, c *command, command string, exit int) error {
	if err := d.waitUntil(ctx, "the end of "+command, c.ended); err != nil {
		return err
	}
	if c.exit != exit {
		return fmt.Errorf("%s: exit %d, want %d%s", command, c.exit, exit, d.logs())
	}
	return nil
}

// waitStates waits until HAProxy has the servers in these states, then pauses.
func (d *demo) waitStates(ctx context.Context, hold float64, states ...string) error {
	var want []string
	for i, s := range states {
		want = append(want, d.views[i].name+" "+s)
	}
	if err := d.waitUntil(ctx, strings.Join(want, " and "), func() bool {
		for i, s := range states {
			if !d.views[i].hasSettled(s) {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	if err := d.sleep(ctx, hold); err != nil {
		return err
	}
	states = d.states()
	if !d.live && !slices.Equal(states, d.printedStates) {
		d.print(d.table()...)
		d.printedStates = states
	}
	return nil
}

// states returns the states of the servers in HAProxy.
func (d *demo) states() (states []string) {
	for _, v := range d.views {
		states = append(states, v.lb.state)
	}
	return states
}

// startDownload begins a download from web1.
func (d *demo) startDownload(ctx context.Context) (err error) {
	d.downloadDone, err = slowDownload(ctx, "http://"+d.lbAddr)
	return err
}

// watchDrain shows the drain of web1, then ends the download.
func (d *demo) watchDrain(ctx context.Context) error {
	if err := d.waitStates(ctx, 3, nolb, up); err != nil {
		return err
	}
	d.explain("Meanwhile, in another terminal: what is going on?")
	const overview = "hastatus"
	c, err := d.startCommand(ctx, overview)
	if err != nil {
		return err
	}
	if err := d.waitExit(ctx, c, overview, 0); err != nil {
		return err
	}
	if err := d.sleep(ctx, 4); err != nil {
		return err
	}
	d.explain("The download comes to its end.")
	close(d.services[0].finish)
	select {
	case err := <-d.downloadDone:
		if err != nil {
			return fmt.Errorf("the download from web1: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restartWeb1 stops web1 and starts it again.
func (d *demo) restartWeb1(context.Context) error {
	d.services[0].stop()
	return d.services[0].start()
}

// summarize stops the requests and prints their number, what happened meanwhile, and what to read next. It returns an
// error if a request was lost.
func (d *demo) summarize(meanwhile, next string) error {
	d.load.stop()
	d.finish()
	answered, lost := d.load.answered.Load(), d.load.lost.Load()
	if lost > 0 {
		return fmt.Errorf("%d of %d requests lost, the first: %w%s", lost, answered+lost, d.load.firstLoss(), d.logs())
	}
	d.print(nil, line{{fmt.Sprintf("%d requests, 0 lost, while %s.", answered, meanwhile), bold}})
	d.paragraph("", "Next: "+next)
	return d.err
}

// sleep waits for seconds times the pace and keeps the screen up to date.
func (d *demo) sleep(ctx context.Context, seconds float64) error {
	if d.pace == 0 {
		return nil
	}
	end := time.Now().Add(time.Duration(seconds * d.pace * float64(time.Second)))
	return d.waitUntil(ctx, "", func() bool { return !time.Now().Before(end) })
}

// waitUntil keeps the screen up to date until cond is true. what names the condition in an error.
func (d *demo) waitUntil(ctx context.Context, what string, cond func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	timeout := time.NewTimer(waitLimit + time.Duration(d.pace*float64(waitLimit)))
	defer timeout.Stop()
	for {
		if err := d.poll(ctx); err != nil {
			return err
		}
		if d.err != nil {
			return d.err
		}
		if cond() {
			return nil
		}
		select {
		case text := <-d.lines:
			// Print the changes that led to this line before it.
			if err := d.poll(ctx); err != nil {
				return err
			}
			d.print(line{{text, plain}})
		case <-tick.C:
		case <-timeout.C:
			var now []string
			for _, v := range d.views {
				now = append(now, fmt.Sprintf("%s is %s, by its last check %s, and answers %d requests a second", v.name, v.lb.state, v.reported, v.rate()))
			}
			return fmt.Errorf("timed out waiting for %s; %s%s", what, strings.Join(now, "; "), d.logs())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// poll asks HAProxy and hacheck for the states, and prints or draws what has changed.
func (d *demo) poll(ctx context.Context) error {
	servers, err := d.servers()
	if err != nil {
		return errors.Join(fmt.Errorf("ask HAProxy: %w", err), errors.New(d.logs()))
	}
	out := 0
	for _, v := range d.views {
		if err := v.restartIfRequested(); err != nil {
			return err
		}
		report, err := d.report(ctx, v.service)
		if err != nil {
			return errors.Join(fmt.Errorf("ask hacheck: %w", err), errors.New(d.logs()))
		}
		v.update(time.Now(), servers[v.name], report)
		if v.printed != "" && v.printed != v.lb.state {
			d.print(line{{"  HAProxy has ", plain}, {v.name + " " + v.lb.state, stateStyle(v.lb.state)}, {fmt.Sprintf(": hacheck has answered %s", answerText(v.answer)), plain}})
		}
		v.printed = v.lb.state
		if v.lb.state != up {
			out++
		}
	}
	d.mostOut = max(d.mostOut, out)
	d.draw(d.table()...)
	return nil
}

// table returns the table of the services and the requests.
func (d *demo) table() []line {
	lines := []line{nil, {{fmt.Sprintf("  %-8s%-9s%5s%12s  %s", "", "HAPROXY", "OPEN", "ANSWERS/S", "HACHECK ANSWERED"), dim}}}
	for _, v := range d.views {
		lines = append(lines, line{
			{fmt.Sprintf("  %-8s", v.name), bold},
			{fmt.Sprintf("%-9s", v.lb.state), stateStyle(v.lb.state)},
			{fmt.Sprintf("%5d%12d  %s", v.lb.open, v.rate(), answerText(v.answer)), plain},
		})
	}
	lost := d.load.lost.Load()
	lostStyle := plain
	if lost > 0 {
		lostStyle = red
	}
	return append(lines, line{
		{fmt.Sprintf("  %d requests, ", d.load.answered.Load()+lost), plain},
		{fmt.Sprintf("%d lost", lost), lostStyle},
	})
}

// answerText returns an answer of hacheck in short.
func answerText(a balancer.Answer) string {
	switch {
	case a.Code == 0:
		return "nothing yet"
	case a.Override == "":
		return fmt.Sprint(a.Code)
	}
	return fmt.Sprintf("%d, %s", a.Code, a.Override)
}

// stateStyle returns the colour of a state.
func stateStyle(state string) style {
	switch state {
	case up:
		return green
	case nolb:
		return yellow
	}
	return red
}
