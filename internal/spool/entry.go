package spool

import (
	"strconv"
	"strings"
	"time"

	"hacheck/internal/textfmt"
)

// MaxReason is the longest reason in bytes. A longer one is cut at a character and ends in "…". It bounds the memory that a
// directory of huge files takes, and the answers.
const MaxReason = 4096

// State is the state that an override sets. A larger state is a stronger one: of several overrides that cover a target, the
// strongest decides.
type State uint8

// The states, weakest first. Ready, the zero value, means that there is no override.
const (
	Ready   State = iota
	ForceUp       // "state": "up": answer 200 without a check
	Drain         // "state": "drain": no new sessions
	Down          // a plain override, as the original tools write it
	Maint         // "state": "maint": down, and HAProxy shows MAINT
)

// String returns the word of the spool file: "up", "drain", "down", "maint", and "" for Ready.
func (s State) String() string {
	switch s {
	case ForceUp:
		return "up"
	case Drain:
		return "drain"
	case Down:
		return "down"
	case Maint:
		return "maint"
	default:
		return ""
	}
}

// Entry is one override: the content of one spool file.
type Entry struct {
	Key     Key
	State   State
	Reason  string    // may hold control characters; "" when not known
	Created time.Time // zero when not known
	Expires time.Time // zero: never
}

// Expired reports whether e has expired. Only the wall clock counts, because the file has unix time.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// Line returns the one line that a check answers when e decides, without a newline:
//
//	Service web in down state since 1500000000.500000 until 4000000000.000000: kernel upgrade
//
// Each of since, until and the reason appears only when known. PaaSTA parses the line with a regular expression. Line leaves out
// or rewrites what would break that: times before 1970, control characters, and " state" inside the reason where PaaSTA would
// take it for the end of the state. It would then find no "since" and kill the task at once. Such a " state" becomes " State".
func (e Entry) Line() string {
	state := e.State
	if state == Maint || state == Ready { // only HAProxy's agent knows maint
		state = Down
	}
	out := make([]byte, 0, 96+len(e.Key.Service)+len(e.Reason))
	out = append(out, "Service "...)
	out = append(out, e.Key.Service...)
	out = append(out, " in "...)
	out = append(out, state.String()...)
	out = append(out, " state"...)
	since := func(word string, t time.Time) {
		if t.IsZero() || t.Unix() < 0 {
			return
		}
		out = append(out, word...)
		out = strconv.AppendFloat(out, unixSeconds(t), 'f', 6, 64)
	}
	since(" since ", e.Created)
	since(" until ", e.Expires)
	if reason := textfmt.OneLine(e.Reason); reason != "" {
		out = append(out, escapeState(": "+reason)...)
	}
	return string(out)
}

// escapeState rewrites each " state" in tail, the line from its last ": " on, that PaaSTA's greedy expression would take for
// the word after the state.
func escapeState(tail string) string {
	const word = " state"
	at := strings.Index(tail, word)
	if at < 0 {
		return tail
	}
	out := []byte(tail)
	for from := 0; at >= 0; at = strings.Index(tail[from:], word) {
		from += at + len(word)
		rest := tail[from:]
		if rest == "" || strings.HasPrefix(rest, ": ") || strings.HasPrefix(rest, " since ") || strings.HasPrefix(rest, " until ") {
			out[from-len("state")] = 'S'
		}
	}
	return string(out)
}
