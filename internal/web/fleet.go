package web

import (
	"context"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"hacheck/internal/fleet/report"
	"hacheck/internal/textfmt"
)

// Fleet is the fleet that this host belongs to; *fleet.Fleet is one.
type Fleet interface {
	// Report reads the fleet. Without etcd it returns what was known last.
	Report(ctx context.Context) (*report.Fleet, error)
	// Status returns what this host knows without asking etcd. It does not block.
	Status() report.Status
}

const (
	fleetReadTime = 10 * time.Second // for one Report
	// The two parts of the Content-Security-Policy, before and after the hash of the page's style. The policy allows the
	// style and the form. The page has no script.
	fleetPolicyStart = "default-src 'none'; style-src "
	fleetPolicyEnd   = "; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

// fleetPage makes the page /fleet. All clients share one report a second, and the two documents without a filter.
type fleetPage struct {
	server   *Server
	fleet    Fleet
	template *template.Template
	policy   string
	reading  *sharedPage[*fleetDoc]

	// A page with a filter is made for one client. All of these pages together take at most 1/pageShare of the time.
	filterLock chanMutex
	notBefore  time.Time // when the next one may be begun; guarded by filterLock
}

// newFleetPage returns the page of a fleet. It does not share the lock of the other pages: while etcd is slow, they must
// not wait.
func newFleetPage(s *Server, f Fleet) *fleetPage {
	p := &fleetPage{
		server: s, fleet: f, template: newFleetTemplate(), filterLock: newChanMutex(),
		policy: fleetPolicyStart + sourceHash(fleetHTML, "style") + fleetPolicyEnd,
	}
	p.reading = newSharedPage(s, "/fleet", newChanMutex(), p.read)
	return p
}

// fleetDoc is one report of the fleet, and what is made of it.
type fleetDoc struct {
	report *report.Fleet
	err    error // why there is no report
	status report.Status
	at     time.Time

	page, json func() ([]byte, error) // made once, without a filter
}

// read reads the fleet. An error of Report is in the document, because the page answers it with 503 and not with 500.
func (p *fleetPage) read() (*fleetDoc, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fleetReadTime)
	defer cancel()
	d := &fleetDoc{at: time.Now()}
	d.report, d.err = p.fleet.Report(ctx)
	d.status = p.fleet.Status()
	d.page = sync.OnceValues(recoverPanics(p.server, "/fleet", func() ([]byte, error) { return p.render(d, fleetFilter{}) }))
	d.json = sync.OnceValues(recoverPanics(p.server, "/fleet", func() ([]byte, error) { return marshal(d.report) }))
	return d, nil
}

// fleet returns the page of the fleet, nil if this host is in none.
func (s *Server) fleet() *fleetPage {
	if s.settings.Load().NoFleet {
		return nil
	}
	return s.configuredFleet
}

// fleetPage answers /fleet: the page for a browser, and the report as JSON for other clients.
func (s *Server) fleetPage(w http.ResponseWriter, r *http.Request) {
	p := s.fleet()
	if p == nil {
		writeText(w, http.StatusNotFound, "No fleet is configured: set the key fleet in hacheck's configuration, with the URLs of etcd, as in fleet: {etcd: [https://etcd1:2379]}")
		return
	}
	h := w.Header()
	h["Vary"] = []string{"Accept"}
	h["Cache-Control"] = []string{"no-store"}
	servePage(s, w, r, p.reading, func(d *fleetDoc) {
		if d.err != nil {
			writeText(w, http.StatusServiceUnavailable, "Cannot read the fleet: "+d.err.Error())
			return
		}
		accept := strings.Join(r.Header["Accept"], ",")
		contentType := jsonType
		makePage := d.json
		if strings.Contains(accept, "text/html") && !strings.Contains(accept, "application/json") {
			setPageHeaders(h, p.policy)
			contentType, makePage = htmlType, d.page
			if f := parseFleetFilter(r.URL.Query()); f != (fleetFilter{}) {
				makePage = func() ([]byte, error) { return p.filtered(r.Context(), d, f) }
			}
		} else {
			h["Cross-Origin-Resource-Policy"] = []string{"same-origin"}
		}
		body, err := makePage()
		if err != nil {
			writeError(w, err)
			return
		}
		limitReadTime(w)
		writeBody(w, contentType, body)
	})
}

// filtered returns the page of d with a filter, when its turn has come.
func (p *fleetPage) filtered(ctx context.Context, d *fleetDoc, f fleetFilter) ([]byte, error) {
	p.filterLock.lock()
	defer p.filterLock.unlock()
	select {
	case <-time.After(time.Until(p.notBefore)):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	begun := time.Now()
	defer func() { p.notBefore = begun.Add(min(pageInterval, pageShare*time.Since(begun))) }()
	return recoverPanics(p.server, "/fleet", func() ([]byte, error) { return p.render(d, f) })()
}

// fleetWarnings returns what is wrong with the fleet on this host, one sentence each.
func fleetWarnings(s report.Status, now time.Time) []string {
	var list []string
	age := ""
	if !s.Since.IsZero() {
		age = " for " + textfmt.Duration(now.Sub(s.Since))
	}
	switch problem := oneLine(s.Error); {
	case !s.Connected && problem == "":
		list = append(list, "Not connected to etcd"+age+". "+lastKnown)
	case !s.Connected:
		list = append(list, "Not connected to etcd"+age+": "+strings.TrimRight(problem, ".")+". "+lastKnown)
	case problem != "":
		list = append(list, "Trouble with the fleet"+age+": "+strings.TrimRight(problem, ".")+".")
	}
	if s.Lost > 0 {
		list = append(list, textfmt.Count(s.Lost, "fleet override")+" lost in etcd, still obeyed here: lift or set again with the same scope.")
	}
	if s.Left {
		list = append(list, "This host has left the fleet and ignores fleet overrides: hacheck fleet join ends that.")
	}
	return list
}

const lastKnown = "The fleet overrides known last stay in force and end at their time; hadown --safe, --group, --host and --fleet fail."

// fleetLine returns the line about the fleet in the overview for a terminal.
func fleetLine(s *report.Status, warnings []string) string {
	if len(warnings) > 0 {
		return "Fleet: " + strings.Join(warnings, " ")
	}
	return "Fleet: connected to etcd, " + textfmt.Count(s.Hosts, "host") + " present, " + textfmt.Count(s.Overrides, "fleet override") + " here. /fleet has all hosts."
}
