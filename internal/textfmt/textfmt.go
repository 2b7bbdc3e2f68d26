// Package textfmt formats text for people: durations, counts, and texts from outside without harmful characters. It also
// compares misspelt names.
package textfmt

import (
	"fmt"
	"strconv"
	"time"
)

// Duration formats d as Seconds does.
func Duration(d time.Duration) string { return Seconds(d.Seconds()) }

// Seconds formats a number of seconds in its two largest units: 59s, 2m05s, 1h00m, 3d07h. It rounds to a second first,
// so that 7199.9 is 2h00m. A negative number is 0s.
func Seconds(seconds float64) string {
	switch s := int64(max(seconds, 0) + 0.5); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// Count formats a number of things whose plural ends in s: "1 session", "2 sessions".
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// EditDistance returns the number of bytes to insert, delete or change to turn a into b (Levenshtein). Its time is the
// product of both lengths, so limit the length of input first.
func EditDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
