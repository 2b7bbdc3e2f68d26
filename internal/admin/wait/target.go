package wait

import (
	"fmt"
	"slices"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// Target is one service, or one instance of a service, that a command takes out or brings back.
type Target struct {
	Key   spool.Key
	Label string // for messages
}

// coversRow reports whether an override of k decides the answers to the balancer of a row.
func coversRow(k spool.Key, row balancer.ServerView) bool {
	return k.Covers(spool.Key{Service: row.Service, Host: row.Host, Port: row.Port}, row.Local)
}

// coversAgent reports whether an override of one of the targets decides what the agent answers about k.
func coversAgent(targets []Target, k spool.Key) bool {
	return slices.ContainsFunc(targets, func(t Target) bool { return t.Key.Covers(k, false) })
}

// requestAge returns the age of the last request about a target, at most the daemon's uptime. hasRequest reports
// whether there was one.
func requestAge(t Target, r *balancer.Report) (age time.Duration, hasRequest bool) {
	age = balancer.Duration(r.Uptime)
	for _, s := range r.Services {
		if t.Key.Service != spool.All && s.Service != t.Key.Service || isAboutOtherInstance(t, s, r) {
			continue
		}
		age, hasRequest = min(age, balancer.Duration(s.Age)), true
	}
	return age, hasRequest
}

// isAboutOtherInstance reports whether the last request about a service was about another instance than t. A report has
// one age for all instances, so a row of another instance must have had a request at that time.
func isAboutOtherInstance(t Target, s balancer.LastRequest, r *balancer.Report) bool {
	return t.Key.Port != 0 && slices.ContainsFunc(r.Balancers, func(row balancer.ServerView) bool {
		return row.Service == s.Service && !coversRow(t.Key, row) && balancer.Duration(row.Last.Age) <= balancer.Duration(s.Age)+time.Second
	})
}

// unrecorded returns the clients without a row in the report that asked about a target, or may have.
func unrecorded(targets []Target, r *balancer.Report) []balancer.UnrecordedClient {
	if r.Unrecorded == nil && r.UnrecordedRequests > 0 { // an older daemon reports only their number
		return []balancer.UnrecordedClient{{}}
	}
	var list []balancer.UnrecordedClient
	for _, u := range r.Unrecorded {
		if slices.ContainsFunc(targets, func(t Target) bool {
			return t.Key.Service == u.Service || t.Key.Service == spool.All || u.Service == spool.All || u.Service == ""
		}) {
			list = append(list, u)
		}
	}
	return list
}

// Unrecorded describes a client that asked about a target and has no row in the latest report. It returns "" if there
// is none.
func (t *Tracker) Unrecorded() string {
	if t.report != nil {
		if list := unrecorded(t.targets, t.report); len(list) > 0 {
			return UnrecordedText(list[0])
		}
	}
	return ""
}

// UnrecordedText describes a client without a row and what the operator can do.
func UnrecordedText(u balancer.UnrecordedClient) string {
	client, service := "a client", "a service, perhaps this one,"
	if u.Client != "" {
		client = textfmt.OneLine(u.Client)
	}
	if u.Service != "" {
		service = textfmt.OneLine(u.Service)
	}
	return fmt.Sprintf("%s asked about %s %s ago and the daemon could not record it, because too many services or balancers were asked about: the daemon's log names the client that asked so much; block it with a firewall and run the command again",
		client, service, textfmt.Duration(balancer.Duration(u.Age)))
}
