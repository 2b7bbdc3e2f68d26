package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"hacheck/internal/balancer"
)

const (
	// pollInterval is the time between two looks at what HAProxy and hacheck think; they change twice a second.
	pollInterval = 100 * time.Millisecond
	// rateWindow is what the answers of a service are counted over.
	rateWindow = time.Second
	// waitLimit is how long anything that has to happen may take. hadown --wait needs 10 s when hacheck has just
	// started, to know everybody who asks.
	waitLimit = 60 * time.Second
)

// What HAProxy shows for a server.
const (
	up   = "UP"
	down = "DOWN"
	nolb = "NOLB" // no new requests: it is being drained
)

// serviceView is what is to be seen of a toy service.
type serviceView struct {
	*service
	lb       lbServer
	reported string          // its state in the latest of HAProxy's checks, as hacheck heard it
	answer   balancer.Answer // to that check
	printed  string          // the state that was last printed
	counts   []count         // the window, the oldest first
}

// count is how many requests had been answered at a moment.
type count struct {
	at       time.Time
	answered int64
}

// hasSettled reports whether a server has come to rest in a state: HAProxy has it so, hacheck knows, and for a second
// requests were answered, or were not, accordingly.
func (v *serviceView) hasSettled(state string) bool {
	return v.lb.state == state && v.reported == state && (v.rate() > 0) == (state == up)
}

// rate is how many requests it has answered in a second.
func (v *serviceView) rate() int {
	if len(v.counts) == 0 {
		return 0
	}
	first, last := v.counts[0], v.counts[len(v.counts)-1]
	return int(math.Ceil(float64(last.answered-first.answered) / max(last.at.Sub(first.at), rateWindow).Seconds()))
}

// update takes up what is to be seen at a moment.
func (v *serviceView) update(now time.Time, lb lbServer, report *balancer.Report) {
	v.lb = lb
	for _, b := range report.Balancers {
		if b.Service == v.name {
			v.reported, v.answer = b.State, b.Last
		}
	}
	v.counts = append(v.counts, count{now, v.answered.Load()})
	for len(v.counts) > 2 && now.Sub(v.counts[1].at) >= rateWindow {
		v.counts = v.counts[1:]
	}
}

// demo is a play on a stage, and on the screen where it is watched.
type demo struct {
	*cluster
	*screen
	pace  float64
	views [2]*serviceView
	lines chan string // what commands print

	printedStates [2]string    // the states in the table that was printed last, where nothing is drawn
	downloadDone  <-chan error // whether all of a download has come
}

func newDemo(st *cluster, sc *screen, pace float64) *demo {
	s := &demo{cluster: st, screen: sc, pace: pace, lines: make(chan string)}
	for i, t := range st.services {
		s.views[i] = &serviceView{service: t}
	}
	return s
}

// step is a command, and what comes of it.
type step struct {
	explanation string // what is to be understood
	before      func(context.Context) error
	command     string
	exit        int                         // what it has to exit with
	during      func(context.Context) error // what happens while it runs
	web1        string                      // the state in which HAProxy has web1 in the end; web2 is UP all the time
	pause       float64                     // for how many seconds that stays
}

// run is the play from the first line to the last.
func (s *demo) run(ctx context.Context) error {
	s.paragraph("", "Two toy services, web1 and web2, a HAProxy before them, and a hacheck that HAProxy asks about both: "+
		"all on 127.0.0.1, and gone at the end. All the time 40 requests a second go through HAProxy. "+
		"The commands are run as they stand, with --spool-root and -p behind them, which a real host does not need.")
	if err := s.waitState(ctx, up, 5); err != nil {
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
			explanation: "Somebody has begun a large download from web1. A drain lets it go on and nothing new in (NOLB, HAProxy says); " +
				"--wait returns when nothing is open any more. Then web1 can go down.",
			before: s.startDownload, command: "hadown web1 --drain --wait -r 'version 2' && hadown web1 -r 'version 2'",
			during: s.watchDrain, web1: down, pause: 2,
		},
		{
			explanation: "web1 was stopped, and runs again as version 2. --wait returns when HAProxy has it back.",
			before:      s.restartWeb1, command: "haup web1 --wait", web1: up, pause: 4,
		},
	} {
		if err := s.runStep(ctx, st); err != nil {
			return err
		}
	}
	return s.summarize()
}

// runStep plays a step.
func (s *demo) runStep(ctx context.Context, st step) error {
	if st.before != nil {
		if err := st.before(ctx); err != nil {
			return err
		}
	}
	s.explain(st.explanation)
	c, err := s.startCommand(ctx, st.command)
	if err != nil {
		return err
	}
	if st.during != nil {
		if err := st.during(ctx); err != nil {
			return err
		}
	}
	if err := s.waitExit(ctx, c, st.command, st.exit); err != nil {
		return err
	}
	return s.waitState(ctx, st.web1, st.pause)
}

// explain explains what comes next.
func (s *demo) explain(text string) {
	s.print(nil)
	s.paragraph("# ", text)
}

// startCommand shows a command, and runs it when there was time to read it.
func (s *demo) startCommand(ctx context.Context, command string) (*command, error) {
	s.print(line{{"$ " + command, bold}})
	if err := s.sleep(ctx, 2); err != nil {
		return nil, err
	}
	return s.runShell(ctx, command, s.lines)
}

// waitExit waits for the end of a command.
func (s *demo) waitExit(ctx context.Context, c *command, command string, exit int) error {
	if err := s.waitUntil(ctx, "the end of "+command, c.ended); err != nil {
		return err
	}
	if c.exit != exit {
		return fmt.Errorf("%s: exit %d, want %d%s", command, c.exit, exit, s.logs())
	}
	return nil
}

// waitState waits until HAProxy has web1 in a state and web2 UP, and gives time to look at it.
func (s *demo) waitState(ctx context.Context, web1 string, hold float64) error {
	if err := s.waitUntil(ctx, "web1 "+web1+" and web2 UP", func() bool { return s.views[0].hasSettled(web1) && s.views[1].hasSettled(up) }); err != nil {
		return err
	}
	if err := s.sleep(ctx, hold); err != nil {
		return err
	}
	if states := [2]string{s.views[0].lb.state, s.views[1].lb.state}; !s.live && states != s.printedStates {
		s.print(s.table()...)
		s.printedStates = states
	}
	return nil
}

// startDownload begins one from web1.
func (s *demo) startDownload(ctx context.Context) (err error) {
	s.downloadDone, err = slowDownload(ctx, "http://"+s.lbAddr)
	return err
}

// watchDrain is what there is to see until nothing is open any more.
func (s *demo) watchDrain(ctx context.Context) error {
	if err := s.waitState(ctx, nolb, 3); err != nil {
		return err
	}
	s.explain("Meanwhile, in another terminal: what is going on?")
	const overview = "hastatus"
	c, err := s.startCommand(ctx, overview)
	if err != nil {
		return err
	}
	if err := s.waitExit(ctx, c, overview, 0); err != nil {
		return err
	}
	if err := s.sleep(ctx, 4); err != nil {
		return err
	}
	s.explain("The download comes to its end.")
	close(s.services[0].finish)
	select {
	case err := <-s.downloadDone:
		if err != nil {
			return fmt.Errorf("the download from web1: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restartWeb1 stops web1 and starts it anew.
func (s *demo) restartWeb1(context.Context) error {
	s.services[0].stop()
	return s.services[0].start()
}

// summarize sums up.
func (s *demo) summarize() error {
	s.load.stop()
	s.finish()
	answered, lost := s.load.answered.Load(), s.load.lost.Load()
	if lost > 0 {
		return fmt.Errorf("%d of %d requests lost, the first: %w%s", lost, answered+lost, s.load.firstLoss(), s.logs())
	}
	s.print(nil, line{{fmt.Sprintf("%d requests, 0 lost, while web1 was taken out twice and replaced once.", answered), bold}})
	s.paragraph("", "Next: README.md (hacheck beside your own HAProxy), docs/operating.md, bin/hadown --help.")
	return s.err
}

// sleep leaves time to look: so many seconds, times the pace.
func (s *demo) sleep(ctx context.Context, seconds float64) error {
	if s.pace == 0 {
		return nil
	}
	over := time.Now().Add(time.Duration(seconds * s.pace * float64(time.Second)))
	return s.waitUntil(ctx, "", func() bool { return !time.Now().Before(over) })
}

// waitUntil shows what happens until cond is true. what says in an error what that would have been.
func (s *demo) waitUntil(ctx context.Context, what string, cond func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	late := time.NewTimer(waitLimit + time.Duration(s.pace*float64(waitLimit)))
	defer late.Stop()
	for {
		if err := s.poll(ctx); err != nil {
			return err
		}
		if s.err != nil {
			return s.err
		}
		if cond() {
			return nil
		}
		select {
		case text := <-s.lines:
			// What has led to it comes before it.
			if err := s.poll(ctx); err != nil {
				return err
			}
			s.print(line{{text, plain}})
		case <-tick.C:
		case <-late.C:
			var now []string
			for _, v := range s.views {
				now = append(now, fmt.Sprintf("%s is %s, by its last check %s, and answers %d requests a second", v.name, v.lb.state, v.reported, v.rate()))
			}
			return fmt.Errorf("waited in vain for %s; %s%s", what, strings.Join(now, "; "), s.logs())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// poll looks at everybody, and prints or draws what has changed.
func (s *demo) poll(ctx context.Context) error {
	servers, err := s.servers()
	if err != nil {
		return errors.Join(fmt.Errorf("ask HAProxy: %w", err), errors.New(s.logs()))
	}
	for _, v := range s.views {
		report, err := s.report(ctx, v.name)
		if err != nil {
			return errors.Join(fmt.Errorf("ask hacheck: %w", err), errors.New(s.logs()))
		}
		v.update(time.Now(), servers[v.name], report)
		if v.printed != "" && v.printed != v.lb.state {
			s.print(line{{"  HAProxy has ", plain}, {v.name + " " + v.lb.state, stateStyle(v.lb.state)}, {fmt.Sprintf(": hacheck has answered %s", answerText(v.answer)), plain}})
		}
		v.printed = v.lb.state
	}
	s.draw(s.table()...)
	return nil
}

// table is how things are.
func (s *demo) table() []line {
	lines := []line{nil, {{fmt.Sprintf("  %-8s%-9s%5s%12s  %s", "", "HAPROXY", "OPEN", "ANSWERS/S", "HACHECK ANSWERED"), dim}}}
	for _, v := range s.views {
		lines = append(lines, line{
			{fmt.Sprintf("  %-8s", v.name), bold},
			{fmt.Sprintf("%-9s", v.lb.state), stateStyle(v.lb.state)},
			{fmt.Sprintf("%5d%12d  %s", v.lb.open, v.rate(), answerText(v.answer)), plain},
		})
	}
	lost := s.load.lost.Load()
	ill := plain
	if lost > 0 {
		ill = red
	}
	return append(lines, line{
		{fmt.Sprintf("  %d requests, ", s.load.answered.Load()+lost), plain},
		{fmt.Sprintf("%d lost", lost), ill},
	})
}

// answerText is an answer of hacheck's in short.
func answerText(a balancer.Answer) string {
	switch {
	case a.Code == 0:
		return "nothing yet"
	case a.Override == "":
		return fmt.Sprint(a.Code)
	}
	return fmt.Sprintf("%d, %s", a.Code, a.Override)
}

// stateStyle is the one of a state.
func stateStyle(state string) style {
	switch state {
	case up:
		return green
	case nolb:
		return yellow
	}
	return red
}
