package daemon

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// TestTuneGC: GOGC follows the size of the heap both ways, after collections alone.
func TestTuneGC(t *testing.T) {
	t.Setenv("GOGC", "")
	tuneGC()
	now := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	large := make([]byte, 8*gcSmallHeap)
	waitUntil(t, "a large heap", func() bool { runtime.GC(); return now() == gcLarge })
	runtime.KeepAlive(large)
	waitUntil(t, "a small heap", func() bool { runtime.GC(); return now() == gcSmall })
}
