package admin

import (
	"slices"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// unrecorded returns the clients that the daemon has no row for although they have asked about a target, or may have.
func unrecorded(targets []target, r *balancer.Report) []balancer.UnrecordedClient {
	if r.Unrecorded == nil && r.DroppedRequests > 0 { // a daemon that is older than this command does not say who
		return []balancer.UnrecordedClient{{}}
	}
	var list []balancer.UnrecordedClient
	for _, u := range r.Unrecorded {
		about := func(t target) bool {
			return t.key.Service == u.Service || t.key.Service == spool.All || u.Service == spool.All || u.Service == ""
		}
		if slices.ContainsFunc(targets, about) {
			list = append(list, u)
		}
	}
	return list
}

// nobody says whether a target has not been asked about for quietFor, while the daemon was listening.
func (w *watcher) nobody(t target) bool {
	quiet, _ := w.quiet(t)
	return quiet >= quietFor
}

// quiet is for how long a target has not been asked about, at most since the daemon listens; asked says that it has
// been at all.
func (w *watcher) quiet(t target) (quiet time.Duration, asked bool) {
	quiet = seconds(w.report.Uptime)
	for _, s := range w.report.Services {
		if t.key.Service != spool.All && s.Service != t.key.Service || w.another(t, s) {
			continue
		}
		quiet, asked = min(quiet, seconds(s.Age)), true
	}
	return quiet, asked
}

// another says whether the latest question about a service was about an instance that is not t: the report
// counts them together, and so a row of another one must have asked at that time.
func (w *watcher) another(t target, s balancer.LastRequest) bool {
	return t.key.Port != 0 && slices.ContainsFunc(w.report.Balancers, func(row balancer.Balancer) bool {
		return row.Service == s.Service && !concerns(t.key, row) && seconds(row.Last.Age) <= seconds(s.Age)+time.Second
	})
}
