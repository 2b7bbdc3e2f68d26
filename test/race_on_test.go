//go:build race

package test

// raceEnabled reports whether the test binary has the race detector. The daemon is then built with it as well.
const raceEnabled = true
