package spool

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/textfmt"
)

// MaxReason is the longest reason in bytes. A longer one is cut at a character and ends in "…". It bounds the memory
// that a directory of huge files takes, and the answers.
const MaxReason = 4096

// State is the state that an override sets. A larger state is a stronger one: of several overrides that cover a target,
// the strongest decides.
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
	words := [...]string{ForceUp: "up", Drain: "drain", Down: "down", Maint: "maint"}
	if int(s) < len(words) {
		return words[s]
	}
	return ""
}

// TakesOut reports whether an override of that state takes its target out of service.
func (s State) TakesOut() bool { return s >= Drain && s <= Maint }

// Word returns the word of the commands and pages. It differs from String for Ready ("up") and ForceUp ("force-up").
func (s State) Word() string {
	switch s {
	case Ready:
		return "up"
	case ForceUp:
		return "force-up"
	default:
		return s.String()
	}
}

// MaxBy is the longest Entry.By in bytes.
const MaxBy = 128

// Entry is one override: the content of one spool file, or an override of the fleet.
type Entry struct {
	Key     Key
	State   State
	Reason  string    // may hold control characters; "" when not known
	By      string    // who has set it; "" when not known. Printable, at most MaxBy bytes
	Scope   string    // "" for a file; all, group:NAME or host:NAME for an override of the fleet
	Created time.Time // zero when not known
	Expires time.Time // zero: never
	Boot    string    // BootID when it was set; it ends with the next start of the machine. "": it does not
	Lost    bool      // of an override of the fleet: its key is gone from etcd, and the host keeps the override
}

// isValidBy reports whether by can be Entry.By. Anything else counts as not known.
func isValidBy(by string) bool {
	return len(by) <= MaxBy && textfmt.OneLine(by) == by
}

// ScopeText returns for whom e was set, as people read it: "fleet", "group rack7" or "host web17", with ", lost in etcd"
// if it is. It returns "" for a file.
func (e Entry) ScopeText() string {
	if e.Scope == "" {
		return ""
	}
	kind, name, named := strings.Cut(e.Scope, ":")
	text := "fleet"
	switch {
	case named:
		text = kind + " " + name
	case kind != All:
		text = kind
	}
	if e.Lost {
		text += ", lost in etcd"
	}
	return textfmt.OneLine(text)
}

// ReasonText returns the reason as a line, after the scope of an override of the fleet: "[group rack7] new kernel".
func (e Entry) ReasonText() string {
	reason, scope := textfmt.OneLine(e.Reason), e.ScopeText()
	switch {
	case scope == "":
		return reason
	case reason == "":
		return "[" + scope + "]"
	default:
		return "[" + scope + "] " + reason
	}
}

// Expired reports whether e has expired. Only the wall clock counts, because the file has unix time.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// Line returns the one line that a check answers when e decides, without a newline:
//
//	Service web in down state since 1500000000.500000 until 4000000000.000000: kernel upgrade
//
// The reason of an override of the fleet begins with its scope: "[group rack7] kernel upgrade".
//
// Each of since, until and the reason appears only when known. PaaSTA parses the line with a regular expression. Line
// leaves out or rewrites what would break that: times before 1970, control characters, and " state" inside the reason
// where PaaSTA would take it for the end of the state. It would then find no "since" and kill the task at once. Such a
// " state" becomes " State".
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
		out = strconv.AppendFloat(out, UnixSeconds(t), 'f', 6, 64)
	}
	since(" since ", e.Created)
	since(" until ", e.Expires)
	if reason := e.ReasonText(); reason != "" {
		out = append(out, escapeState(": "+reason)...)
	}
	return string(out)
}

// escapeState rewrites each " state" in tail, the line from its last ": " on, that PaaSTA's greedy expression would
// take for the word after the state.
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

// UnixSeconds is the inverse of unixTime. It is exact for every time that a float of unix seconds can hold.
func UnixSeconds(t time.Time) float64 {
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9
}

// Marshal returns the content of e's spool file: one line of JSON as Python's json.dumps would write it. The original
// tools read it too. They do not know the fields "state", "by" and "boot", so that for them every override is down until it is lifted or expires. Scope and
// Lost are not in it.
func (e Entry) Marshal() []byte {
	out := append(make([]byte, 0, 96+len(e.Reason)), `{"reason": `...)
	out = textfmt.AppendPythonString(out, truncateReason(e.Reason))
	out = append(out, `, "expiration": `...)
	out = appendPythonTime(out, e.Expires)
	out = append(out, `, "creation": `...)
	out = appendPythonTime(out, e.Created)
	if e.State != Down && e.State != Ready {
		out = append(out, `, "state": "`...)
		out = append(out, e.State.String()...)
		out = append(out, '"')
	}
	if e.By != "" && isValidBy(e.By) {
		out = append(out, `, "by": `...)
		out = textfmt.AppendPythonString(out, e.By)
	}
	if isBootID(e.Boot) {
		out = append(out, `, "boot": "`...)
		out = append(out, e.Boot...)
		out = append(out, '"')
	}
	return append(out, '}')
}

// appendPythonTime appends t as json.dumps writes a float of unix seconds, or null.
func appendPythonTime(out []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(out, "null"...)
	}
	f := UnixSeconds(t)
	if math.Abs(f) >= 1e16 { // from here on Python's repr has an exponent
		return strconv.AppendFloat(out, f, 'e', -1, 64)
	}
	start := len(out)
	out = strconv.AppendFloat(out, f, 'f', -1, 64)
	if !bytes.ContainsRune(out[start:], '.') {
		out = append(out, ".0"...)
	}
	return out
}
