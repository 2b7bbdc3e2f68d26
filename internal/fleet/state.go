package fleet

import (
	"time"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// reasonUnchecked is the reason of a member whose override has ended and whose check has not run since.
const reasonUnchecked = "its override has ended, and its check has not passed since"

// stateOf returns the value of the state key of a service. previous is the value before, nil for none: Since stays the
// same as long as the state does.
func (m *members) stateOf(service string, overrides []spool.Entry, groups []string, previous *state, now time.Time) state {
	rec := m.services[service]
	s := state{V: version, State: stateUp, Since: rec.since, Out: rec.balancersOut, Groups: groups}
	switch o, _ := m.override(service, overrides); {
	case o != nil:
		s.State, s.Since, s.Reason, s.By, s.Scope = o.State.Word(), o.Created, o.Reason, o.By, o.Scope
		if !o.Expires.IsZero() {
			until := o.Expires.UTC().Round(time.Millisecond)
			s.Until = &until
		}
	case rec.verdict == verdictFailing:
		s.State = stateFailing
	case rec.verdict == verdictUnknown && rec.hasRows:
		s.State, s.Reason, s.Since = stateFailing, reasonUnchecked, time.Time{}
	}
	if previous != nil && previous.State == s.State && (s.State == stateUp || s.State == stateFailing) {
		s.Since = previous.Since
	}
	if s.Since.IsZero() {
		s.Since = now
		if previous != nil && previous.State == s.State && previous.Reason == textfmt.OneLine(s.Reason) {
			s.Since = previous.Since
		}
	}
	s.Since = s.Since.UTC().Round(time.Millisecond)
	s.Reason, s.By = textfmt.OneLine(s.Reason), textfmt.OneLine(s.By)
	return s.fit()
}

// fit returns s with its texts cut, so that its value has at most maxStateSize bytes.
func (s state) fit() state {
	for _, text := range []*string{&s.Reason, &s.By} {
		for limit := len(*text); limit > 0; {
			over := len(encode(s)) - maxStateSize
			if over <= 0 {
				return s
			}
			limit = max(limit-max(over/2, 3), 0) // a character may need several bytes of JSON
			*text = textfmt.Truncate(*text, limit)
		}
	}
	for len(s.Groups) > 0 && len(encode(s)) > maxStateSize {
		s.Groups = s.Groups[:len(s.Groups)-1]
	}
	return s
}
