package spool

import (
	"bytes"
	"math"
	"strconv"
	"time"
	"unicode/utf16"
)

// unixSeconds is the inverse of unixTime. It is exact for every time that a float of unix seconds can hold.
func unixSeconds(t time.Time) float64 {
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9
}

// Marshal returns the content of e's spool file: one line of JSON as Python's json.dumps would write it. The original tools
// read it too. They do not know the field "state", so that for them every override is down.
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

// appendPythonString appends s as json.dumps writes it, in ASCII. Invalid UTF-8 becomes U+FFFD: Python's own way, a lone
// surrogate, makes its hastatus and its daemon fail.
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
