package fleet

import (
	"strings"

	"hacheck/internal/fleet/report"
)

// Status returns what this host knows without asking etcd.
func (f *Fleet) Status() report.Status {
	connected, since, problem := f.conn.status()
	answered := f.conn.lastAnswer()
	refused := f.conn.isRefused()
	if !connected && problem == nil && !f.conn.isLoggingIn() {
		problem = errNotConnected
	}

	a := f.applier
	a.mu.Lock()
	defer a.mu.Unlock()
	s := report.Status{
		Connected: connected, Since: since, Revision: a.rules.revision, Left: a.left != nil, Lost: len(a.rules.lost()),
		Errors: f.conn.errors.Load(), Hosts: a.present,
	}
	if a.left == nil {
		s.Overrides = len(a.rules.entries(refused))
	}
	if !answered.IsZero() {
		s.Confirmed = &answered
	}
	s.Error = a.problemText(problem)
	f.permits.fill(&s)
	return s
}

// problemText joins what is wrong. The caller holds a.mu.
func (a *applier) problemText(connection error) string {
	var list []string
	if connection != nil {
		list = append(list, connection.Error())
	}
	if a.noCopy {
		list = append(list, "there was no copy of the overrides at the start, and etcd was not read yet: the spool alone counts")
	}
	if p := a.ackProblem(); p != "" {
		list = append(list, p)
	}
	if connection == nil {
		for _, err := range []error{a.readErr, a.ackErr} {
			if err != nil {
				list = append(list, explain(err).Error())
			}
		}
	}
	return strings.Join(list, "; ")
}
