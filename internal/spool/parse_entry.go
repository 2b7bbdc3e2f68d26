package spool

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxContent is how many bytes of a spool file are read. A longer file is an override with a truncated reason.
const maxContent = 64 << 10

// ParseEntry reads the content of k's spool file. It never fails: an operator has put a file there, and that means down
// whatever is in it.
//
// Of a JSON object ParseEntry takes the known fields; it ignores a field of the wrong type, and the state "up" too if
// the expiration has the wrong type. Any other content is the reason: plain text, a JSON scalar, half an object.
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
	if by, _ := jsonString(fields["by"]); isValidBy(by) {
		e.By = by
	}
	e.Created = unixTime(fields["creation"])
	e.Expires = unixTime(fields["expiration"])
	if boot, _ := jsonString(fields["boot"]); isBootID(boot) {
		e.Boot = boot
	}
	if e.State == ForceUp && (e.Boot == "" && len(fields["boot"]) > 0 || !isTimeOrNull(fields["expiration"])) {
		e.State = Down // its end is not known, and a malformed file forces nothing up
	}
	return e
}

// isTimeOrNull reports whether raw is a time, null or absent.
func isTimeOrNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null" || isNumber(raw)
}

// isNumber reports whether raw, which is valid JSON, is a number.
func isNumber(raw json.RawMessage) bool {
	return len(raw) > 0 && (raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9')
}

// parseObject reads content as a JSON object with the extensions of Python's json.
func parseObject(content []byte) (fields map[string]json.RawMessage, ok bool) {
	content = bytes.TrimSpace(content)
	if len(content) == 0 || content[0] != '{' {
		return nil, false
	}
	err := json.Unmarshal(replacePythonNumbers(content), &fields)
	return fields, err == nil
}

// parsePlainObject is parseObject for the content of nearly every file: an object of ASCII strings without escapes,
// null and numbers without exponents. With it a start with 10,000 files spends a fifth of the time on parsing.
func parsePlainObject(b []byte) (fields map[string]json.RawMessage, ok bool) {
	fields = make(map[string]json.RawMessage, 5)
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

// skipByte returns what follows c in b, without JSON white space around c.
func skipByte(b []byte, c byte) ([]byte, bool) {
	const blanks = " \t\r\n"
	b = bytes.TrimLeft(b, blanks)
	if len(b) == 0 || b[0] != c {
		return nil, false
	}
	return bytes.TrimLeft(b[1:], blanks), true
}

// plainStringLen returns the length of the quoted string at the start of b. It returns 0 if there is none, or if it is
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

// plainNumberLen returns the length of the decimal number at the start of b, 0 if there is none. It does not check what
// follows the number.
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

// textReason returns the reason of a file that is no JSON object: its text, or the string that it is in JSON.
func textReason(content []byte) string {
	content = bytes.TrimSpace(content)
	if text, ok := jsonString(content); ok {
		return truncateReason(text)
	}
	return truncateReason(string(content))
}

// truncateReason returns s as a reason of at most MaxReason bytes. A truncated one does not share memory with s.
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

// replacePythonNumbers replaces NaN, Infinity and -Infinity outside of strings by null. Python's json writes them, and
// as times they mean none. Other content is returned as it is.
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

// The bounds of unix seconds in a time.Time. A later time is no time; an earlier one is long past in any case.
const (
	latest   = float64(1 << 62)
	earliest = float64(-1 << 35)
)

// unixTime reads a JSON number of unix seconds. Anything else is the zero time: not known, or never.
func unixTime(raw json.RawMessage) time.Time {
	if !isNumber(raw) {
		return time.Time{}
	}
	f, _ := strconv.ParseFloat(string(raw), 64) // ±Inf if out of range, as in Python
	switch {
	case math.IsNaN(f) || f >= latest:
		return time.Time{}
	case f < earliest:
		f = earliest
	}
	sec := math.Floor(f)
	return time.Unix(int64(sec), int64(math.Round((f-sec)*1e9)))
}
