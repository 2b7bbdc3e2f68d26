package spool

import "time"

// State is what an operator has said about a service. A larger state is a stronger one:
// of several overrides that cover a target, the strongest answers.
type State uint8

// The states, weakest first. Ready, the zero value, means that nothing was said.
const (
	Ready   State = iota
	ForceUp       // "state": "up": answer 200 without asking the service
	Drain         // "state": "drain": no new sessions
	Down          // a plain override, as the original tools write it
	Maint         // "state": "maint": down, and HAProxy shall show MAINT
)

// Entry is one override: the content of one spool file.
type Entry struct {
	Key     Key
	State   State
	Reason  string    // as written; may hold control characters, "" when not known
	Created time.Time // zero when not known
	Expires time.Time // zero when it never ends by itself
}
