package fleet

import (
	"context"
	"slices"
	"strings"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
)

// Impact says what o would do to each service, without doing it. See Service.
func (f *Fleet) Impact(ctx context.Context, o ScopedOverride) ([]report.Impact, error) {
	snap, err := f.permits.readSnapshot(ctx, nil)
	if err != nil {
		return nil, err
	}
	list := []report.Impact{}
	for service, members := range snap.states {
		if !slices.ContainsFunc(o.Keys, func(k spool.Key) bool { return k.Service == spool.All || k.Service == service }) {
			continue
		}
		isOut := map[string]bool{}
		for _, m := range snap.outOf(service, "") {
			isOut[m.host] = true
		}
		i := report.Impact{Service: service, Members: len(members), Out: len(isOut), Budget: snap.limit(service)}
		for host := range members {
			if o.Override.State.TakesOut() && !isOut[host] && !snap.applied[host].Left && snap.isInScopes(host, o.Scopes) {
				i.GoOut++
			}
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b report.Impact) int { return strings.Compare(a.Service, b.Service) })
	return list, nil
}

// isInScopes reports whether one of the scopes has the host.
func (snap *snapshot) isInScopes(host string, scopes []string) bool {
	groups := snap.groupsOf(host)
	return slices.ContainsFunc(scopes, func(scope string) bool {
		kind, name, _ := strings.Cut(scope, ":")
		return kind == "all" || kind == "host" && name == host || kind == "group" && slices.Contains(groups, name)
	})
}

// groupsOf returns the groups of a host; those of an absent one are in its states.
func (snap *snapshot) groupsOf(host string) []string {
	if h, ok := snap.present[host]; ok {
		return h.Groups
	}
	for _, members := range snap.states {
		if s, ok := members[host]; ok {
			return s.Groups
		}
	}
	return nil
}
