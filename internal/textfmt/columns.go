package textfmt

import (
	"unicode"

	"golang.org/x/text/width"
)

// Columns returns how many columns of a terminal text takes: two for a wide character, such as 中, and none for a
// combining one.
func Columns(text string) int {
	n := 0
	for _, r := range text {
		n += columns(r)
	}
	return n
}

func columns(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// TruncateColumns cuts a line to that many columns of a terminal. It ends a line that it has cut with three dots.
func TruncateColumns(line string, most int) string {
	if Columns(line) <= most {
		return line
	}
	dots := "..."
	if most <= len(dots) {
		dots = ""
	}
	left := most - len(dots)
	for i, r := range line {
		if left -= columns(r); left < 0 {
			return line[:i] + dots
		}
	}
	return line
}
