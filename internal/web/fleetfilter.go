package web

import (
	"net/url"
	"slices"
	"strings"

	"hacheck/internal/spool"
)

// fleetFilter is what the query of /fleet selects. The zero value selects everything.
type fleetFilter struct {
	Service, Host, Group string
	Out                  bool // only what is out
}

func parseFleetFilter(q url.Values) fleetFilter {
	text := func(name string) string { return fleetText(strings.TrimSpace(q.Get(name))) }
	return fleetFilter{Service: text("service"), Host: text("host"), Group: text("group"), Out: q.Get("out") == "1"}
}

// showsHost reports whether the filter selects a host.
func (b *fleetBuilder) showsHost(name string) bool {
	f := &b.filter
	if f.Host != "" && name != f.Host {
		return false
	}
	return f.Group == "" || b.hosts[name] != nil && slices.Contains(b.hosts[name].Groups, f.Group)
}

// showsServices reports whether the filter selects one of the services or instances.
func (b *fleetBuilder) showsServices(names ...string) bool {
	return b.filter.Service == "" || slices.ContainsFunc(names, func(name string) bool {
		service, _, _ := strings.Cut(name, ":")
		return service == b.filter.Service || service == spool.All
	})
}

// showsScope reports whether an override of that scope is one of a host that the filter selects.
func (b *fleetBuilder) showsScope(scope string) bool {
	f := &b.filter
	kind, name, _ := strings.Cut(scope, ":")
	switch {
	case f.Host == "" && f.Group == "" || kind == spool.All:
		return true
	case kind == "host":
		return b.showsHost(name)
	case f.Group != "" && name != f.Group:
		return false
	}
	return f.Host == "" || b.hosts[f.Host] != nil && slices.Contains(b.hosts[f.Host].Groups, name)
}
