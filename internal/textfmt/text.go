package textfmt

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// harmful reports whether a terminal, a log or a page must not get r from a text that came from elsewhere. It is
// the one list for the whole project:
//
//   - control characters: C0, DEL and C1 (U+009B begins an escape sequence as ESC [ does);
//   - every format character (category Cf), seen or unseen: the marks that change the writing direction (U+061C,
//     U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069), characters without width (U+200B to U+200D, U+2060 to
//     U+2064, U+FEFF), the soft hyphen, tags;
//   - line and paragraph separators, noncharacters, and code points that Unicode reserves for unseen characters.
//
// U+200D is one of them, so an emoji made of several with joiners is shown as its parts. strconv.Quote and %q
// escape all of them too, so quoted text needs no function of this file.
func harmful(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r < ' ' || r == 0x7f
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Noncharacter_Code_Point):
		return true
	}
	return unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && !unicode.IsPrint(r)
}

// harmless reports whether s is valid UTF-8 without a harmful character, except for those that are allowed.
func harmless(s, allowed string) bool {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n <= 1 {
				return false
			}
		case harmful(r) && !strings.ContainsRune(allowed, r):
			return false
		}
	}
	return true
}

// OneLine returns s as one line that does nothing but show text: a space for each harmful character, U+FFFD for
// each byte that is no UTF-8. A reason can neither forge a second line nor control the terminal. Other text,
// spaces at the ends included, stays as it is.
func OneLine(s string) string { return clean(s, "") }

// Lines is OneLine for a text of several lines and columns: newlines and tabs stay.
func Lines(s string) string { return clean(s, "\n\t") }

func clean(s, allowed string) string {
	if harmless(s, allowed) {
		return s
	}
	return strings.Map(func(r rune) rune { // gets U+FFFD for a byte that is no UTF-8
		if harmful(r) && !strings.ContainsRune(allowed, r) {
			return ' '
		}
		return r
	}, s)
}

// Truncate returns the beginning of OneLine(s), without spaces at its ends, of at most limit bytes. It ends with a
// whole character.
func Truncate(s string, limit int) string {
	line, _ := begin(s, limit, utf8.RuneError)
	return line
}

// Excerpt is Begin with "..." after what it has cut, so the result is up to 3 bytes longer than limit. Bytes that
// are no UTF-8 become spaces: excerpts are made of what services send, and that may be binary.
func Excerpt[T string | []byte](s T, limit int) string {
	line, cut := begin(s, limit, ' ')
	if cut {
		return line + "..."
	}
	return line
}

// begin reads no more of s than it returns, however long s is. invalid replaces bytes that are no UTF-8. Spaces
// are written once something follows them.
func begin[T string | []byte](s T, limit int, invalid rune) (line string, cut bool) {
	out := make([]byte, 0, min(len(s), limit)+len("..."))
	spaces := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
		i += n
		switch {
		case r == utf8.RuneError && n <= 1:
			r = invalid
		case harmful(r):
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

// EscapeJSON returns the JSON text b, which it may change, with each harmful character outside of ASCII, and DEL,
// as its \u escape: the document means the same, and a terminal that shows it only shows text. In valid JSON such
// characters are in strings only, and the other control characters are escaped already.
func EscapeJSON(b []byte) []byte {
	first := firstEscape(b)
	if first == len(b) {
		return b
	}
	out := append(make([]byte, 0, len(b)+64), b[:first]...)
	for i := first; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == utf8.RuneError && n <= 1, r >= 0x7f && harmful(r):
			out = appendEscape(out, r)
		default:
			out = append(out, b[i:i+n]...)
		}
		i += n
	}
	return out
}

// firstEscape returns where in b the first byte is that may have to be escaped, len(b) for none.
func firstEscape(b []byte) int {
	for i, c := range b {
		if c >= 0x7f {
			return i
		}
	}
	return len(b)
}

// appendEscape appends r as JSON escapes it, as two surrogates beyond U+FFFF.
func appendEscape(out []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	if r > math.MaxUint16 {
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(out, high), low)
	}
	return append(out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
