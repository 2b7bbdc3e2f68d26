package checktest_test

import (
	"testing"

	"hacheck/test/checktest"
)

func TestShowsBug(t *testing.T) {
	for output, want := range map[string]bool{
		"panic: on purpose\n\ngoroutine 1 [running]:":             true,
		"fatal error: sync: unlock\npanic: again":                 true,
		`level=ERROR msg="check panicked; this is a bug"`:         true,
		"http: panic serving 127.0.0.1:1: boom":                   true,
		"WARNING: DATA RACE":                                      true,
		"SIGSYS: bad system call\n\t/go/src/runtime/panic.go:658": false,
		"level=INFO msg=\"hacheck answers\"":                      false,
	} {
		if got := checktest.ShowsBug(output); got != want {
			t.Errorf("%q: %v, want %v", output, got, want)
		}
	}
}
