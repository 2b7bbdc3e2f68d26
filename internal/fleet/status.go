package fleet

import (
	"errors"

	"hacheck/internal/fleet/report"
)

// Status returns what this host knows without asking etcd.
func (f *Fleet) Status() report.Status {
	connected, since, problem := f.conn.status()
	answered := f.conn.lastAnswer()
	refused := f.conn.isRefused()
	if !connected && problem == nil && !f.conn.logsIn() {
		problem = errNotConnected
	}

	b := f.obeyed
	b.mu.Lock()
	defer b.mu.Unlock()
	s := report.Status{
		Connected: connected, Since: since, Revision: b.rules.revision, Left: b.left != nil, Lost: len(b.rules.lost()),
		Errors: f.conn.errors.Load(), Hosts: b.present,
	}
	if b.left == nil {
		s.Overrides = len(b.rules.entries(refused))
	}
	if !answered.IsZero() {
		s.Confirmed = &answered
	}
	s.Error = b.problemText(problem)
	f.permits.fill(&s)
	return s
}

// problemText joins what is wrong. The caller holds b.mu.
func (b *obeyed) problemText(connection error) string {
	var list []error
	if connection != nil {
		list = append(list, connection)
	}
	if b.noCopy {
		list = append(list, errors.New("there was no copy of the overrides at the start, and etcd was not read yet: the spool alone counts"))
	}
	if p := b.ackProblem(); p != "" {
		list = append(list, errors.New(p))
	}
	if connection == nil {
		for _, err := range []error{b.readErr, b.ackErr} {
			if err != nil {
				list = append(list, explain(err))
			}
		}
	}
	text := ""
	for i, err := range list {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}
