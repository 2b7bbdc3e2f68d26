// Package health is the judge: it puts together what operators say and what the service itself says
// about one target. Overrides first, then the cached check. Every door asks it and translates its
// Verdict into the door's own dialect.
package health

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/spool"
)

// Overrides tells what operators have said; *spool.Index does.
type Overrides interface {
	Lookup(service, host string, port uint16, here bool) spool.View
}

// Options are what a Judge needs. Checks and Overrides must be set.
type Options struct {
	Overrides Overrides
	Checks    check.Set

	CacheTime       time.Duration // how long a result is kept, from the end of its check
	CacheTimeDown   time.Duration // the same for results that are not 200
	CacheMaxEntries int
	CacheMaxBytes   int64

	Timeout    time.Duration // of a check, waiting for its turn included, and of each asker's patience
	MaxClients int           // checks at once

	// Doors are the ports at which this daemon itself is asked. Few checks of them run at once: a URL of a
	// check of a check of a check, and so on, would otherwise take all of MaxClients by one request.
	Doors []uint16
	// Allowed are the other hosts that may be asked (check_hosts_allowed).
	Allowed []netip.Prefix
	// IgnoreOverrides leaves Drain, Down and Maint to the agent (-S); spool, force-up and whoever asks to Obey
	// still obey them.
	IgnoreOverrides bool

	// OnResult is told of each check that has run, and when that began to wait for its turn; never of a
	// kept result. It may be nil, is called from many goroutines, must not block and must not keep t.
	OnResult func(t *check.Target, r check.Result, began time.Time)

	// Counters are told of every answer and every check; nil: of none.
	Counters *Counters

	Log *slog.Logger
}

// Ask is one question to the Judge.
type Ask struct {
	Target check.Target // Host and Port as they are to be dialled; its memory may be reused after Verdict
	Here   bool         // Host is this machine
	Fresh  bool         // a kept result does not count
	Alone  bool         // besides, no other asker's check is joined, and the result is not kept
	Obey   bool         // overrides count whatever Options.IgnoreOverrides says
}

// Verdict is the answer.
type Verdict struct {
	State    spool.State   // what operators say; Ready when the service itself was to decide
	Result   check.Result  // the code and text to pass on, whatever decided
	Override *spool.Entry  // the override that decided; nil when none did
	Cache    cache.Outcome // how the service's answer was come by
	Age      time.Duration // since the end of the check; 0 when it is new or nothing was asked

	protocol *protocol // of Known's
}

// Judge answers asks. It is safe for concurrent use and owns no goroutine but those of checks in flight.
type Judge struct {
	o       Options
	checks  map[string]*protocol // with timeout and limit around them
	results *cache.Cache[check.Result]
	waiting atomic.Int64 // flights, in their turn or not
	inward  atomic.Int64 // of these, those that ask this daemon itself
	busy    atomic.Uint64
	changes changes
}

// protocol is one that may be asked about.
type protocol struct {
	check.Protocol
	*protocolCounters
}

// maxWaiting is how many checks beyond MaxClients may wait for their turn. Each costs two goroutines
// and a connection; past it the answer "busy" is better given at once.
const maxWaiting = 4096

// maxInward is how many checks of Options.Doors run at once.
const maxInward = 16

// patience is how much longer an asker waits than a check may take, so that it hears from the check
// itself why it failed.
const patience = 200 * time.Millisecond

// New returns a Judge.
func New(o Options) *Judge {
	j := &Judge{o: o}
	j.changes.log, j.changes.seed = o.Log, maphash.MakeSeed()
	if j.o.Counters == nil {
		j.o.Counters = NewCounters(o.Checks)
	}
	j.checks = make(map[string]*protocol, len(o.Checks))
	for name, p := range o.Checks.Wrap(j.guard, check.Timeout(o.Timeout), check.Limit(o.MaxClients)) {
		j.checks[name] = &protocol{p, j.o.Counters.protocols[name]}
	}
	j.results = cache.New(cache.Options[check.Result]{
		Life: func(r check.Result) time.Duration {
			switch {
			case r.Reason == check.ReasonBusy || r.Reason == check.ReasonCancelled:
				return -1
			case r.Code == http.StatusOK:
				return o.CacheTime
			}
			return o.CacheTimeDown
		},
		Size: func(key string, r check.Result) int {
			// The bound is one of bodies; a key counts only where it is long enough to be abused as one.
			return len(r.Body) + max(0, len(key)-256)
		},
		Pack:       pack,
		MaxEntries: o.CacheMaxEntries,
		MaxBytes:   o.CacheMaxBytes,
	})
	return j
}

// guard keeps a check that panics, in a driver say, from taking the daemon with it.
func (j *Judge) guard(f check.Func) check.Func {
	return func(ctx context.Context, t check.Target) (r check.Result) {
		defer func() {
			if p := recover(); p != nil {
				j.o.Log.Error("check panicked; this is a bug in hacheck or a driver", "protocol", t.Protocol,
					"service", t.Service, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				r = check.Result{
					Code: http.StatusServiceUnavailable, Reason: check.ReasonProtocol,
					Body: []byte("The check failed inside hacheck; its log says where"), Err: fmt.Errorf("panic: %v", p),
				}
			}
		}()
		return f(ctx, t)
	}
}

// Verdict judges a. It returns when it knows or when Options.Timeout has passed, and does not hurry when
// ctx ends: a check answers whoever still listens.
func (j *Judge) Verdict(ctx context.Context, a *Ask) Verdict {
	p := j.checks[a.Target.Protocol]
	if p == nil {
		return refuse(http.StatusNotFound, check.ReasonConfig, "No such protocol: "+a.Target.Protocol)
	}
	v, q := j.decide(a, p)
	switch {
	case q == nil:
	case a.Alone:
		v = Verdict{Result: j.run(a.Target.Clone(), q), Cache: cache.Bypass}
	default:
		v = j.ask(ctx, a.Target.Clone(), q, a.Fresh)
	}
	j.o.Counters.answered(p, &v)
	return v
}

// Known judges a if that needs no check, because an override, a refusal or a kept result decides; otherwise it
// returns false. Whoever answers with the verdict calls Answered. It does not block.
func (j *Judge) Known(a *Ask) (Verdict, bool) {
	p := j.checks[a.Target.Protocol]
	if p == nil {
		return Verdict{}, false
	}
	v, q := j.decide(a, p)
	v.protocol = p
	return v, q == nil
}

// Answered counts an answer with a verdict of Known.
func (j *Judge) Answered(v *Verdict) { j.o.Counters.answered(v.protocol, v) }

// query is what is to be asked of the service, as the cache knows it.
type query struct {
	*protocol
	key    string
	at     cache.Epoch
	inward bool
}

// decide returns the verdict, or else the query that leads to one.
func (j *Judge) decide(a *Ask, p *protocol) (Verdict, *query) {
	t := &a.Target
	view := j.o.Overrides.Lookup(t.Service, t.Host, t.Port, a.Here)
	if o := view.Override; o != nil && (!j.o.IgnoreOverrides || a.Obey || p.Check == nil || o.State == spool.ForceUp) {
		return overridden(o, p.Check == nil), nil
	}
	switch {
	case p.Check == nil:
		return Verdict{Result: check.Result{Code: http.StatusOK}}, nil
	case t.Port == 0 && !p.NoPort:
		return refuse(http.StatusBadRequest, check.ReasonConfig,
			"No port to check: the URL says 0 and no X-Haproxy-Server-State header gives one; add \"http-check send-state\" to the HAProxy backend, or name the port in the URL"), nil
	case !a.Here && !j.allowed(t.Host):
		j.changes.stranger(t)
		return refuse(http.StatusForbidden, check.ReasonForbidden,
			t.Host+" is not an address of this machine; to have it checked, add it to check_hosts_allowed"), nil
	}

	at := cache.Epoch{Now: view.Epoch, Ended: view.Ended}
	var buf [256]byte
	key := j.key(buf[:0], t, p.PerService)
	if !a.Fresh && !a.Alone {
		// A string of the bytes as they are: Get keeps none, and a copy would be the only garbage that an
		// answer from memory leaves behind.
		if e, age, ok := j.results.Get(unsafe.String(unsafe.SliceData(key), len(key)), at); ok { //nolint:gosec // see above
			return Verdict{Result: e.Value, Cache: cache.Hit, Age: age}, nil
		}
	}
	return Verdict{}, &query{p, string(key), at, a.Here && slices.Contains(j.o.Doors, t.Port)}
}

// pack puts a key and the body of its result next to each other, so that an answer from memory fetches
// one place less from it.
func pack(key string, r check.Result) (string, check.Result) {
	b := make([]byte, 0, len(key)+len(r.Body))
	b = append(append(b, key...), r.Body...)
	key, r.Body = unsafe.String(unsafe.SliceData(b), len(key)), b[len(key):] //nolint:gosec // b is never written again
	return key, r
}

func (j *Judge) ask(ctx context.Context, t check.Target, q *query, fresh bool) Verdict {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.o.Timeout+patience)
	defer cancel()
	e, outcome, err := j.results.Do(ctx, q.key, q.at, fresh, func() check.Result { return j.run(t, q) })
	if err != nil {
		j.busy.Add(1)
		return Verdict{Result: busy("no answer from the check within " + j.o.Timeout.String()), Cache: outcome}
	}
	if e.Value.Reason == check.ReasonBusy {
		j.busy.Add(1)
	}
	return Verdict{Result: e.Value, Cache: outcome, Age: time.Since(e.Taken)}
}

// run asks the service.
func (j *Judge) run(t check.Target, q *query) check.Result {
	if j.waiting.Add(1) > int64(j.o.MaxClients+maxWaiting) {
		j.waiting.Add(-1)
		return busy("too many checks are waiting already")
	}
	defer j.waiting.Add(-1)
	if q.inward {
		defer j.inward.Add(-1)
		if j.inward.Add(1) > maxInward {
			return busy("too many checks ask hacheck itself")
		}
	}
	began := time.Now()
	r := q.Check(context.Background(), t)
	if r.Reason != check.ReasonBusy && r.Reason != check.ReasonCancelled {
		q.ran(r.Took)
	}
	j.changes.note(q.key, &t, r)
	if j.o.OnResult != nil {
		j.o.OnResult(&t, r, began)
	}
	return r
}

// key identifies what is asked, whoever asks: everything that reaches the service. The parts are
// separated by bytes that no part can hold.
func (j *Judge) key(b []byte, t *check.Target, perService bool) []byte {
	b = append(b, t.Protocol...)
	b = append(b, 0, byte(t.Port>>8), byte(t.Port))
	b = append(b, t.Host...)
	b = append(b, 0)
	b = append(b, t.URI...)
	if perService {
		b = append(b, 0)
		b = append(b, t.Service...)
	}
	for i := range t.Header {
		b = append(b, 0)
		b = append(b, t.Header[i].Name...)
		b = append(b, ':')
		b = append(b, t.Header[i].Value...)
	}
	return b
}

func (j *Judge) allowed(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, p := range j.o.Allowed {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Stats are counters, and what is under way now.
type Stats struct {
	Cache    cache.Stats            // since the Judge was made
	Answers  [cache.Outcomes]uint64 // how they were come by, as long as Options.Counters count
	InFlight int                    // checks under way or waiting for their turn
	Waiting  int                    // of these, those that wait
	Busy     uint64                 // answers given up for want of a slot or of time
}

// Stats returns the counters.
func (j *Judge) Stats() Stats {
	s := Stats{Cache: j.results.Stats(), InFlight: int(j.waiting.Load()), Busy: j.busy.Load()}
	s.Waiting = max(0, s.InFlight-j.o.MaxClients)
	for i := range s.Answers {
		s.Answers[i] = j.o.Counters.cache[i].Load()
	}
	return s
}

func overridden(o *spool.Entry, spoolOnly bool) Verdict {
	v := Verdict{State: o.State, Override: o}
	switch o.State {
	case spool.ForceUp:
		v.Result.Code = http.StatusOK
		if !spoolOnly {
			v.Result.Body = []byte("OK")
		}
	case spool.Drain:
		v.Result.Code, v.Result.Body = http.StatusNotFound, []byte(o.Line())
	default:
		v.Result.Code, v.Result.Body = http.StatusServiceUnavailable, []byte(o.Line())
	}
	return v
}

func refuse(code int, why check.Reason, sentence string) Verdict {
	return Verdict{Result: check.Result{Code: code, Reason: why, Body: []byte(sentence), Err: errors.New(sentence)}}
}

func busy(why string) check.Result {
	return check.Result{
		Code: http.StatusServiceUnavailable, Reason: check.ReasonBusy,
		Body: []byte("hacheck is busy: " + why), Err: errors.New("busy: " + why),
	}
}
