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
	farm, err := f.permits.readFarm(ctx, nil)
	if err != nil {
		return nil, err
	}
	list := []report.Impact{}
	for service, members := range farm.states {
		if !slices.ContainsFunc(o.Keys, func(k spool.Key) bool { return k.Service == spool.All || k.Service == service }) {
			continue
		}
		isOut := map[string]bool{}
		for _, m := range farm.outOf(service, "") {
			isOut[m.host] = true
		}
		i := report.Impact{Service: service, Members: len(members), Out: len(isOut), Budget: farm.limit(service)}
		for host := range members {
			if o.Override.State.TakesOut() && !isOut[host] && !farm.applied[host].Left && farm.isInScopes(host, o.Scopes) {
				i.GoOut++
			}
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b report.Impact) int { return strings.Compare(a.Service, b.Service) })
	return list, nil
}

// isInScopes reports whether one of the scopes has the host.
func (f *farm) isInScopes(host string, scopes []string) bool {
	groups := f.groupsOf(host)
	return slices.ContainsFunc(scopes, func(scope string) bool {
		kind, name, _ := strings.Cut(scope, ":")
		return kind == "all" || kind == "host" && name == host || kind == "group" && slices.Contains(groups, name)
	})
}

// groupsOf returns the groups of a host; those of an absent one are in its states.
func (f *farm) groupsOf(host string) []string {
	if h, ok := f.present[host]; ok {
		return h.Groups
	}
	for _, members := range f.states {
		if s, ok := members[host]; ok {
			return s.Groups
		}
	}
	return nil
}
