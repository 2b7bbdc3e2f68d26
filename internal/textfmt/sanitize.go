package textfmt

import (
	"bytes"
	"math"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// isHarmful reports whether r must not reach a terminal, a log or a page if it comes from a client, a file or a service.
// The whole project uses this list:
//
//   - control characters: C0, DEL and C1 (U+009B begins an escape sequence, as ESC [ does);
//   - every format character (category Cf), visible or not: the marks that change the writing direction (U+061C,
//     U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069), characters without width (U+200B to U+200D, U+2060 to
//     U+2064, U+FEFF), the soft hyphen, tags;
//   - line and paragraph separators, noncharacters, and code points that Unicode reserves for invisible characters.
//
// U+200D is in the list, so an emoji of several characters with joiners is shown as its parts. strconv.Quote and %q
// escape all of these characters too, so quoted text needs no function of this file.
func isHarmful(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r < ' ' || r == 0x7f
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Noncharacter_Code_Point):
		return true
	}
	return unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && !unicode.IsPrint(r)
}

// isHarmless reports whether s is valid UTF-8 without a harmful character, except those in allowed.
func isHarmless(s, allowed string) bool {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n <= 1 {
				return false
			}
		case isHarmful(r) && !strings.ContainsRune(allowed, r):
			return false
		}
	}
	return true
}

// OneLine returns s with a space for each harmful character and U+FFFD for each byte that is no UTF-8. The result is one
// line: a reason can neither forge a second line nor control the terminal. Spaces at the ends stay.
func OneLine(s string) string { return sanitize(s, "") }

// Lines is OneLine for a text of several lines: newlines and tabs stay.
func Lines(s string) string { return sanitize(s, "\n\t") }

func sanitize(s, allowed string) string {
	if isHarmless(s, allowed) {
		return s
	}
	return strings.Map(func(r rune) rune { // r is U+FFFD for a byte that is no UTF-8
		if isHarmful(r) && !strings.ContainsRune(allowed, r) {
			return ' '
		}
		return r
	}, s)
}

// Truncate returns OneLine(s) without spaces at its ends, cut to at most limit bytes and to whole characters.
func Truncate(s string, limit int) string {
	line, _ := truncateText(s, limit, utf8.RuneError)
	return line
}

// Excerpt is Truncate with "..." at the end if it has cut s, so the result is up to 3 bytes longer than limit. Bytes that
// are no UTF-8 become spaces, because services may send binary data.
func Excerpt[T string | []byte](s T, limit int) string {
	line, cut := truncateText(s, limit, ' ')
	if cut {
		return line + "..."
	}
	return line
}

// truncateText reads only as much of s as it returns. invalid replaces bytes that are no UTF-8. Spaces are written when
// another character follows them.
func truncateText[T string | []byte](s T, limit int, invalid rune) (line string, cut bool) {
	out := make([]byte, 0, min(len(s), limit)+len("..."))
	spaces := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
		i += n
		switch {
		case r == utf8.RuneError && n <= 1:
			r = invalid
		case isHarmful(r):
			r = ' '
		}
		if r == ' ' {
			spaces++
			continue
		}
		if len(out) == 0 {
			spaces = 0
		}
		if len(out)+spaces+utf8.RuneLen(r) > limit {
			return string(out), true
		}
		for ; spaces > 0; spaces-- {
			out = append(out, ' ')
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out), false
}

// EscapeJSON returns the JSON text b with a \u escape for DEL and for each harmful character outside of ASCII. The
// document means the same, and a terminal that shows it shows text only. In valid JSON these characters are in strings,
// and the other control characters are escaped already. The result may share memory with b.
func EscapeJSON(b []byte) []byte {
	first := bytes.IndexFunc(b, func(r rune) bool { return r >= 0x7f })
	if first < 0 {
		return b
	}
	out := append(make([]byte, 0, len(b)+64), b[:first]...)
	for i := first; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == utf8.RuneError && n <= 1, r >= 0x7f && isHarmful(r):
			out = appendEscape(out, r)
		default:
			out = append(out, b[i:i+n]...)
		}
		i += n
	}
	return out
}

// appendEscape appends the JSON escape of r, which is two surrogates beyond U+FFFF.
func appendEscape(out []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	if r > math.MaxUint16 {
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(out, high), low)
	}
	return append(out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// AppendPythonString appends s as Python's json.dumps writes it, in ASCII. Invalid UTF-8 becomes U+FFFD: Python's own
// way, a lone surrogate, makes the original hastatus and daemon fail.
func AppendPythonString(out []byte, s string) []byte {
	out = append(out, '"')
	for _, r := range s {
		switch i := strings.IndexRune("\"\\\n\r\t\b\f", r); {
		case i >= 0:
			out = append(out, '\\', "\"\\nrtbf"[i])
		case r < ' ' || r >= 0x7f:
			out = appendEscape(out, r)
		default:
			out = append(out, byte(r))
		}
	}
	return append(out, '"')
}
