package web

import (
	"fmt"
	"strconv"
	"time"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// overviewText is the overview for a terminal. If it is empty, appendFirstSteps follows, which names the host that the
// client has asked.
type overviewText struct {
	body  []byte
	empty bool
}

// empty reports whether there is no override and no service to show.
func (o *overview) empty() bool { return len(o.Overrides)+len(o.Services)+len(o.Weights) == 0 }

// appendFirstSteps appends the first steps with a new daemon. host is its host and port.
func appendFirstSteps(b []byte, host string) []byte {
	return fmt.Appendf(b, `
No client has asked about a service in the last 10 minutes, and nothing is overridden. To begin:
  curl http://%s/tcp/web/8080
      asks whether something listens on port 8080, as the service web
  option httpchk GET /http/web/8080/status
  http-check send-state
      in an HAProxy backend, with "check port 3333" at its servers, lets HAProxy ask
  hadown web -r "why"
      takes web out, and haup web puts it back
`, host)
}

// appendText appends the overview as text.
func (o *overview) appendText(b []byte) []byte {
	on := ""
	if o.Host != "" {
		on = " on " + oneLine(o.Host)
	}
	counts := "no overrides, " + textfmt.Count(len(o.Services), "service")
	if n := len(o.Overrides); n > 0 {
		counts = textfmt.Count(n, "override") + ", " + textfmt.Count(len(o.Services), "other service")
	}
	b = fmt.Appendf(b, "hacheck%s, running for %s: %s\n", on, textfmt.Seconds(o.Uptime), counts)
	if o.SpoolLost {
		b = append(b, "The spool directory is not where it was: these are the last known overrides.\n"...)
	}
	if o.AgentOnly {
		b = append(b, "Started with -S: overrides reach balancers through the agent alone.\n"...)
	}
	if o.Fleet != nil {
		b = append(b, fleetLine(o.Fleet, o.FleetWarnings)+"\n"...)
	}
	if o.Certificate != "" {
		b = append(b, o.Certificate+"\n"...)
	}
	if len(o.Weights) > 0 {
		b = append(append(b, '\n'), o.weightTable()...)
	}
	if len(o.Overrides) > 0 {
		b = append(append(b, '\n'), o.overrideTable()...)
	}
	if len(o.Services) > 0 {
		b = append(append(b, '\n'), o.serviceTable()...)
	}
	return b
}

func (o *overview) overrideTable() string {
	rows, below := [][]string{{"STATE", "SERVICE", "SINCE", "UNTIL", "BY", "REASON"}}, [][]string{nil}
	for i := range o.Overrides {
		r := &o.Overrides[i]
		cells := []string{r.State, r.label(), "-", "lifted", "-", spool.Entry{Reason: r.Reason, Scope: r.Scope, Lost: r.Lost}.ReasonText()}
		if r.Since != nil {
			cells[2] = textfmt.Seconds(o.Now-*r.Since) + " ago"
		}
		if r.UntilBoot {
			cells[3] = "next start"
		}
		if r.Until != nil {
			cells[3] = "in " + textfmt.Seconds(*r.Until-o.Now)
		}
		if r.SetBy != "" {
			cells[4] = r.SetBy
		}
		rows, below = append(rows, cells), append(below, r.clientLines())
	}
	return textfmt.Table(rows, below...)
}

func (o *overview) weightTable() string {
	rows := [][]string{{"WEIGHT", "SERVICE", "SINCE", "UNTIL", "BY"}}
	for _, w := range o.Weights {
		cells := []string{
			strconv.Itoa(w.Weight) + "%", spool.Key{Service: w.Service, Host: w.Host, Port: w.Port}.Name(),
			textfmt.Seconds(o.Now-w.Since) + " ago", "ended", "-",
		}
		if w.Until != nil {
			cells[3] = "in " + textfmt.Seconds(*w.Until-o.Now)
		}
		if w.SetBy != "" {
			cells[4] = w.SetBy
		}
		rows = append(rows, cells)
	}
	return textfmt.Table(rows)
}

func (o *overview) serviceTable() string {
	rows, below := [][]string{{"STATE", "SERVICE", "ASKED", "CHECK TOOK", "ANSWER"}}, [][]string{nil}
	for i := range o.Services {
		r := &o.Services[i]
		cells := []string{r.State, r.label(), "-", "-", ""}
		if r.Covering != "" {
			cells[0] += " (" + r.Covering + ")"
		}
		if a := r.Last; a != nil {
			cells[2] = textfmt.Seconds(a.Ago) + " ago"
			if a.Took != nil {
				cells[3] = time.Duration(*a.Took * float64(time.Second)).Round(10 * time.Microsecond).String()
			}
			cells[4] = strconv.Itoa(a.Code)
			switch {
			case a.Override != "":
				cells[4] += " (" + a.Override + ")"
			case a.Why != "":
				cells[4] += " " + a.Why
			}
		}
		rows, below = append(rows, cells), append(below, r.clientLines())
	}
	return textfmt.Table(rows, below...)
}

// label returns the name of a row: svc, svc:port or svc:host:port.
func (r *overviewRow) label() string {
	return spool.Key{Service: r.Service, Host: r.Host, Port: r.Port}.Name()
}

// clientLines returns the lines about balancers and agent checks.
func (r *overviewRow) clientLines() []string {
	var lines []string
	for _, v := range r.Balancers {
		line := v.Name
		if v.Server != "" {
			line += " " + v.Server
		}
		switch {
		case v.Silent:
			line += ": silent for " + textfmt.Seconds(v.Ago)
		case v.State == "":
			line += ": sends no state, last answer " + strconv.Itoa(v.Code)
		default:
			line += ": " + v.State
			if v.Sessions != nil {
				line += ", " + textfmt.Count(*v.Sessions, "session")
			}
			if v.Queued > 0 {
				line += ", " + strconv.Itoa(v.Queued) + " waiting"
			}
		}
		lines = append(lines, oneLine(line))
	}
	for _, a := range r.Agents {
		lines = append(lines, a.Address+": agent check, last answer "+a.Answer)
	}
	return lines
}
