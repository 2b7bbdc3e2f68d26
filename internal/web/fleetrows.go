package web

import (
	"strings"
	"time"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// fleetText returns what the page shows of a text from elsewhere.
func fleetText(s string) string { return shorten(s, maxFleetText) }

// fleetRow is one line of any table. Texts that a table does not have are empty.
type fleetRow struct {
	Host, Service   string
	State, Class    string // the word, and the name of its colour
	Since, Until    string // "4m05s ago", "in 55m"
	By, Scope       string
	Reason, Waiting string
	Groups, Version string
	Lost            bool
	Permit          bool
	BalancersOut    bool
	IsSelf          bool
	Revision        int64 // of the overrides that the host obeys
}

func (b *fleetBuilder) override(o *report.Override) (fleetRow, bool) {
	r := fleetRow{
		Service: fleetText(o.Service), Scope: fleetText(o.Scope), Since: b.ago(&o.Created), Until: b.until(o.Expires),
		By: fleetText(o.By), Reason: fleetText(o.Reason), Lost: o.Lost,
	}
	r.State, r.Class = overrideState(o.State)
	return r, b.showsServices(o.Service) && b.showsScope(o.Scope)
}

func (b *fleetBuilder) permit(p *report.Permit) (fleetRow, bool) {
	return fleetRow{
		Host: fleetText(p.Host), Service: joinTexts(p.Services), State: fleetText(p.Phase), Since: b.ago(&p.At), By: fleetText(p.By),
		Reason: fleetText(p.Reason), Waiting: fleetText(p.Waiting), IsSelf: p.Host == b.Self,
	}, b.showsHost(p.Host) && b.showsServices(p.Services...)
}

func (b *fleetBuilder) claim(c *report.Claim) (fleetRow, bool) {
	return fleetRow{
		Host: fleetText(c.Host), Service: joinTexts(c.Services), Since: b.ago(&c.At), By: fleetText(c.By),
		Reason: fleetText(c.Reason), Waiting: fleetText(c.Waiting), IsSelf: c.Host == b.Self,
	}, b.showsHost(c.Host) && b.showsServices(c.Services...)
}

// hostsWith returns the rows of the hosts for which is returns true.
func (b *fleetBuilder) hostsWith(is func(*report.Host) bool) func(*report.Host) (fleetRow, bool) {
	return func(h *report.Host) (fleetRow, bool) {
		return fleetRow{
			Host: fleetText(h.Name), Since: b.ago(h.Since), Groups: joinTexts(h.Groups), Version: fleetText(h.Version),
			Reason: fleetText(h.Error), Revision: h.Revision, IsSelf: h.Name == b.Self,
		}, is(h) && b.showsHost(h.Name) && (b.serviceHosts == nil || b.serviceHosts[h.Name])
	}
}

// member returns the row of m, a member that is out.
func (b *fleetBuilder) member(m *report.Member) fleetRow {
	r := fleetRow{
		Host: fleetText(m.Host), Since: b.ago(m.Since), Until: b.until(m.Until), By: fleetText(m.By), Scope: fleetText(m.Scope),
		Reason: fleetText(m.Reason), Permit: m.Permit, BalancersOut: m.BalancersOut, IsSelf: m.Host == b.Self,
	}
	r.State, r.Class = memberState(m.State)
	return r
}

// ago returns how long ago t was, "" if it is not known.
func (b *fleetBuilder) ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return textfmt.Duration(b.now.Sub(*t)) + " ago"
}

// until returns when t comes, "" for never.
func (b *fleetBuilder) until(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return "in " + textfmt.Duration(t.Sub(b.now))
}

// memberState returns the word for a state of a member and its colour. A state that this version does not know has the
// colour of a failing service: nothing odd looks like up.
func memberState(state string) (word, class string) {
	switch state {
	case "up", "drain", "down", "maint", "failing", "absent":
		return state, state
	case "force-up":
		return "forced up", state
	}
	return fleetText(state), "failing"
}

// overrideState is memberState for the states of an override, where "up" is force-up.
func overrideState(state string) (word, class string) {
	if state == spool.ForceUp.String() {
		state = spool.ForceUp.Word()
	}
	return memberState(state)
}

// joinTexts returns a list for one cell.
func joinTexts(list []string) string { return fleetText(strings.Join(list, ", ")) }
