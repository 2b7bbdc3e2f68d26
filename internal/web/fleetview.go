package web

import (
	"bytes"
	_ "embed" // for the page
	"html/template"
	"slices"
	"strings"
	"time"

	"hacheck/internal/fleet/report"
	"hacheck/internal/textfmt"
)

// fleetHTML is the template of the page /fleet. html/template escapes every value.
//
//go:embed fleet.html
var fleetHTML string

func newFleetTemplate() *template.Template {
	return template.Must(template.New("fleet").Parse(fleetHTML))
}

// The bounds of the page. A fleet of 1,000 hosts with 50 services has 50,000 members.
const (
	maxFleetRows   = 1000 // rows of members that are out
	maxFleetTable  = 500  // rows of each other table
	maxFleetNames  = 50   // names of members that are in, for one state of a service
	maxFilterNames = 5000 // the same for the service that the filter names
	maxAllNames    = 20_000
	maxFleetText   = 200 // bytes of a reason or of another text; the JSON has all of it
	fewNames       = 20  // that many names are shown without a click
	fewServices    = 12  // that many services with nothing out are shown without a click
)

// fleetView is what the template shows.
type fleetView struct {
	Self, ReadAt string
	Revision     int64
	Stale        bool // etcd is not connected: this is what was known last
	Warnings     []string
	Filter       fleetFilter
	HasFilter    bool
	Summary      string

	Overrides   fleetTable
	Out         []fleetService // services with a member that is out
	HiddenOut   int            // rows of members that are not shown
	In          []fleetService // the other services
	HiddenIn    int
	InText      string // how many In has
	OpenIn      bool
	Permits     fleetTable
	Queue       fleetTable
	Absent      fleetTable
	Left        fleetTable
	NotApplying fleetTable // present hosts that do not apply overrides
	Hosts       fleetTable // the others
	IsEmpty     bool
}

// fleetTable has the shown rows of a table.
type fleetTable struct {
	Rows   []fleetRow
	Hidden int // further rows
}

// Text returns how many hosts the rows are.
func (t fleetTable) Text() string { return textfmt.Count(len(t.Rows), "host") }

// fleetService is one service with its members.
type fleetService struct {
	Name, Rule           string
	Members, Out, Budget int
	Rows                 []fleetRow   // members that are out
	In                   []fleetGroup // members that are in, by state
}

// fleetGroup are the members of a service in one state.
type fleetGroup struct {
	State, Class string
	Count        int
	Hosts        []string
	Hidden       int
}

// Folded reports whether the names are shown after a click.
func (g fleetGroup) Folded() bool { return g.Count > fewNames }

// render returns the page.
func (p *fleetPage) render(d *fleetDoc, f fleetFilter) ([]byte, error) {
	var b bytes.Buffer
	err := p.template.Execute(&b, newFleetView(d, f, time.Now()))
	return b.Bytes(), err
}

// fleetBuilder makes a view of one report.
type fleetBuilder struct {
	*report.Fleet
	filter       fleetFilter
	now          time.Time
	hosts        map[string]*report.Host
	serviceHosts map[string]bool // the hosts that are members of the filter's service; nil without one
	namesLeft    int             // of members that are in, which the page has room for
	rowsLeft     int             // of members that are out
}

// newFleetView returns the view of d with a filter.
func newFleetView(d *fleetDoc, f fleetFilter, now time.Time) *fleetView {
	b := &fleetBuilder{Fleet: d.report, filter: f, now: now, hosts: map[string]*report.Host{}, namesLeft: maxAllNames, rowsLeft: maxFleetRows}
	for i := range b.Hosts {
		b.hosts[b.Hosts[i].Name] = &b.Hosts[i]
	}
	if f.Service != "" {
		b.serviceHosts = map[string]bool{}
		for _, s := range b.Services {
			for _, m := range s.Members {
				b.serviceHosts[m.Host] = b.serviceHosts[m.Host] || s.Name == f.Service
			}
		}
	}
	v := &fleetView{
		Self: fleetText(b.Self), Revision: b.Revision, Stale: !b.Connected,
		Warnings: fleetWarnings(d.status, now), Filter: f, HasFilter: f != fleetFilter{}, Summary: b.summary(),
		Overrides: table(b.Overrides, b.override), Permits: table(b.Permits, b.permit), Queue: table(b.Queue, b.claim),
		Absent:      table(b.Hosts, b.hostsWith(func(h *report.Host) bool { return !h.Present })),
		Left:        table(b.Hosts, b.hostsWith(func(h *report.Host) bool { return h.Left })),
		NotApplying: table(b.Hosts, b.hostsWith(func(h *report.Host) bool { return h.Present && h.Error != "" })),
	}
	if !b.ReadAt.IsZero() {
		v.ReadAt = b.ReadAt.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	if !f.Out {
		v.Hosts = table(b.Hosts, b.hostsWith(func(h *report.Host) bool { return h.Present && !h.Left && h.Error == "" }))
	}
	b.addServices(v)
	v.IsEmpty = v.HasFilter && len(v.Out)+len(v.In) == 0 && v.HiddenOut+v.HiddenIn == 0
	for _, t := range []fleetTable{v.Overrides, v.Permits, v.Queue, v.Absent, v.Left, v.NotApplying, v.Hosts} {
		v.IsEmpty = v.IsEmpty && len(t.Rows) == 0
	}
	return v
}

// table returns the rows that the filter selects; row returns false for the others.
func table[T any](list []T, row func(*T) (fleetRow, bool)) (t fleetTable) {
	for i := range list {
		switch r, ok := row(&list[i]); {
		case !ok:
		case len(t.Rows) < maxFleetTable:
			t.Rows = append(t.Rows, r)
		default:
			t.Hidden++
		}
	}
	return t
}

// summary returns the numbers of the whole fleet.
func (b *fleetBuilder) summary() string {
	absent, left, out, lost := 0, 0, 0, 0
	for i := range b.Hosts {
		if !b.Hosts[i].Present {
			absent++
		}
		if b.Hosts[i].Left {
			left++
		}
	}
	for i := range b.Services {
		out += b.Services[i].Out
	}
	for i := range b.Overrides {
		if b.Overrides[i].Lost {
			lost++
		}
	}
	parts := []string{textfmt.Count(len(b.Hosts), "host")}
	add := func(n int, text string) {
		if n > 0 {
			parts = append(parts, text)
		}
	}
	add(absent, textfmt.Count(absent, "host")+" absent")
	add(left, textfmt.Count(left, "host")+" left")
	parts = append(parts, textfmt.Count(len(b.Services), "service"), textfmt.Count(out, "member")+" out")
	add(len(b.Overrides), textfmt.Count(len(b.Overrides), "fleet override"))
	add(lost, textfmt.Count(lost, "override")+" lost in etcd")
	add(len(b.Permits), textfmt.Count(len(b.Permits), "permit"))
	add(len(b.Queue), textfmt.Count(len(b.Queue), "claim")+" waiting")
	return strings.Join(parts, ", ")
}

// addServices adds the services that the filter selects: those with a member that is out, then the others.
func (b *fleetBuilder) addServices(v *fleetView) {
	for i := range b.Services {
		s := &b.Services[i]
		if b.filter.Service != "" && s.Name != b.filter.Service {
			continue
		}
		view, hidden, selected := b.service(s)
		switch {
		case !selected:
		case len(view.Rows) > 0 || hidden > 0:
			if len(v.Out) < maxFleetTable {
				v.Out = append(v.Out, view)
			} else {
				hidden += len(view.Rows)
			}
			v.HiddenOut += hidden
		case len(v.In) < maxFleetTable:
			v.In = append(v.In, view)
		default:
			v.HiddenIn++
		}
	}
	v.OpenIn, v.InText = len(v.In) <= fewServices, textfmt.Count(len(v.In), "service")
}

// service returns the view of a service, how many rows of members that are out are not in it, and whether the filter
// selects a member.
func (b *fleetBuilder) service(s *report.Service) (view fleetService, hidden int, selected bool) {
	view = fleetService{Name: fleetText(s.Name), Rule: fleetText(s.Rule), Members: len(s.Members), Out: s.Out, Budget: s.Budget}
	limit := maxFleetNames
	if b.filter.Service != "" {
		limit = maxFilterNames
	}
	for i := range s.Members {
		m := &s.Members[i]
		if !b.showsHost(m.Host) || b.filter.Out && !m.Out {
			continue
		}
		selected = true
		switch {
		case !m.Out:
			b.addIn(&view, m, limit)
		case b.rowsLeft > 0:
			b.rowsLeft--
			view.Rows = append(view.Rows, b.member(m))
		default:
			hidden++
		}
	}
	return view, hidden, selected
}

// addIn adds a member that is in to the group of its state.
func (b *fleetBuilder) addIn(view *fleetService, m *report.Member, limit int) {
	word, class := memberState(m.State)
	i := slices.IndexFunc(view.In, func(g fleetGroup) bool { return g.State == word })
	if i < 0 {
		i, view.In = len(view.In), append(view.In, fleetGroup{State: word, Class: class})
	}
	g := &view.In[i]
	g.Count++
	if len(g.Hosts) >= limit || b.namesLeft == 0 {
		g.Hidden++
		return
	}
	b.namesLeft--
	g.Hosts = append(g.Hosts, fleetText(m.Host))
}
