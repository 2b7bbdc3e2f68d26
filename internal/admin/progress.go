package admin

import (
	"fmt"
	"strings"
	"time"

	"hacheck/internal/admin/wait"
	"hacheck/internal/balancer"
	"hacheck/internal/terminal"
	"hacheck/internal/textfmt"
)

const (
	reminderInterval = 30 * time.Second // between two plain lines that list what the command waits for
	minLineGap       = 5 * time.Second  // between two plain lines of a balancer if only its sessions have changed
	maxFinalLines    = 20               // lines that stay on a terminal at the end
)

// progress prints how a wait goes: on a terminal it redraws a line for each balancer, otherwise it prints a line for
// each change, and with --json an event.
type progress struct {
	*command
	tracker *wait.Tracker
	goal    wait.Goal
	start   time.Time
	written time.Duration // when the override was in force or gone, since start
	screen  *terminal.Block

	printed       map[wait.ViewID]printedView
	nextReminder  time.Duration
	daemonTrouble string // why the daemon cannot be asked now; "" if it can
	restarts      int    // of the daemon that are printed
	isIncomplete  bool   // a client without a row is printed

	connections   string        // the text about connections that is printed
	connectionsAt time.Duration // when
}

// printedView is what was last printed of a view.
type printedView struct {
	text, state string
	status      wait.Status
	isSilent    bool
	at          time.Duration
}

func newProgress(c *command, tracker *wait.Tracker, goal wait.Goal, start time.Time) *progress {
	p := &progress{
		command: c, tracker: tracker, goal: goal, start: start,
		screen: &terminal.Block{}, printed: map[wait.ViewID]printedView{}, nextReminder: reminderInterval,
	}
	if !c.opt.json {
		p.screen = terminal.NewBlock(c.Stdout)
	}
	return p
}

func (p *progress) elapsed() time.Duration { return time.Since(p.start) }

// after returns the "after" of an event that happens now.
func (p *progress) after() float64 { return afterSeconds(p.elapsed()) }

// event prints one event at once.
func (p *progress) event(v any) {
	p.printJSON(v)
	_ = p.out.Flush() // the writer keeps an error, and Main reports it
}

// print prints one line at once.
func (p *progress) print(text string) {
	p.screen.Clear()
	p.printf("%s\n", text)
	_ = p.out.Flush() // as in event
}

// note prints a text that is not about one balancer.
func (p *progress) note(text string) {
	if p.opt.json {
		p.event(noteEvent{"note", p.after(), text})
		return
	}
	p.print(text)
}

// daemonAway prints that the daemon does not answer, once until it answers again.
func (p *progress) daemonAway(err error) {
	text := fmt.Sprintf("the daemon on %s cannot be asked: %s; the command keeps trying", p.opt.daemon, textfmt.OneLine(err.Error()))
	if p.daemonTrouble == "" && !p.screen.Live() {
		p.note(text)
	}
	p.daemonTrouble = text
	p.draw()
}

// update prints what a new report has changed.
func (p *progress) update() {
	p.daemonTrouble = ""
	if n := p.tracker.Restarts(); n > p.restarts {
		p.restarts = n
		p.note("the daemon has restarted and is learning again which balancers ask")
	}
	if text := p.tracker.Unrecorded(); text != "" && !p.isIncomplete {
		p.isIncomplete = true
		p.note(text + "; the command waits until the daemon knows every balancer")
	}
	if !p.screen.Live() {
		p.printChanges()
		p.printConnections()
		if p.elapsed() >= p.nextReminder {
			p.nextReminder += reminderInterval
			p.note(fmt.Sprintf("still waiting after %s%s", textfmt.Duration(p.elapsed()), p.tracker.PendingText()))
		}
	}
	p.draw()
}

// printConnections prints the connections that the command still waits for, when they have changed.
func (p *progress) printConnections() {
	text := ""
	for _, t := range p.tracker.Targets() {
		if more := p.tracker.ConnectionsText(t); more != "" {
			text += t.Label + ": " + more + "; "
		}
	}
	now := p.elapsed()
	if text = strings.TrimSuffix(text, "; "); !p.opt.connections || text == p.connections || p.connections != "" && now-p.connectionsAt < minLineGap {
		return
	}
	p.connections, p.connectionsAt = text, now
	if text != "" {
		p.note(text)
	}
}

// printChanges prints each view that has changed. If only the number of sessions has changed, it waits for minLineGap.
func (p *progress) printChanges() {
	now := p.elapsed()
	for _, v := range p.tracker.Views() {
		state, _, _ := strings.Cut(v.Row.State, " ")
		next := printedView{v.Text, state, v.Status, v.IsSilent, now}
		last, isPrinted := p.printed[v.ID]
		onlyText := last
		onlyText.text, onlyText.at = next.text, next.at
		if isPrinted && (last.text == next.text || onlyText == next && next.at-last.at < minLineGap) {
			continue
		}
		p.printed[v.ID] = next
		if !p.opt.json {
			p.print(viewLine(v))
			continue
		}
		p.event(balancerEvent{
			Event: "balancer", After: p.after(), Status: v.Status.String(), Service: v.Service, Port: v.Row.Port,
			Address: v.Row.Address, Node: v.Row.Node, Server: v.Row.Server, URL: v.Row.URL,
			State: v.Row.State, Sessions: v.Row.Sessions, Queued: v.Row.Queued, Text: v.Text,
		})
	}
}

func viewLine(v wait.View) string {
	return textfmt.OneLine(v.Service) + ": " + v.Name + ": " + v.Text
}

// draw redraws the lines of a terminal. Lost and waiting balancers come first, because there may be no room for all.
func (p *progress) draw() {
	if !p.screen.Live() || !p.tracker.HasReport() {
		return
	}
	now, views := p.elapsed(), p.tracker.Views()
	var rows [][]string
	done := 0
	for _, status := range []wait.Status{wait.Lost, wait.Waiting, wait.Done, wait.Silent} {
		for _, v := range views {
			if v.Status != status {
				continue
			}
			if status == wait.Done {
				done++
			}
			rows = append(rows, []string{"  " + textfmt.OneLine(v.Service), v.Name, textfmt.Duration(now - v.Since), v.Text})
		}
	}
	head := "waiting for a balancer to ask"
	if len(views) > 0 {
		head = fmt.Sprintf("%s: %d of %s", map[wait.Goal]string{wait.Out: "taken out", wait.Up: "up again"}[p.goal], done, textfmt.Count(len(views), "balancer"))
	}
	head += fmt.Sprintf(", %s of %s", textfmt.Duration(now-p.written), textfmt.Duration(p.opt.wait))
	if p.daemonTrouble != "" {
		head += "; " + p.daemonTrouble
	}
	for _, t := range p.tracker.Targets() {
		if more := p.tracker.ConnectionsText(t); more != "" && p.goal == wait.Out {
			rows = append(rows, []string{"  " + textfmt.OneLine(t.Label), more, "", ""})
		}
	}
	lines := append([]string{head}, strings.Split(strings.TrimSuffix(textfmt.Table(rows), "\n"), "\n")...)
	if room := p.screen.Rows(); len(lines) > room && room > 2 {
		lines = append(lines[:room-1], fmt.Sprintf("  and %d more", len(lines)-room+1))
	}
	p.screen.Draw(lines...)
}

// clear removes the lines of a terminal.
func (p *progress) clear() { p.screen.Clear() }

// printFinal leaves the last line of each balancer on a terminal.
func (p *progress) printFinal() {
	if !p.screen.Live() || !p.tracker.HasReport() {
		return
	}
	p.clear()
	views := p.tracker.Views()
	for i, v := range views {
		if i == maxFinalLines {
			p.print(fmt.Sprintf("and %d more", len(views)-i))
			break
		}
		p.print(viewLine(v))
	}
}

// succeed prints the result for each target and returns ExitOK.
func (p *progress) succeed(targets []target) int {
	p.printFinal()
	var texts []string
	for _, t := range waitTargets(targets) {
		text := fmt.Sprintf("%s: no balancer has asked about it for %s, so there is none to wait for", t.Label, textfmt.Duration(balancer.LearnTime))
		if n := p.tracker.CountDone(t); n > 0 {
			text = fmt.Sprintf("%s: %s with %s after %s", t.Label, p.goal, textfmt.Count(n, "balancer"), textfmt.Duration(p.elapsed()-p.written))
		}
		if more := p.tracker.ConnectionsText(t); more != "" && p.goal == wait.Out {
			text += "; " + more
		}
		texts = append(texts, text)
		if !p.opt.json {
			p.print(text)
		}
	}
	if p.opt.json {
		p.event(endEvent{"end", p.after(), string(p.goal), ExitOK, []string{}, strings.Join(texts, "; ")})
	}
	return ExitOK
}

// fail prints why the wait has failed and returns code.
func (p *progress) fail(result string, code int, why string) int {
	p.printFinal()
	p.errorf("%s", why)
	if p.opt.json {
		open := []string{}
		for _, v := range p.tracker.Views() {
			if v.Status == wait.Waiting || v.Status == wait.Lost {
				open = append(open, v.Name)
			}
		}
		p.event(endEvent{"end", p.after(), result, code, open, why})
	}
	return code
}
