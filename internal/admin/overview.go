package admin

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"hacheck/internal/admin/wait"
	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// errNoDaemon says that no daemon is asked, because the value of -p is empty.
var errNoDaemon = errors.New("-p '' asks no daemon")

// overview is hastatus without names: what an operator who has just logged in wants to know. It returns ExitFailed
// only if the spool directory cannot be read. A daemon that does not answer is part of the overview.
func (c *command) overview() int {
	code := ExitOK
	list, weights, spoolErr := c.overviewOverrides()
	if spoolErr != nil {
		code = ExitFailed
	}
	d := c.askDaemon()
	if c.opt.json {
		c.printJSON(c.overviewDocument(list, weights, spoolErr, d))
	} else {
		c.printDaemonView(d)
	}
	if d.err == nil {
		c.warnWrongDirectory() // last, because it goes to standard error
	}
	return code
}

// overviewOverrides reads all overrides and weights and prints them, unless --json is set. It prints them before the
// daemon is asked, because that may take three seconds.
func (c *command) overviewOverrides() (list []spool.Entry, weights []spool.Weight, _ error) {
	o, err := c.openToRead()
	if err == nil {
		defer o.close()
		list, err = o.list()
	}
	if err == nil && o.dir != nil {
		weights, err = o.dir.ListWeights()
	}
	if err != nil {
		c.errorf("%s", c.explainSpoolError(err))
	}
	list = append(list, c.fleetEntries()...)
	spool.SortByName(list)
	// Overrides of all come first, because they cover the whole host.
	textfmt.MoveToFront(list, func(e *spool.Entry) bool { return e.Key.Service == spool.All })
	if !c.opt.json {
		if err == nil {
			c.warnMissing(o)
			c.printOverrides(list)
			c.printWeightTable(weights)
		}
		_ = c.out.Flush() // the writer keeps an error, see printf
	}
	return list, weights, err
}

// daemonView is what the daemon knows.
type daemonView struct {
	services  []recentService
	err       error
	report    *balancer.Report // nil if the daemon is too old to have one
	reportErr error
}

// askDaemon asks the daemon for an overview.
func (c *command) askDaemon() (d daemonView) {
	if c.opt.daemon.isNone() {
		d.err = errNoDaemon
		return d
	}
	if d.services, d.err = c.opt.daemon.recent(); d.err != nil {
		return d
	}
	if d.report, d.reportErr = c.opt.daemon.balancers(spool.All, requestTimeout); errors.Is(d.reportErr, errNoBalancers) {
		d.reportErr = nil
	}
	return d
}

// overviewDocument is the overview in JSON.
type overviewDocument struct {
	SpoolRoot  string           `json:"spool_root"`
	SpoolError string           `json:"spool_error,omitempty"`
	Overrides  []override       `json:"overrides"`
	Weights    []weightDocument `json:"weights,omitempty"`
	Daemon     string           `json:"daemon"`
	DaemonErr  string           `json:"daemon_error,omitempty"`
	Services   []recentService  `json:"services"`
	// As the daemon sent them; absent if it did not.
	Balancers    []balancer.ServerView `json:"balancers,omitzero"`
	Agents       []balancer.Agent      `json:"agents,omitzero"`
	BalancersErr string                `json:"balancers_error,omitempty"`
}

func (c *command) overviewDocument(list []spool.Entry, weights []spool.Weight, spoolErr error, d daemonView) overviewDocument {
	doc := overviewDocument{SpoolRoot: c.opt.spoolRoot, Overrides: newOverrides(list), Weights: newWeightDocuments(weights), Services: append([]recentService{}, d.services...)}
	if d.report != nil {
		doc.Balancers, doc.Agents = d.report.Balancers, append([]balancer.Agent{}, d.report.Agents...)
	}
	if d.reportErr != nil {
		doc.BalancersErr = textfmt.OneLine(d.reportErr.Error())
	}
	if spoolErr != nil {
		doc.SpoolError = c.explainSpoolError(spoolErr)
	}
	if d.err != nil {
		doc.DaemonErr = c.unreachableText(d.err)
	}
	if !c.opt.daemon.isNone() {
		doc.Daemon = c.opt.daemon.String()
	}
	return doc
}

// printDaemonView prints what the daemon knows.
func (c *command) printDaemonView(d daemonView) {
	c.printf("\n")
	switch {
	case d.err != nil:
		c.printf("Cannot read which services were requested lately: %s\n", c.unreachableText(d.err))
	case len(d.services) == 0:
		c.printf("The daemon on %s has not been asked about any service lately.\n", c.opt.daemon)
	default:
		c.printf("Services the daemon on %s was asked about lately:\n", c.opt.daemon)
		rows := [][]string{{"ANSWER", "SERVICE", "ASKED", "BY"}}
		for _, s := range d.services {
			row := []string{"-", textfmt.OneLine(s.Service), "-", "-"}
			if s.hasAnswer() {
				row[0] = strconv.FormatFloat(s.answer.Code, 'f', -1, 64)
				row[2] = ago(c.Now(), s.answer.TS)
				row[3] = textfmt.OneLine(s.answer.RemoteIP)
			}
			rows = append(rows, row)
		}
		c.printf("%s", textfmt.Table(rows))
	}
	if d.reportErr != nil {
		c.printf("\nCannot read the balancers' server states: %s\n", textfmt.OneLine(d.reportErr.Error()))
	}
	if d.report != nil {
		c.printBalancers(d.report.Balancers)
		c.printAgents(d.report.Agents)
		if len(d.report.Unrecorded) > 0 {
			c.printf("\nThe list of balancers is incomplete: %s\n", wait.UnrecordedText(d.report.Unrecorded[0]))
		}
	}
}

// printBalancers prints the state that each balancer reported for each server.
func (c *command) printBalancers(list []balancer.ServerView) {
	if len(list) == 0 {
		return
	}
	c.printf("\nWhat balancers think:\n")
	rows := [][]string{{"SERVICE", "BALANCER", "STATE", "OPEN", "ANSWER", "ASKED"}}
	for i, name := range wait.Names(list) {
		b := list[i]
		state := textfmt.OneLine(b.State)
		switch {
		case b.State == "":
			state = "-"
		case wait.IsStillUp(b):
			state = "still " + state
		}
		asked := textfmt.Duration(balancer.Duration(b.Last.Age)) + " ago"
		if b.Silent {
			asked += ", silent since"
		}
		open := "-"
		if b.Sessions != nil {
			open = textfmt.Count(*b.Sessions, "session")
		}
		if b.Queued != nil && *b.Queued > 0 {
			open += fmt.Sprintf(", %d waiting", *b.Queued)
		}
		rows = append(rows, []string{textfmt.OneLine(b.Service), name, state, open, wait.AnswerText(b.Last), asked})
	}
	c.printf("%s", textfmt.Table(rows))
}

// printAgents prints the last answer of the agent to each address.
func (c *command) printAgents(list []balancer.Agent) {
	if len(list) == 0 {
		return
	}
	c.printf("\nWhat the agent check answered:\n")
	rows := [][]string{{"SERVICE", "BALANCER", "ANSWER", "SINCE", "ASKED"}}
	for _, a := range list {
		rows = append(rows, []string{
			textfmt.OneLine(a.Service), textfmt.OneLine(a.Address), textfmt.OneLine(a.Answer),
			textfmt.Duration(balancer.Duration(a.SameFor)), textfmt.Duration(balancer.Duration(a.Age)) + " ago",
		})
	}
	c.printf("%s", textfmt.Table(rows))
}

// printOverrides prints all overrides as a table.
func (c *command) printOverrides(list []spool.Entry) {
	now := c.Now()
	if len(list) == 0 {
		c.printf("No overrides in %s: every service is as its check finds it.\n", textfmt.OneLine(c.opt.spoolRoot))
		return
	}
	c.printf("Overrides in %s:\n", textfmt.OneLine(c.opt.spoolRoot))
	rows := [][]string{{"STATE", "SERVICE", "SINCE", "UNTIL", "BY", "REASON"}}
	for _, e := range list {
		row := []string{e.State.Word(), textfmt.OneLine(e.Key.Name()), "-", "lifted", "-", e.ReasonText()}
		if e.By != "" {
			row[4] = textfmt.OneLine(e.By)
		}
		if !e.Created.IsZero() {
			row[2] = textfmt.Duration(now.Sub(e.Created)) + " ago"
		}
		if e.Boot != "" {
			row[3] = "next start"
		}
		if !e.Expires.IsZero() {
			row[3] = fmt.Sprintf("%s (in %s)", localTime(e.Expires, now), textfmt.Duration(e.Expires.Sub(now)))
		}
		rows = append(rows, row)
	}
	c.printf("%s", textfmt.Table(rows))
}

// localTime returns t in local time: the day and the time, or the date if t is far away.
func localTime(t, now time.Time) string {
	layout := "Jan 2 15:04"
	if t.Sub(now) > 300*24*time.Hour {
		layout = "2006-01-02"
	}
	return t.Local().Format(layout)
}

// ago returns how long before now the moment at, in unix seconds, was. at may be any number.
func ago(now time.Time, at float64) string {
	seconds := min(max(spool.UnixSeconds(now)-at, 0), math.MaxInt32)
	return textfmt.Duration(time.Duration(seconds)*time.Second) + " ago"
}
