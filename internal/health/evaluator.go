// Package health evaluates one target: the override of an operator decides first, then the cached result of a check,
// then a new check. A Verdict is an HTTP answer; an endpoint that speaks another protocol translates it. The package
// serves no connections and reads no files.
package health

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// Overrides looks up the override in force for a target; *spool.Index does.
type Overrides interface {
	Lookup(service, host string, port uint16, local bool) spool.View
}

// Options configure an Evaluator. Overrides and Checks are required.
type Options struct {
	Overrides Overrides
	Checks    check.Set

	CacheTime       time.Duration // how long a result is cached, from the end of its check
	CacheTimeDown   time.Duration // the same for results with another code than 200
	CacheMaxEntries int
	CacheMaxBytes   int64

	Timeout    time.Duration // of a check, with its wait for a slot
	MaxClients int           // checks that run at the same time

	// CheckHostsAllowed are the other hosts that may be checked (check_hosts_allowed).
	CheckHostsAllowed []netip.Prefix
	// IgnoreOverrides (-S): drain, down and maint decide only /spool and requests with ForceOverrides. ForceUp decides
	// every request.
	IgnoreOverrides bool

	// OnResult is called after each check with its target and the time at which it began to wait for a slot. t has only
	// what reached the check: no port if the check does not use it. OnResult may be nil. It must be safe for concurrent
	// use, must not block and must not keep t.
	OnResult func(t *check.Target, r check.Result, began time.Time)

	// Counters count answers and checks; nil counts nothing that outlives the Evaluator.
	Counters *Counters

	Log *slog.Logger
	// LogLimit limits the log lines about services; nil does not limit them.
	LogLimit *loglimit.Limiter
}

// Request asks for the health of one target.
type Request struct {
	Target         check.Target // Host and Port to connect to; the caller may reuse its memory after Evaluate
	Local          bool         // Host is an address of this machine
	NoCache        bool         // a cached result does not count
	NoShare        bool         // NoCache, and the check is neither shared with another request nor cached
	ForceOverrides bool         // overrides decide even with Options.IgnoreOverrides
	Client         string       // the address of the client without a port, for the log; "" if it is not known
}

// Evaluator evaluates requests. It is safe for concurrent use. Its only goroutines are those of checks in flight.
type Evaluator struct {
	o        Options
	checks   map[string]*protocol // with the timeout and the limit around them
	results  *cache.Cache[check.Result]
	limiter  *check.Limiter
	inFlight atomic.Int64 // checks that run or wait for a slot, without renewals
	busy     atomic.Uint64
	log      transitionLog

	renewals         context.Context // ends with StopRenewals
	stopRenewals     context.CancelFunc
	renewalsInFlight atomic.Int64
}

// protocol is a check with its counters.
type protocol struct {
	check.Protocol
	renew check.Func // Check, limited as a renewal; nil if Check is nil
	*protocolCounters
}

// New returns an Evaluator.
func New(o Options) *Evaluator {
	e := &Evaluator{o: o, limiter: check.NewLimiter(o.MaxClients)}
	e.log = transitionLog{log: o.Log, limit: o.LogLimit, seed: maphash.MakeSeed()}
	if e.o.Counters == nil {
		e.o.Counters = NewCounters(o.Checks)
	}
	e.checks = make(map[string]*protocol, len(o.Checks))
	renew := o.Checks.Wrap(e.recoverPanic, check.Timeout(o.Timeout), e.limiter.WrapBackground)
	for name, p := range o.Checks.Wrap(e.recoverPanic, check.Timeout(o.Timeout), e.limiter.Wrap) {
		e.checks[name] = &protocol{p, renew[name].Check, e.o.Counters.protocols[name]}
	}
	e.results = cache.New(cache.Options[check.Result]{
		TTL: e.o.ttl, RenewAfter: renewAfter, Size: size, MaxEntries: o.CacheMaxEntries, MaxBytes: o.CacheMaxBytes,
	})
	e.renewals, e.stopRenewals = context.WithCancel(context.Background())
	return e
}

// recoverPanic returns f with a recover around it: a panic in a check or its driver is a failed check and does not end
// the daemon.
func (e *Evaluator) recoverPanic(f check.Func) check.Func {
	return func(ctx context.Context, t check.Target) (r check.Result) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			const message = "check panicked; this is a bug in hacheck or a driver"
			if e.o.LogLimit.Allow(loglimit.Target, "the protocol "+t.Protocol, message) {
				e.o.Log.Error(message, "protocol", t.Protocol,
					"service", t.Service, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
			r = check.Result{
				Code: http.StatusServiceUnavailable, Reason: check.ReasonProtocol,
				Body: []byte("The check failed inside hacheck; its log says where"), Err: fmt.Errorf("panic: %v", p),
			}
		}()
		return f(ctx, t)
	}
}

// Evaluate returns the verdict on r and counts it. It blocks until the check has finished or Options.Timeout has
// passed. It does not return earlier when the client disconnects, because other clients may share the check.
func (e *Evaluator) Evaluate(r *Request) Verdict {
	v, pending := e.Cached(r)
	if pending != nil {
		return e.RunCheck(r, pending)
	}
	e.Count(&v)
	return v
}

// Cached returns the verdict on r if an override, a rejected request or a cached result decides; a caller that answers
// with it must call Count. Otherwise Cached returns the check to run, for RunCheck. It does not block. If a cached result
// decides that expires soon, Cached begins its renewal on another goroutine.
func (e *Evaluator) Cached(r *Request) (Verdict, *PendingCheck) {
	p := e.checks[r.Target.Protocol]
	if p == nil {
		return reject(http.StatusNotFound, check.ReasonConfig, "No such protocol: "+r.Target.Protocol), nil
	}
	v, pending := e.decide(r, p)
	v.protocol = p
	return v, pending
}

// Count counts an answer with a verdict of Cached.
func (e *Evaluator) Count(v *Verdict) {
	if v.protocol != nil {
		e.o.Counters.countAnswer(v.protocol, v)
	}
}

// PendingCheck is the check that Cached needs before it can answer. RunCheck runs it.
type PendingCheck struct {
	*protocol
	key        string
	generation cache.Generation
}

// decide returns the verdict on r, or the check that r needs.
func (e *Evaluator) decide(r *Request, p *protocol) (Verdict, *PendingCheck) {
	t := &r.Target
	view := e.o.Overrides.Lookup(t.Service, t.Host, t.Port, r.Local)
	if o := view.Override; o != nil && (!e.o.IgnoreOverrides || r.ForceOverrides || p.Check == nil || o.State == spool.ForceUp) {
		return overrideVerdict(o, p.Check == nil), nil
	}
	if p.Check == nil { // the protocol spool
		return Verdict{Result: check.Result{Code: http.StatusOK}}, nil
	}
	if v, rejected := e.rejected(r, p); rejected {
		return v, nil
	}

	at := cache.Generation{Current: view.Generation, Min: view.MinGeneration}
	var buf [256]byte
	key := appendKey(buf[:0], p, t)
	if !r.NoCache && !r.NoShare {
		if hit, ok := e.results.Get(string(key), at); ok {
			if hit.Renew {
				go e.renew(t.Clone(), &PendingCheck{p, string(key), at})
			}
			return Verdict{Result: *hit.Value, Cache: cache.Hit, Age: hit.Age}, nil
		}
	}
	return Verdict{}, &PendingCheck{p, string(key), at}
}

// RunCheck runs the check that Cached has returned for r, or waits for the same check of another request, and counts
// the answer.
func (e *Evaluator) RunCheck(r *Request, p *PendingCheck) (v Verdict) {
	t := r.Target.Clone()
	switch {
	case r.NoShare:
		v = Verdict{Result: e.runForClient(t, p), Cache: cache.Bypass}
	case p.MayExceedTimeout:
		v = e.runDetached(t, p, r.NoCache)
	default:
		v = e.runShared(t, p, r.NoCache)
	}
	if v.Result.Reason == check.ReasonBusy && !r.NoShare {
		e.busy.Add(1)
	}
	v.protocol = p.protocol
	e.Count(&v)
	return v
}

// runShared runs the check on this goroutine, or waits for a request that runs it.
func (e *Evaluator) runShared(t check.Target, p *PendingCheck, noCache bool) Verdict {
	do := e.results.Do
	if noCache {
		do = e.results.DoFresh
	}
	result, age, status, ok := do(p.key, p.generation, e.waitLimit(), func() check.Result { return e.runForClient(t, p) })
	if !ok {
		return e.timedOut(status)
	}
	return Verdict{Result: *result, Cache: status, Age: age}
}

// runDetached is runShared for checks that may exceed their timeout: it does not wait for them longer than the wait
// limit.
func (e *Evaluator) runDetached(t check.Target, p *PendingCheck, noCache bool) Verdict {
	verdict := make(chan Verdict, 1)
	go func() { verdict <- e.runShared(t, p, noCache) }()
	timeout := time.NewTimer(e.waitLimit())
	defer timeout.Stop()
	select {
	case v := <-verdict:
		return v
	case <-timeout.C:
		if noCache {
			return e.timedOut(cache.Bypass)
		}
		return e.timedOut(cache.Miss)
	}
}

// waitLimit returns how long a request waits for a check. It is longer than the timeout of the check, so that the
// answer is the check's own reason.
func (e *Evaluator) waitLimit() time.Duration { return e.o.Timeout + 200*time.Millisecond }

func (e *Evaluator) timedOut(s cache.Status) Verdict {
	return Verdict{Result: busy("no answer from the check within " + e.o.Timeout.String()), Cache: s}
}

// runForClient runs a check that a client waits for. It has no context of the client, because other clients may share
// the check.
func (e *Evaluator) runForClient(t check.Target, p *PendingCheck) check.Result {
	e.inFlight.Add(1)
	defer e.inFlight.Add(-1)
	return e.run(context.Background(), t, p, p.Check)
}

// run runs f, which is a check of t, records how long it took and logs a change of its result.
func (e *Evaluator) run(ctx context.Context, t check.Target, p *PendingCheck, f check.Func) check.Result {
	reached := t
	if p.Canonical != nil {
		reached = p.Canonical(t)
	}
	began := time.Now()
	r := f(ctx, reached)
	if ctx.Err() != nil {
		r.Reason = check.ReasonCancelled // also if the check blames the service
	}
	if r.Reason != check.ReasonBusy && r.Reason != check.ReasonCancelled {
		p.countCheck(r.Took)
	}
	e.log.record(p.key, &t, r)
	if e.o.OnResult != nil {
		e.o.OnResult(&reached, r, began)
	}
	return r
}

// Stats are counters and the load now.
type Stats struct {
	Cache    cache.Stats               // since New
	Answers  [cache.NumStatuses]uint64 // by where they came from, for the life of Options.Counters
	InFlight int                       // checks that run or wait for a slot, without renewals
	Renewals Renewals                  // for the life of Options.Counters; its InFlight is the number now
	Waiting  int                       // checks that wait for a slot
	Busy     uint64                    // answers without a result: no slot was free, or the check did not finish in time
}

// Stats returns the counters.
func (e *Evaluator) Stats() Stats {
	s := Stats{Cache: e.results.Stats(), InFlight: int(e.inFlight.Load()), Waiting: e.limiter.Waiting(), Busy: e.busy.Load()}
	s.Renewals = Renewals{Done: e.o.Counters.renewalsDone.Load(), Busy: e.o.Counters.renewalsBusy.Load(), InFlight: int(e.renewalsInFlight.Load())}
	for i := range s.Answers {
		s.Answers[i] = e.o.Counters.cache[i].Load()
	}
	return s
}
