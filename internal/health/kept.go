package health

import (
	"time"
	"unique"
	"unsafe"

	"hacheck/internal/check"
)

// kept is a check.Result as the cache has it. There may be 100,000 of them, so it is small: 40 bytes, with which an
// entry of the cache is one line of memory.
type kept struct {
	body        string // of a check.Result, whose memory this is
	contentType unique.Handle[string]
	rest        *rest  // nil for most
	took        uint32 // µs, rounded up
	code        uint16
	reason      check.Reason
}

// rest is what few results have.
type rest struct {
	err   error
	parts []check.NamedResult
}

func keep(r check.Result) kept {
	const µs = time.Microsecond
	k := kept{
		body:        unsafe.String(unsafe.SliceData(r.Body), len(r.Body)), //nolint:gosec // nobody changes a body
		contentType: unique.Make(r.ContentType),
		took:        uint32(min(max((r.Took+µs-1)/µs, 0), 1<<32-1)),
		code:        uint16(r.Code),
		reason:      r.Reason,
	}
	if r.Err != nil || r.Parts != nil {
		k.rest = &rest{r.Err, r.Parts}
	}
	return k
}

func (k *kept) result() check.Result {
	r := check.Result{
		Code: int(k.code), Body: unsafe.Slice(unsafe.StringData(k.body), len(k.body)), //nolint:gosec // nobody changes a body
		ContentType: k.contentType.Value(), Reason: k.reason, Took: time.Duration(k.took) * time.Microsecond,
	}
	if k.rest != nil {
		r.Err, r.Parts = k.rest.err, k.rest.parts
	}
	return r
}

// life is how long k is kept.
func (o *Options) life(k kept) time.Duration {
	switch {
	case k.reason == check.ReasonBusy || k.reason == check.ReasonCancelled:
		return -1
	case k.code == 200:
		return o.CacheTime
	}
	return o.CacheTimeDown
}

// size is what k counts against the bound of the cache, which is one of bodies; a key counts only where it is long
// enough to be abused as one.
func size(key string, k kept) int { return len(k.body) + max(0, len(key)-256) }
