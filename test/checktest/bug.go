package checktest

import "regexp"

var bug = regexp.MustCompile(`panic: |panicked|panic serving|DATA RACE`)

// ShowsBug reports whether the output of a daemon shows a panic, also a recovered one, or a data race. The stack of a daemon
// that a signal has ended may name runtime/panic.go, which is none.
func ShowsBug(output string) bool { return bug.MatchString(output) }
