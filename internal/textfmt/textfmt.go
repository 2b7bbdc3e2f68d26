// Package textfmt formats text for people: durations, counts, and texts from outside without harmful characters.
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
