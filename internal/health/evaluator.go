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
	"sync/atomic"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/loglimit"
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

	// Allowed are the other hosts that may be asked (check_hosts_allowed).
	Allowed []netip.Prefix
	// IgnoreOverrides leaves Drain, Down and Maint to the agent (-S); spool, force-up and whoever asks to Obey
	// still obey them.
	IgnoreOverrides bool

	// OnResult is told of each check that has run, and when that began to wait for its turn; never of a
	// kept result. t has what reached the check: no port if the check does not depend on it. It may be nil, is called from many goroutines, must not block and must not keep t.
	OnResult func(t *check.Target, r check.Result, began time.Time)

	// Counters are told of every answer and every check; nil: of none.
	Counters *Counters

	Log *slog.Logger
	// LogLimit limits the lines about services; nil: they are not limited.
	LogLimit *loglimit.Limiter
}

// Request is one question to the Judge.
type Request struct {
	Target         check.Target // Host and Port as they are to be dialled; its memory may be reused after Verdict
	Local          bool         // Host is this machine
	NoCache        bool         // a kept result does not count
	NoShare        bool         // besides, no other asker's check is joined, and the result is not kept
	ApplyOverrides bool         // overrides count whatever Options.IgnoreOverrides says
	Client         string       // the address that asks, without a port, for the log; "" if it is not known
}

// Verdict is the answer.
type Verdict struct {
	State    spool.State   // what operators say; Ready when the service itself was to decide
	Result   check.Result  // the code and text to pass on, whatever decided
	Override *spool.Entry  // the override that decided; nil when none did
	Cache    cache.Status  // how the service's answer was come by
	Age      time.Duration // since the end of the check; 0 when it is new or nothing was asked

	protocol *protocol // of Known's
}

// Evaluator answers asks. It is safe for concurrent use and owns no goroutine but those of checks in flight.
type Evaluator struct {
	o       Options
	checks  map[string]*protocol // with timeout and limit around them
	results *cache.Cache[kept]
	limiter *check.Limiter
	flying  atomic.Int64 // checks that run or wait for a slot
	busy    atomic.Uint64
	changes changes
}

// protocol is one that may be asked about.
type protocol struct {
	check.Protocol
	*protocolCounters
}

// New returns a Judge.
func New(o Options) *Evaluator {
	j := &Evaluator{o: o, limiter: check.NewLimiter(o.MaxClients)}
	j.changes.log, j.changes.limit, j.changes.seed = o.Log, o.LogLimit, maphash.MakeSeed()
	if j.o.Counters == nil {
		j.o.Counters = NewCounters(o.Checks)
	}
	j.checks = make(map[string]*protocol, len(o.Checks))
	for name, p := range o.Checks.Wrap(j.guard, check.Timeout(o.Timeout), j.limiter.Wrap) {
		j.checks[name] = &protocol{p, j.o.Counters.protocols[name]}
	}
	j.results = cache.New(cache.Options[kept]{
		TTL: j.o.life, Size: size, Text: func(k *kept) *string { return &k.body }, MaxEntries: o.CacheMaxEntries, MaxBytes: o.CacheMaxBytes,
	})
	return j
}

// guard keeps a check that panics, in a driver say, from taking the daemon with it.
func (j *Evaluator) guard(f check.Func) check.Func {
	return func(ctx context.Context, t check.Target) (r check.Result) {
		defer func() {
			if p := recover(); p != nil {
				const message = "check panicked; this is a bug in hacheck or a driver"
				if j.o.LogLimit.Allow(loglimit.Target, "the protocol "+t.Protocol, message) {
					j.o.Log.Error(message, "protocol", t.Protocol,
						"service", t.Service, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				}
				r = check.Result{
					Code: http.StatusServiceUnavailable, Reason: check.ReasonProtocol,
					Body: []byte("The check failed inside hacheck; its log says where"), Err: fmt.Errorf("panic: %v", p),
				}
			}
		}()
		return f(ctx, t)
	}
}

// Evaluate judges a. It returns when it knows or when Options.Timeout has passed, whether its asker still listens or
// not: others may have come to wait for the same check.
func (j *Evaluator) Evaluate(a *Request) Verdict {
	v, q := j.Cached(a)
	if q != nil {
		return j.RunCheck(a, q)
	}
	j.Count(&v)
	return v
}

// Cached judges a if that needs no check, because an override, a refusal or a kept result decides; whoever answers with
// the verdict then calls Answered. Otherwise it returns a query, for Settle. It does not block.
func (j *Evaluator) Cached(a *Request) (Verdict, *PendingCheck) {
	p := j.checks[a.Target.Protocol]
	if p == nil {
		return refuse(http.StatusNotFound, check.ReasonConfig, "No such protocol: "+a.Target.Protocol), nil
	}
	v, q := j.decide(a, p)
	v.protocol = p
	return v, q
}

// Count counts an answer with a verdict of Known.
func (j *Evaluator) Count(v *Verdict) {
	if v.protocol != nil {
		j.o.Counters.answered(v.protocol, v)
	}
}

// RunCheck is Verdict once Known has returned q for a.
func (j *Evaluator) RunCheck(a *Request, q *PendingCheck) (v Verdict) {
	if a.NoShare {
		v = Verdict{Result: j.run(a.Target.Clone(), q), Cache: cache.Bypass}
	} else {
		v = j.ask(a.Target.Clone(), q, a.NoCache)
	}
	v.protocol = q.protocol
	j.Count(&v)
	return v
}

// PendingCheck is what is to be asked of the service, as the cache knows it.
type PendingCheck struct {
	*protocol
	key string
	at  cache.Generation
}

// decide returns the verdict, or else the query that leads to one.
func (j *Evaluator) decide(a *Request, p *protocol) (Verdict, *PendingCheck) {
	t := &a.Target
	view := j.o.Overrides.Lookup(t.Service, t.Host, t.Port, a.Local)
	if o := view.Override; o != nil && (!j.o.IgnoreOverrides || a.ApplyOverrides || p.Check == nil || o.State == spool.ForceUp) {
		return overridden(o, p.Check == nil), nil
	}
	switch {
	case p.Check == nil:
		return Verdict{Result: check.Result{Code: http.StatusOK}}, nil
	case t.Port == 0 && !p.PortOptional:
		return refuse(http.StatusBadRequest, check.ReasonConfig,
			"No port to check: the URL says 0 and no X-Haproxy-Server-State header gives one; add \"http-check send-state\" to the HAProxy backend, or name the port in the URL"), nil
	case !a.Local && !j.allowed(t.Host):
		j.changes.refusedHost(a)
		return refuse(http.StatusForbidden, check.ReasonForbidden,
			t.Host+" is not an address of this machine; to have it checked, add it to check_hosts_allowed"), nil
	case t.Hops > check.MaxHops:
		return refuse(http.StatusServiceUnavailable, check.ReasonForbidden, tooManyHops), nil
	}

	at := cache.Generation{Current: view.Generation, Min: view.MinGeneration}
	var buf [256]byte
	key := string(appendKey(buf[:0], p, t))
	if !a.NoCache && !a.NoShare {
		if k, age, ok := j.results.Get(key, at); ok {
			return Verdict{Result: k.result(), Cache: cache.Hit, Age: age}, nil
		}
	}
	return Verdict{}, &PendingCheck{p, key, at}
}

// tooManyHops is the answer to a request that came through more checks than check.MaxHops.
var tooManyHops = fmt.Sprintf("Nothing was asked: too many checks ask hacheck itself, one for the other (%s is above %d, or is not a number); ask the service itself",
	check.HopsHeader, check.MaxHops)

// ask has the cache answer q, and waits no longer than an asker's patience lasts.
func (j *Evaluator) ask(t check.Target, q *PendingCheck, fresh bool) (v Verdict) {
	if q.MayExceedTimeout {
		v = j.askApart(t, q, fresh)
	} else {
		v = j.askHere(t, q, fresh)
	}
	if v.Result.Reason == check.ReasonBusy {
		j.busy.Add(1)
	}
	return v
}

// askHere asks the service, which takes no longer than a check may, or joins who does.
func (j *Evaluator) askHere(t check.Target, q *PendingCheck, fresh bool) Verdict {
	k, age, outcome, ok := j.results.Do(q.key, q.at, fresh, j.patience(), func() kept { return keep(j.run(t, q)) })
	if !ok {
		return j.tired(outcome)
	}
	return Verdict{Result: k.result(), Cache: outcome, Age: age}
}

// askApart is askHere for checks that may take longer than they may.
func (j *Evaluator) askApart(t check.Target, q *PendingCheck, fresh bool) Verdict {
	answer := make(chan Verdict, 1)
	go func() { answer <- j.askHere(t, q, fresh) }()
	tired := time.NewTimer(j.patience())
	defer tired.Stop()
	select {
	case v := <-answer:
		return v
	case <-tired.C:
		if fresh {
			return j.tired(cache.Bypass)
		}
		return j.tired(cache.Miss)
	}
}

// patience is how long an asker waits: longer than a check may take, so that it hears from the check itself why it
// failed.
func (j *Evaluator) patience() time.Duration { return j.o.Timeout + 200*time.Millisecond }

// tired is for who has waited that long.
func (j *Evaluator) tired(o cache.Status) Verdict {
	return Verdict{Result: busy("no answer from the check within " + j.o.Timeout.String()), Cache: o}
}

// run asks the service.
func (j *Evaluator) run(t check.Target, q *PendingCheck) check.Result {
	j.flying.Add(1)
	defer j.flying.Add(-1)
	reached := t
	if q.Canonical != nil {
		reached = q.Canonical(t)
	}
	began := time.Now()
	r := q.Check(context.Background(), reached)
	if r.Reason != check.ReasonBusy && r.Reason != check.ReasonCancelled {
		q.ran(r.Took)
	}
	j.changes.note(q.key, &t, r)
	if j.o.OnResult != nil {
		j.o.OnResult(&reached, r, began)
	}
	return r
}

// appendKey appends what identifies a check, whoever asks for it: everything that reaches the service. The parts are
// separated by bytes that no part can hold.
func appendKey(b []byte, p *protocol, t *check.Target) []byte {
	if p.Canonical == nil {
		return appendParts(b, p, t)
	}
	reached := p.Canonical(*t)
	return appendParts(b, p, &reached)
}

func appendParts(b []byte, p *protocol, t *check.Target) []byte {
	hops := t.Hops
	if !p.ForwardsHops {
		hops = 0
	}
	b = append(b, t.Protocol...)
	b = append(b, 0, hops, byte(t.Port>>8), byte(t.Port))
	b = append(b, t.Host...)
	b = append(b, 0)
	b = append(b, t.URI...)
	if p.PerService {
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

func (j *Evaluator) allowed(host string) bool {
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
	Answers  [cache.Statuses]uint64 // how they were come by, as long as Options.Counters count
	InFlight int                    // checks under way or waiting for their turn
	Waiting  int                    // of these, those that wait
	Busy     uint64                 // answers given up for want of a slot or of time
}

// Stats returns the counters.
func (j *Evaluator) Stats() Stats {
	s := Stats{Cache: j.results.Stats(), InFlight: int(j.flying.Load()), Waiting: j.limiter.Waiting(), Busy: j.busy.Load()}
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
