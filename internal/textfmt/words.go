// Package textfmt holds what the commands and the pages say alike: a text that came from elsewhere as harmless
// text, a length of time, a count, and how far a misspelt name is from the right one.
package textfmt

import (
	"fmt"
	"strconv"
	"time"
)

// Duration is Seconds of a duration.
func Duration(d time.Duration) string { return Seconds(d.Seconds()) }

// Seconds writes a length of time as a person reads it, in the two largest units that matter: 59s, 2m05s,
// 1h00m, 3d07h. It is rounded to a second, for what ends in two hours shall not read 1h59m, and a negative one
// is 0s.
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

// Count counts things whose plural ends in s: "1 session", "2 sessions".
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// EditDistance is how many bytes have to be put in, taken out or changed to make b of a (Levenshtein). The work
// grows with the product of their lengths: bound what comes from elsewhere first.
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
