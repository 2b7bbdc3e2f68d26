package web

import (
	"bufio"
	"io"
	"time"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// overview is the document at /overview, which the page at / shows. Ages are seconds before Now.
type overview struct {
	overviewHead
	// Overrides are first those of the whole host, then the rest by name.
	Overrides []overviewRow `json:"overrides"`
	// Services have no override of their own and had a request lately: first those that fail, then the rest, by name.
	Services []overviewRow `json:"services"`
}

type overviewHead struct {
	Host      string  `json:"host"` // this machine's name, "" if it is not known
	Now       float64 `json:"now"`  // unix seconds, by the clock of since and until
	Uptime    float64 `json:"uptime"`
	AgentOnly bool    `json:"agent_only"` // -S: overrides reach balancers through the agent alone
	// SpoolLost says that the spool directory is not where it was, and that the last known overrides stand.
	SpoolLost bool `json:"spool_lost"`
	Slot      int  `json:"slot"` // seconds for which a letter of Answers stands

	Fleet         *report.Status `json:"fleet,omitempty"`          // nil without a fleet
	FleetWarnings []string       `json:"fleet_warnings,omitempty"` // what is wrong with it, one sentence each
	Certificate   string         `json:"certificate,omitempty"`    // of tls_listen: when it expires, and what is wrong

	Weights []overviewWeight `json:"weights,omitempty"` // in force, by name
}

// overviewWeight is a weight in force.
type overviewWeight struct {
	Service string   `json:"service"`
	Host    string   `json:"host,omitempty"`
	Port    uint16   `json:"port,omitempty"`
	Weight  int      `json:"weight"`           // percent
	SetBy   string   `json:"set_by,omitempty"` // who has set it
	Since   float64  `json:"since"`            // unix seconds
	Until   *float64 `json:"until,omitempty"`  // unix seconds; absent if it does not end by itself
}

// overviewWeights returns the rows of list.
func overviewWeights(list []spool.Weight) []overviewWeight {
	var rows []overviewWeight
	for _, w := range list {
		r := overviewWeight{
			Service: w.Key.Service, Host: w.Key.Host, Port: w.Key.Port,
			Weight: w.Percent, SetBy: oneLine(w.By), Since: unixSeconds(w.Created),
		}
		if !w.Expires.IsZero() {
			until := unixSeconds(w.Expires)
			r.Until = &until
		}
		rows = append(rows, r)
	}
	return rows
}

// overviewRow is one override, or one service.
type overviewRow struct {
	Service string `json:"service"`
	Host    string `json:"host,omitempty"` // of an override of one instance
	Port    uint16 `json:"port,omitempty"`

	State    string `json:"state"`
	Covering string `json:"by,omitempty"` // the name of an override in another row that decides State

	Reason    string   `json:"reason,omitempty"`
	SetBy     string   `json:"set_by,omitempty"`     // who has set the override
	Scope     string   `json:"scope,omitempty"`      // of an override of the fleet: all, group:NAME or host:NAME
	Lost      bool     `json:"lost,omitempty"`       // its key is gone from etcd, and this host keeps the override
	Since     *float64 `json:"since,omitempty"`      // unix seconds; absent if it is not known
	Until     *float64 `json:"until,omitempty"`      // unix seconds; absent if the override does not end by itself
	UntilBoot bool     `json:"until_boot,omitempty"` // the override ends with the next start of the machine

	Last    *overviewAnswer `json:"last"`              // nil without a request lately
	Answers string          `json:"answers,omitempty"` // see marksText
	Took    string          `json:"took,omitempty"`

	Balancers []overviewBalancer `json:"balancers,omitempty"`
	Agents    []overviewAgent    `json:"agents,omitempty"`
}

// The states of a row without an override. The states of overrides have the words of the commands.
const (
	stateUp      = "up"
	stateFailing = "failing"
	stateReady   = "ready"   // only agent checks ask, and they get overrides only
	stateIdle    = "unasked" // no request lately, or none since an override ended
)

// overviewAnswer is the last answer about a service.
type overviewAnswer struct {
	Code     int      `json:"code"`
	Why      string   `json:"why,omitempty"` // of an answer that is not the service's: "refused", "timeout"…
	Ago      float64  `json:"ago"`
	Override string   `json:"by,omitempty"` // the state of the override that answered
	Age      float64  `json:"age"`          // of the check's result at that time
	Took     *float64 `json:"took"`         // by the check, in seconds; nil when none was needed
}

// overviewBalancer is how a balancer sees one server.
type overviewBalancer struct {
	Name     string  `json:"name"`             // its node, or else its address
	Server   string  `json:"server,omitempty"` // its name for the server, or else the URL
	State    string  `json:"state,omitempty"`  // in its words; "" if it sends none
	Sessions *int    `json:"sessions"`         // open ones; nil if it sends no number
	Queued   int     `json:"queued,omitempty"`
	Silent   bool    `json:"silent"`
	Ago      float64 `json:"ago"`  // since its last request
	Code     int     `json:"code"` // of the answer

	override string
}

// overviewAgent is the last answer to an agent check.
type overviewAgent struct {
	Address string  `json:"address"`
	Answer  string  `json:"answer"`
	Ago     float64 `json:"ago"`
}

const (
	// oldAnswer is the largest age of an answer that decides the state of a service without balancers.
	oldAnswer = time.Minute
	// maxShown bounds what the page shows of a reason, or of any text from elsewhere, in bytes; hastatus shows all of it.
	maxShown = 500
)

// certificateLine returns what the page says about the certificate of tls_listen.
func certificateLine(expires time.Time, broken bool, now time.Time) string {
	line := "The TLS certificate expires on " + expires.UTC().Format(time.DateTime) + " UTC"
	if left := expires.Sub(now); left < 0 {
		line = "The TLS certificate has expired on " + expires.UTC().Format(time.DateTime) + " UTC"
	} else {
		line += ", in " + textfmt.Seconds(left.Seconds())
	}
	if broken {
		line += ". Its files have changed and cannot be used: see the log of hacheck"
	}
	return line + "."
}

// writeJSON writes the document row by row. There may be 10,000 rows, and encoding/json would hold their text twice.
func (o *overview) writeJSON(w io.Writer) error {
	b := bufio.NewWriterSize(w, 16<<10)
	list := func(name string, rows []overviewRow) error {
		_, _ = b.WriteString(name + "[")
		for i := range rows {
			if i > 0 {
				_ = b.WriteByte(',')
			}
			row, err := marshal(&rows[i])
			if err != nil {
				return err
			}
			_, _ = b.Write(row)
		}
		return b.WriteByte(']') // the writer keeps its first error
	}
	if err := list(`{"overrides":`, o.Overrides); err != nil {
		return err
	}
	if err := list(`,"services":`, o.Services); err != nil {
		return err
	}
	head, err := marshal(&o.overviewHead)
	if err != nil {
		return err
	}
	_ = b.WriteByte(',')
	_, _ = b.Write(head[1:])
	return b.Flush()
}

// unixSeconds returns t in seconds since 1970, to the microsecond.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// oneLine returns what a page shows of a text from elsewhere.
func oneLine(s string) string { return shorten(s, maxShown) }

// shorten returns s as one line, cut to limit bytes and with "…" at the end if it is longer.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return textfmt.OneLine(s)
	}
	return textfmt.Truncate(s, limit) + "…"
}
