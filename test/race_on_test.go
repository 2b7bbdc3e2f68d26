//go:build race

package test

// underRace: the test binary has the race detector, so the commands it builds get it too.
const underRace = true
