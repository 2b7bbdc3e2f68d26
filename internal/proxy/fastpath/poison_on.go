//go:build poison

package proxy

import (
	"hacheck/internal/check"
	"hacheck/internal/health"
)

// With the build tag "poison" every buffer is overwritten as soon as its request is answered, so that a test sees at
// once when something still reads it. `make test` and `make fuzz` build with it.

// poison overwrites a buffer whose request is answered.
func poison(b []byte) {
	for i := range b {
		b[i] = '!'
	}
}

// poison overwrites what the pool hands to another request.
func (q *question) poison() {
	bad := check.Field{Name: "Poison", Value: "poison"}
	for i := range q.fields {
		q.fields[i] = bad
	}
	q.ask = health.Request{Target: check.Target{Protocol: "poison", Service: "poison", Host: "poison", URI: "/poison"}}
}
