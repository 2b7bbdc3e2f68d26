package daemon

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// TestTuneCollector: a large heap grows less between collections than a small one, and it is noticed both ways
// without anybody looking.
func TestTuneCollector(t *testing.T) {
	t.Setenv("GOGC", "")
	tuneCollector()
	now := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	large := make([]byte, 8*gcSmallHeap)
	until(t, "a large heap", func() bool { runtime.GC(); return now() == gcLarge })
	runtime.KeepAlive(large)
	until(t, "a small heap", func() bool { runtime.GC(); return now() == gcSmall })
}
