package health

import (
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hacheck/internal/check"
)

// TestKept: what comes out of the cache is what went in, but for the nanoseconds, and is small.
func TestKept(t *testing.T) {
	failed := errors.New("why")
	for name, r := range map[string]check.Result{
		"empty":   {Code: 204},
		"healthy": {Code: 200, Body: []byte("OK"), ContentType: "text/html; charset=latin1", Took: 1234 * time.Microsecond},
		"failed":  {Code: 503, Body: []byte("Connection refused"), Reason: check.ReasonRefused, Err: failed, Took: time.Microsecond},
		"parts":   {Code: 504, Reason: check.ReasonFailed, Err: failed, Parts: []check.NamedResult{{Name: "a", Result: check.Result{Code: 503, Err: failed}}}},
	} {
		k := keep(r)
		if d := cmp.Diff(r, k.result(), cmpopts.EquateErrors(), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-in +out):\n%s", name, d)
		}
	}
	if k := keep(check.Result{Took: 1}); k.result().Took != time.Microsecond {
		t.Errorf("a check that took a nanosecond took %v: 0 means that nothing was asked", k.result().Took)
	}
	if k := keep(check.Result{Took: 1 << 62}); k.took != 1<<32-1 {
		t.Errorf("a very long check took %d µs", k.took)
	}
	if n := unsafe.Sizeof(kept{}); n > 40 {
		t.Errorf("%d bytes: an entry of the cache is more than a line of memory", n)
	}
}
