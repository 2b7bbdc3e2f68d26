package spool

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"hacheck/internal/textfmt"
)

// MaxReason is the longest reason that is kept, in bytes; a longer one is cut at a character and ends
// in "…". It bounds what a directory full of huge files can take in memory and put into an answer.
const MaxReason = 4096

// maxContent is how much of a spool file is read. What is longer is an override with a cut reason.
const maxContent = 64 << 10

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
	Reason  string    // as written; may hold control characters, "" when not known
	Created time.Time // zero when not known
	Expires time.Time // zero when it never ends by itself
}

// Expired reports whether e has ended by itself. Only the wall clock counts, as the file says unix time.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// ParseEntry reads the content of k's spool file. It never fails: whatever the content is, an operator
// put a file there and meant down. A JSON object gives its fields, each ignored when its type is wrong, and
// the state "up" too when it is the expiration's; anything else, plain text, a JSON scalar or half an object,
// is the reason as it stands.
func ParseEntry(k Key, content []byte) Entry {
	e := Entry{Key: k, State: Down}
	if len(content) > maxContent {
		e.Reason = textReason(content[:maxContent])
		return e
	}
	fields, ok := parsePlainObject(content)
	if !ok {
		fields, ok = parseObject(content)
	}
	if !ok {
		e.Reason = textReason(content)
		return e
	}
	if raw := fields["reason"]; len(raw) > 0 && string(raw) != "null" {
		text, ok := jsonString(raw)
		if !ok {
			text = string(raw)
		}
		e.Reason = truncateReason(text)
	}
	switch word, _ := jsonString(fields["state"]); word {
	case "up":
		e.State = ForceUp
	case "drain":
		e.State = Drain
	case "maint":
		e.State = Maint
	}
	e.Created = unixTime(fields["creation"])
	e.Expires = unixTime(fields["expiration"])
	if e.State == ForceUp && !isTimeOrNull(fields["expiration"]) {
		e.State = Down // when it was to end is not known, and a file that is odd forces nothing up
	}
	return e
}

// isTimeOrNull reports whether raw says a time, or that there is none.
func isTimeOrNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null" || isNumber(raw)
}

// isNumber tells a number from other JSON.
func isNumber(raw json.RawMessage) bool {
	return len(raw) > 0 && (raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9')
}

// parseObject reads content as a JSON object, with what Python's json adds to JSON.
func parseObject(content []byte) (fields map[string]json.RawMessage, ok bool) {
	content = bytes.TrimSpace(content)
	if len(content) == 0 || content[0] != '{' {
		return nil, false
	}
	err := json.Unmarshal(replacePythonNumbers(content), &fields)
	return fields, err == nil
}

// parsePlainObject is object for what nearly every file holds, an object of ASCII strings without escapes, null
// and numbers without exponents. A start with 10,000 files spends a fifth of the time.
func parsePlainObject(b []byte) (fields map[string]json.RawMessage, ok bool) {
	fields = make(map[string]json.RawMessage, 4)
	if b, ok = skipByte(b, '{'); !ok {
		return nil, false
	}
	for {
		n := plainStringLen(b)
		if n == 0 {
			return nil, false
		}
		key := string(b[1 : n-1])
		if b, ok = skipByte(b[n:], ':'); !ok || len(b) == 0 {
			return nil, false
		}
		switch {
		case b[0] == '"':
			n = plainStringLen(b)
		case bytes.HasPrefix(b, []byte("null")):
			n = len("null")
		default:
			n = plainNumberLen(b)
		}
		if n == 0 {
			return nil, false
		}
		fields[key] = b[:n:n]
		if rest, more := skipByte(b[n:], ','); more {
			b = rest
			continue
		}
		b, ok = skipByte(b[n:], '}')
		return fields, ok && len(b) == 0
	}
}

// skipByte returns what follows c, with the blanks of JSON left out on both sides.
func skipByte(b []byte, c byte) ([]byte, bool) {
	const blanks = " \t\r\n"
	b = bytes.TrimLeft(b, blanks)
	if len(b) == 0 || b[0] != c {
		return nil, false
	}
	return bytes.TrimLeft(b[1:], blanks), true
}

// plainStringLen returns the length of the quoted string that b begins with, 0 when there is none or it is
// more than printable ASCII without escapes.
func plainStringLen(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for i, c := range b[1:] {
		switch {
		case c == '"':
			return i + 2
		case c < ' ' || c > '~' || c == '\\':
			return 0
		}
	}
	return 0
}

// plainNumberLen returns the length of the decimal number that b begins with, 0 when there is none. What
// follows it is the caller's to judge.
func plainNumberLen(b []byte) int {
	digits := func(from int) (to int) {
		for to = from; to < len(b) && '0' <= b[to] && b[to] <= '9'; to++ {
		}
		return to
	}
	start := 0
	if len(b) > 0 && b[0] == '-' {
		start = 1
	}
	n := digits(start)
	if n == start || b[start] == '0' && n > start+1 {
		return 0
	}
	if n < len(b) && b[n] == '.' {
		end := digits(n + 1)
		if end == n+1 {
			return 0
		}
		n = end
	}
	return n
}

// jsonString returns the string that raw is in JSON.
func jsonString(raw []byte) (string, bool) {
	if n := plainStringLen(raw); n > 0 && n == len(raw) {
		return string(raw[1 : n-1]), true
	}
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// textReason is the reason of a file that is no JSON object: its text, or the string it is in JSON.
func textReason(content []byte) string {
	content = bytes.TrimSpace(content)
	if text, ok := jsonString(content); ok {
		return truncateReason(text)
	}
	return truncateReason(string(content))
}

// truncateReason returns s as a reason: at most MaxReason bytes, and a copy of its own when it was longer, so that
// the rest is not kept in memory with it.
func truncateReason(s string) string {
	if len(s) <= MaxReason {
		return s
	}
	const mark = "…"
	end := MaxReason - len(mark)
	for end > 0 && end > MaxReason-len(mark)-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}

// replacePythonNumbers replaces the NaN, Infinity and -Infinity that Python's json writes outside of strings by
// null, which is what they mean here: no time. Other content is returned as it is.
func replacePythonNumbers(content []byte) []byte {
	if !bytes.Contains(content, []byte("NaN")) && !bytes.Contains(content, []byte("Infinity")) {
		return content
	}
	out := make([]byte, 0, len(content))
	inString := false
	for i := 0; i < len(content); i++ {
		c := content[i]
		if inString {
			if c == '\\' && i+1 < len(content) {
				out = append(out, c)
				i++
				c = content[i]
			} else if c == '"' {
				inString = false
			}
			out = append(out, c)
			continue
		}
		inString = c == '"'
		word := ""
		for _, w := range []string{"NaN", "-Infinity", "Infinity"} {
			if bytes.HasPrefix(content[i:], []byte(w)) {
				word = w
				break
			}
		}
		if word == "" {
			out = append(out, c)
			continue
		}
		out = append(out, "null"...)
		i += len(word) - 1
	}
	return out
}

// The unix seconds a time.Time of ours may hold. Later than latest is never; earlier than earliest is
// long past whichever second it was.
const (
	latest   = float64(1 << 62)
	earliest = float64(-1 << 35)
)

// unixTime reads a JSON number of unix seconds. What is no number is the zero time: not known, or never.
func unixTime(raw json.RawMessage) time.Time {
	if !isNumber(raw) {
		return time.Time{}
	}
	f, _ := strconv.ParseFloat(string(raw), 64) // out of range gives ±Inf, which is what Python reads
	switch {
	case math.IsNaN(f) || f >= latest:
		return time.Time{}
	case f < earliest:
		f = earliest
	}
	sec := math.Floor(f)
	return time.Unix(int64(sec), int64(math.Round((f-sec)*1e9)))
}

// unixSeconds is the inverse of unixTime, exact for every time that a float of unix seconds can tell.
func unixSeconds(t time.Time) float64 {
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9
}

// Marshal returns the content of e's spool file, one line of JSON as Python's json.dumps would write it.
// The original tools read it; they see "state" as one more field that they do not look at, so that for
// them every override is down.
func (e Entry) Marshal() []byte {
	out := append(make([]byte, 0, 96+len(e.Reason)), `{"reason": `...)
	out = appendPythonString(out, truncateReason(e.Reason))
	out = append(out, `, "expiration": `...)
	out = appendPythonTime(out, e.Expires)
	out = append(out, `, "creation": `...)
	out = appendPythonTime(out, e.Created)
	if e.State != Down && e.State != Ready {
		out = append(out, `, "state": "`...)
		out = append(out, e.State.String()...)
		out = append(out, '"')
	}
	return append(out, '}')
}

// appendPythonTime appends t as json.dumps writes a float of unix seconds, or null.
func appendPythonTime(out []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(out, "null"...)
	}
	f := unixSeconds(t)
	if math.Abs(f) >= 1e16 { // where Python's repr changes to an exponent
		return strconv.AppendFloat(out, f, 'e', -1, 64)
	}
	start := len(out)
	out = strconv.AppendFloat(out, f, 'f', -1, 64)
	if !bytes.ContainsRune(out[start:], '.') {
		out = append(out, ".0"...)
	}
	return out
}

// appendPythonString appends s as json.dumps writes it, in ASCII. Bytes that are no UTF-8 become U+FFFD:
// Python's own way, a lone surrogate, makes its hastatus and its daemon fail.
func appendPythonString(out []byte, s string) []byte {
	const hex = "0123456789abcdef"
	u := func(r rune) {
		out = append(out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	out = append(out, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\r':
			out = append(out, `\r`...)
		case r == '\t':
			out = append(out, `\t`...)
		case r == '\b':
			out = append(out, `\b`...)
		case r == '\f':
			out = append(out, `\f`...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			u(high)
			u(low)
		case r < ' ' || r >= 0x7f:
			u(r)
		default:
			out = append(out, byte(r))
		}
	}
	return append(out, '"')
}

// Line returns the one line that a check answers where e does, without a newline:
//
//	Service web in down state since 1500000000.500000 until 4000000000.000000: kernel upgrade
//
// Each of since, until and the reason is there only when known. PaaSTA reads it with a regular
// expression, and what that must not trip over is left out or rewritten: times before 1970, control
// characters, and " state" inside the reason where it would be taken for the end of the state (PaaSTA
// would find no "since" then and kill the task at once); that one becomes " State".
func (e Entry) Line() string {
	state := e.State
	if state == Maint || state == Ready { // maint is a word for HAProxy's agent alone
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

// escapeState rewrites each " state" in tail, the line from its last ": " on, that PaaSTA's greedy
// expression would take for the word after the state.
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
