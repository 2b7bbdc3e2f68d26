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
	// lookEvery is the time between two looks at what HAProxy and hacheck think; they change twice a second.
	lookEvery = 100 * time.Millisecond
	// window is what the answers of a service are counted over.
	window = time.Second
	// patience is how long anything that has to happen may take. hadown --wait needs 10 s when hacheck has just
	// started, to know everybody who asks.
	patience = 60 * time.Second
)

// What HAProxy shows for a server.
const (
	up   = "UP"
	down = "DOWN"
	nolb = "NOLB" // no new requests: it is being drained
)

// view is what is to be seen of a toy service.
type view struct {
	*toy
	lb     lbServer
	heard  string          // its state in the latest of HAProxy's checks, as hacheck heard it
	answer balancer.Answer // to that check
	told   string          // the state that was last printed
	counts []count         // the window, the oldest first
}

// count is how many requests had been answered at a moment.
type count struct {
	at       time.Time
	answered int64
}

// is reports whether a server has come to rest in a state: HAProxy has it so, hacheck knows, and for a second
// requests were answered, or were not, accordingly.
func (v *view) is(state string) bool {
	return v.lb.state == state && v.heard == state && (v.rate() > 0) == (state == up)
}

// rate is how many requests it has answered in a second.
func (v *view) rate() int {
	if len(v.counts) == 0 {
		return 0
	}
	first, last := v.counts[0], v.counts[len(v.counts)-1]
	return int(math.Ceil(float64(last.answered-first.answered) / max(last.at.Sub(first.at), window).Seconds()))
}

// look takes up what is to be seen at a moment.
func (v *view) look(now time.Time, lb lbServer, report *balancer.Report) {
	v.lb = lb
	for _, b := range report.Balancers {
		if b.Service == v.name {
			v.heard, v.answer = b.State, b.Last
		}
	}
	v.counts = append(v.counts, count{now, v.answered.Load()})
	for len(v.counts) > 2 && now.Sub(v.counts[1].at) >= window {
		v.counts = v.counts[1:]
	}
}

// show is a play on a stage, and on the screen where it is watched.
type show struct {
	*stage
	*screen
	pace  float64
	views [2]*view
	lines chan string // what commands print

	printed    [2]string    // the states in the table that was printed last, where nothing is drawn
	downloaded <-chan error // whether all of a download has come
}

func newShow(st *stage, sc *screen, pace float64) *show {
	s := &show{stage: st, screen: sc, pace: pace, lines: make(chan string)}
	for i, t := range st.toys {
		s.views[i] = &view{toy: t}
	}
	return s
}

// step is a command, and what comes of it.
type step struct {
	says      string // what is to be understood
	before    func(context.Context) error
	command   string
	exit      int                         // what it has to exit with
	meanwhile func(context.Context) error // what happens while it runs
	web1      string                      // the state in which HAProxy has web1 in the end; web2 is UP all the time
	hold      float64                     // for how many seconds that stays
}

// play is the play from the first line to the last.
func (s *show) play(ctx context.Context) error {
	s.prose("", "Two toy services, web1 and web2, a HAProxy before them, and a hacheck that HAProxy asks about both: "+
		"all on 127.0.0.1, and gone at the end. All the time 40 requests a second go through HAProxy. "+
		"The commands are run as they stand, with --spool-root and -p behind them, which a real host does not need.")
	if err := s.settles(ctx, up, 5); err != nil {
		return err
	}
	for _, st := range []step{
		{
			says:    "web1 shall get no more requests, whatever its own check finds.",
			command: "hadown web1 -r 'kernel upgrade'", web1: down, hold: 4,
		},
		{
			says:    "What is down, and why? (It exits with 1 when something is.)",
			command: "hastatus web1 web2", exit: 1, web1: down, hold: 2,
		},
		{
			says:    "web2 as well? --safe first asks what every balancer has left.",
			command: "hadown web2 --safe -r 'kernel upgrade'", exit: 1, web1: down, hold: 3,
		},
		{
			says:    "The upgrade is done.",
			command: "haup web1", web1: up, hold: 3,
		},
		{
			says: "Somebody has begun a large download from web1. A drain lets it go on and nothing new in (NOLB, HAProxy says); " +
				"--wait returns when nothing is open any more. Then web1 can go down.",
			before: s.download, command: "hadown web1 --drain --wait -r 'version 2' && hadown web1 -r 'version 2'",
			meanwhile: s.drain, web1: down, hold: 2,
		},
		{
			says:   "web1 was stopped, and runs again as version 2. --wait returns when HAProxy has it back.",
			before: s.replace, command: "haup web1 --wait", web1: up, hold: 4,
		},
	} {
		if err := s.play1(ctx, st); err != nil {
			return err
		}
	}
	return s.end()
}

// play1 plays a step.
func (s *show) play1(ctx context.Context, st step) error {
	if st.before != nil {
		if err := st.before(ctx); err != nil {
			return err
		}
	}
	s.says(st.says)
	c, err := s.types(ctx, st.command)
	if err != nil {
		return err
	}
	if st.meanwhile != nil {
		if err := st.meanwhile(ctx); err != nil {
			return err
		}
	}
	if err := s.ends(ctx, c, st.command, st.exit); err != nil {
		return err
	}
	return s.settles(ctx, st.web1, st.hold)
}

// says explains what comes next.
func (s *show) says(text string) {
	s.print(nil)
	s.prose("# ", text)
}

// types shows a command, and runs it when there was time to read it.
func (s *show) types(ctx context.Context, command string) (*command, error) {
	s.print(line{{"$ " + command, bold}})
	if err := s.hold(ctx, 2); err != nil {
		return nil, err
	}
	return s.run(ctx, command, s.lines)
}

// ends waits for the end of a command.
func (s *show) ends(ctx context.Context, c *command, command string, exit int) error {
	if err := s.until(ctx, "the end of "+command, c.ended); err != nil {
		return err
	}
	if c.exit != exit {
		return fmt.Errorf("%s: exit %d, want %d%s", command, c.exit, exit, s.logs())
	}
	return nil
}

// settles waits until HAProxy has web1 in a state and web2 UP, and gives time to look at it.
func (s *show) settles(ctx context.Context, web1 string, hold float64) error {
	if err := s.until(ctx, "web1 "+web1+" and web2 UP", func() bool { return s.views[0].is(web1) && s.views[1].is(up) }); err != nil {
		return err
	}
	if err := s.hold(ctx, hold); err != nil {
		return err
	}
	if states := [2]string{s.views[0].lb.state, s.views[1].lb.state}; !s.live && states != s.printed {
		s.print(s.table()...)
		s.printed = states
	}
	return nil
}

// download begins one from web1.
func (s *show) download(ctx context.Context) (err error) {
	s.downloaded, err = download(ctx, "http://"+s.lbAddr)
	return err
}

// drain is what there is to see until nothing is open any more.
func (s *show) drain(ctx context.Context) error {
	if err := s.settles(ctx, nolb, 3); err != nil {
		return err
	}
	s.says("Meanwhile, in another terminal: what is going on?")
	const overview = "hastatus"
	c, err := s.types(ctx, overview)
	if err != nil {
		return err
	}
	if err := s.ends(ctx, c, overview, 0); err != nil {
		return err
	}
	if err := s.hold(ctx, 4); err != nil {
		return err
	}
	s.says("The download comes to its end.")
	close(s.toys[0].finish)
	select {
	case err := <-s.downloaded:
		if err != nil {
			return fmt.Errorf("the download from web1: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replace stops web1 and starts it anew.
func (s *show) replace(context.Context) error {
	s.toys[0].stop()
	return s.toys[0].start()
}

// end sums up.
func (s *show) end() error {
	s.load.stop()
	s.settle()
	answered, lost := s.load.answered.Load(), s.load.lost.Load()
	if lost > 0 {
		return fmt.Errorf("%d of %d requests lost, the first: %w%s", lost, answered+lost, s.load.firstLoss(), s.logs())
	}
	s.print(nil, line{{fmt.Sprintf("%d requests, 0 lost, while web1 was taken out twice and replaced once.", answered), bold}})
	s.prose("", "Next: README.md (hacheck beside your own HAProxy), docs/operating.md, bin/hadown --help.")
	return s.err
}

// hold leaves time to look: so many seconds, times the pace.
func (s *show) hold(ctx context.Context, seconds float64) error {
	if s.pace == 0 {
		return nil
	}
	over := time.Now().Add(time.Duration(seconds * s.pace * float64(time.Second)))
	return s.until(ctx, "", func() bool { return !time.Now().Before(over) })
}

// until shows what happens until cond is true. what says in an error what that would have been.
func (s *show) until(ctx context.Context, what string, cond func() bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	late := time.NewTimer(patience + time.Duration(s.pace*float64(patience)))
	defer late.Stop()
	for {
		if err := s.look(ctx); err != nil {
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
			if err := s.look(ctx); err != nil {
				return err
			}
			s.print(line{{text, plain}})
		case <-tick.C:
		case <-late.C:
			var now []string
			for _, v := range s.views {
				now = append(now, fmt.Sprintf("%s is %s, by its last check %s, and answers %d requests a second", v.name, v.lb.state, v.heard, v.rate()))
			}
			return fmt.Errorf("waited in vain for %s; %s%s", what, strings.Join(now, "; "), s.logs())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look looks at everybody, and prints or draws what has changed.
func (s *show) look(ctx context.Context) error {
	servers, err := s.servers()
	if err != nil {
		return errors.Join(fmt.Errorf("ask HAProxy: %w", err), errors.New(s.logs()))
	}
	for _, v := range s.views {
		report, err := s.report(ctx, v.name)
		if err != nil {
			return errors.Join(fmt.Errorf("ask hacheck: %w", err), errors.New(s.logs()))
		}
		v.look(time.Now(), servers[v.name], report)
		if v.told != "" && v.told != v.lb.state {
			s.print(line{{"  HAProxy has ", plain}, {v.name + " " + v.lb.state, color(v.lb.state)}, {fmt.Sprintf(": hacheck has answered %s", said(v.answer)), plain}})
		}
		v.told = v.lb.state
	}
	s.draw(s.table()...)
	return nil
}

// table is how things are.
func (s *show) table() []line {
	lines := []line{nil, {{fmt.Sprintf("  %-8s%-9s%5s%12s  %s", "", "HAPROXY", "OPEN", "ANSWERS/S", "HACHECK ANSWERED"), dim}}}
	for _, v := range s.views {
		lines = append(lines, line{
			{fmt.Sprintf("  %-8s", v.name), bold},
			{fmt.Sprintf("%-9s", v.lb.state), color(v.lb.state)},
			{fmt.Sprintf("%5d%12d  %s", v.lb.open, v.rate(), said(v.answer)), plain},
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

// said is an answer of hacheck's in short.
func said(a balancer.Answer) string {
	switch {
	case a.Code == 0:
		return "nothing yet"
	case a.Override == "":
		return fmt.Sprint(a.Code)
	}
	return fmt.Sprintf("%d, %s", a.Code, a.Override)
}

// color is the one of a state.
func color(state string) style {
	switch state {
	case up:
		return green
	case nolb:
		return yellow
	}
	return red
}
