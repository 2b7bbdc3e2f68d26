package admin

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// parsePort reads a TCP port, 1 to 65535, decimal.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("want a port from 1 to 65535")
	}
	return uint16(n), nil
}

// parseUnix reads seconds since 1970, with or without a fraction.
func parseUnix(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, errors.New("want a unix time in seconds; to end in half an hour write --for 30m")
	case math.IsNaN(f) || math.IsInf(f, 0):
		return 0, errors.New("that moment never comes; leave -e away, or write --for 30m to end in half an hour")
	case f > maxUnix:
		return 0, errors.New("that is after the year 9999; want seconds, not milliseconds, or --for 30m")
	}
	return f, nil
}

// maxUnix is the last second of the year 9999. A larger number is probably in milliseconds.
const maxUnix = 253402300799

var (
	errNoDuration = errors.New("want a number with a unit (s, m, h, d or w): 90s, 30m, 2h30m, 1d")
	errTooLong    = errors.New("that is more than a hundred years; leave --for away and it ends with haup")
)

// parseDuration reads a positive duration as time.ParseDuration does, with the units s, m, h, d (24 hours) and w.
func parseDuration(s string) (time.Duration, error) {
	const longest = 100 * 365 * 86400.0
	units := map[byte]float64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}
	seconds := 0.0
	for rest := s; rest != ""; {
		n := strings.IndexAny(rest, "smhdw")
		if n < 0 || strings.Trim(rest[:n], "0123456789.") != "" {
			return 0, errNoDuration
		}
		number, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, errNoDuration
		}
		if seconds += number * units[rest[n]]; seconds > longest {
			return 0, errTooLong
		}
		rest = rest[n+1:]
	}
	if seconds <= 0 {
		return 0, errors.New("want more than nothing: 90s, 30m, 2h30m, 1d")
	}
	return time.Duration(seconds * float64(time.Second)), nil
}
