package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// service is one service the daemon was asked about, in a JSON document.
type service struct {
	Service      string          `json:"service"`
	LastResponse json.RawMessage `json:"last_response"` // as the daemon said it; null when no check has finished
}

var errNoneAsked = errors.New("-p '' says to ask none")

// overview is hastatus without names: what an operator who has just logged in wants to know. It exits
// with ExitFailed only when the spool directory cannot be read; a daemon that does not answer is part
// of the picture.
func (c *command) overview() int {
	code := ExitOK
	now := c.Now()
	var list []spool.Entry
	o, err := c.openToRead()
	if err == nil {
		defer o.close()
		list, err = o.list()
	}
	if err != nil {
		c.errorf("%s", c.explain(err))
		code = ExitFailed
	}
	// What covers the whole host comes first, whatever its name sorts like.
	slices.SortStableFunc(list, func(a, b spool.Entry) int { return rank(a) - rank(b) })

	if !c.opt.json {
		if err == nil {
			c.noteMissing(o)
			c.overridesTable(list, now)
		}
		// To be seen before the daemon is asked, which may take its three seconds.
		_ = c.out.Flush() // an error stays in the writer, see printf
	}
	var services []seen
	askErr := errNoneAsked
	if !c.opt.daemon.none() {
		services, askErr = c.opt.daemon.recent()
	}
	var report *balancer.Report
	var reportErr error
	if askErr == nil {
		defer c.warnNotObeyed() // last, since it is on standard error
		// A daemon that is older than this command knows nothing of balancers, and that is all there is to it.
		if report, reportErr = c.opt.daemon.balancers(spool.All); errors.Is(reportErr, errNoBalancers) {
			reportErr = nil
		}
	}
	if c.opt.json {
		doc := struct {
			SpoolRoot  string     `json:"spool_root"`
			SpoolError string     `json:"spool_error,omitempty"`
			Overrides  []override `json:"overrides"`
			Daemon     string     `json:"daemon"`
			DaemonErr  string     `json:"daemon_error,omitempty"`
			Services   []service  `json:"services"`
			// As the daemon says it; absent when it does not.
			Balancers    []balancer.Balancer `json:"balancers,omitzero"`
			Agents       []balancer.Agent    `json:"agents,omitzero"`
			BalancersErr string              `json:"balancers_error,omitempty"`
		}{
			SpoolRoot: c.opt.spoolRoot, Overrides: describeAll(list),
			Daemon: c.opt.daemon.String(), Services: toServices(services),
		}
		if report != nil {
			doc.Balancers, doc.Agents = report.Balancers, append([]balancer.Agent{}, report.Agents...)
		}
		if reportErr != nil {
			doc.BalancersErr = textfmt.OneLine(reportErr.Error())
		}
		if err != nil {
			doc.SpoolError = c.explain(err)
		}
		if askErr != nil {
			doc.DaemonErr = c.unreachable(askErr)
		}
		if c.opt.daemon.none() {
			doc.Daemon = ""
		}
		c.document(doc)
		return code
	}
	c.printf("\n")
	switch {
	case askErr != nil:
		c.printf("What was asked about lately is not known: %s\n", c.unreachable(askErr))
	case len(services) == 0:
		c.printf("The daemon on %s has not been asked about any service lately.\n", c.opt.daemon)
	default:
		c.printf("Services the daemon on %s was asked about lately:\n", c.opt.daemon)
		rows := [][]string{{"ANSWER", "SERVICE", "ASKED", "BY"}}
		for _, s := range services {
			row := []string{"-", textfmt.OneLine(s.service), "-", "-"}
			if s.answered() {
				row[0] = strconv.FormatFloat(s.answer.Code, 'f', -1, 64)
				row[2] = ago(now, s.answer.TS)
				row[3] = textfmt.OneLine(s.answer.RemoteIP)
			}
			rows = append(rows, row)
		}
		c.printf("%s", table(rows))
	}
	switch {
	case reportErr != nil:
		c.printf("\nWhat balancers think is not known: %s\n", textfmt.OneLine(reportErr.Error()))
	case report != nil && len(report.Balancers)+len(report.Agents) > 0:
		c.printf("\n")
		c.balancersTable(report)
	}
	if report != nil && len(report.Unrecorded) > 0 {
		c.printf("\nNot every balancer is known: %s\n", unrecordedText(report.Unrecorded[0]))
	}
	return code
}

// balancersTable is what each balancer thinks of each server, and what the agent has told whom.
func (c *command) balancersTable(r *balancer.Report) {
	w := newWatcher(nil, false, 1)
	for _, row := range r.Balancers {
		w.views = append(w.views, &view{key: viewKey{service: row.Service, address: row.Address, node: row.Node, server: row.Server}, row: row})
	}
	names := w.names()
	if len(w.views) > 0 {
		c.printf("What balancers think:\n")
		rows := [][]string{{"SERVICE", "BALANCER", "HAS IT", "OPEN", "TOLD", "ASKED"}}
		for _, v := range w.views {
			row := &v.row
			has := textfmt.OneLine(row.State)
			switch {
			case row.State == "":
				has = "-" // it sends none
			case takesOut(row.Last.Override) && in(row.State):
				has = "still " + has
			}
			asked := textfmt.Duration(seconds(row.Last.Age)) + " ago"
			if row.Silent {
				asked += ", silent since"
			}
			open := "-"
			if row.Sessions != nil {
				open = textfmt.Count(*row.Sessions, "session")
			}
			if row.Queued != nil && *row.Queued > 0 {
				open += fmt.Sprintf(", %d waiting", *row.Queued)
			}
			rows = append(rows, []string{w.label(v), names[v], has, open, toldWord(row.Last), asked})
		}
		c.printf("%s", table(rows))
	}
	if len(r.Agents) == 0 {
		return
	}
	if len(w.views) > 0 {
		c.printf("\n")
	}
	c.printf("What the agent told:\n")
	rows := [][]string{{"SERVICE", "BALANCER", "ANSWER", "SINCE", "ASKED"}}
	for _, a := range r.Agents {
		rows = append(rows, []string{textfmt.OneLine(a.Service), textfmt.OneLine(a.Address), textfmt.OneLine(a.Answer), textfmt.Duration(seconds(a.SameFor)), textfmt.Duration(seconds(a.Age)) + " ago"})
	}
	c.printf("%s", table(rows))
}

func rank(e spool.Entry) int {
	if e.Key.Service == spool.All {
		return 0
	}
	return 1
}

func (c *command) overridesTable(list []spool.Entry, now time.Time) {
	if len(list) == 0 {
		c.printf("No overrides in %s: every service is as its check finds it.\n", textfmt.OneLine(c.opt.spoolRoot))
		return
	}
	c.printf("Overrides in %s:\n", textfmt.OneLine(c.opt.spoolRoot))
	rows := [][]string{{"STATE", "SERVICE", "SINCE", "UNTIL", "REASON"}}
	for _, e := range list {
		row := []string{word(e.State), label(e.Key), "-", "lifted", textfmt.OneLine(e.Reason)}
		if !e.Created.IsZero() {
			row[2] = textfmt.Duration(now.Sub(e.Created)) + " ago"
		}
		if !e.Expires.IsZero() {
			row[3] = fmt.Sprintf("%s (in %s)", moment(e.Expires, now), textfmt.Duration(e.Expires.Sub(now)))
		}
		rows = append(rows, row)
	}
	c.printf("%s", table(rows))
}

// moment says when something will be, in local time as the wall clock shows it; a day that is far away
// by its date alone.
func moment(t, now time.Time) string {
	layout := "Jan 2 15:04"
	if t.Sub(now) > 300*24*time.Hour {
		layout = "2006-01-02"
	}
	return t.Local().Format(layout)
}

// ago says how long before now a moment in unix seconds was, however wild the number.
func ago(now time.Time, at float64) string {
	seconds := min(max(unix(now)-at, 0), math.MaxInt32)
	return textfmt.Duration(time.Duration(seconds)*time.Second) + " ago"
}

func toServices(list []seen) []service {
	all := make([]service, len(list))
	for i, s := range list {
		all[i] = service{s.service, s.last}
	}
	return all
}
