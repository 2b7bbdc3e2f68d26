package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// fixedOverrides returns the same view for every lookup.
type fixedOverrides struct {
	mu   sync.Mutex
	view spool.View
	last struct {
		service, host string
		port          uint16
		here          bool
	}
}

func (s *fixedOverrides) Lookup(service, host string, port uint16, here bool) spool.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.service, s.last.host, s.last.port, s.last.here = service, host, port, here
	return s.view
}

func (s *fixedOverrides) set(v spool.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
}

// newEvaluator returns an Evaluator with the protocols "spool", "stub" (which runs f), "anyport" (the same without a
// port) and "named" (one result per service), its overrides and its log.
func newEvaluator(t *testing.T, f check.Func, change func(*Options)) (*Evaluator, *fixedOverrides, *logBuffer) {
	t.Helper()
	s, log := new(fixedOverrides), new(logBuffer)
	o := Options{
		Overrides: s,
		Checks: check.Set{
			"spool":   {Name: "spool", PortOptional: true},
			"stub":    {Name: "stub", Check: f, URI: true},
			"anyport": {Name: "anyport", Check: f, PortOptional: true},
			"named":   {Name: "named", Check: f, URI: true, PerService: true},
		},
		CacheTime: 15 * time.Second, CacheTimeDown: 15 * time.Second,
		CacheMaxEntries: 100, CacheMaxBytes: 1 << 20,
		Timeout: 10 * time.Second, MaxClients: 2,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	o.LogLimit = loglimit.New(o.Log)
	if change != nil {
		change(&o)
	}
	return New(o), s, log
}

// logBuffer collects a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func target(change func(*Request)) *Request {
	a := &Request{Target: check.Target{Protocol: "stub", Service: "web", Host: "127.0.0.1", Port: 80, URI: "/"}, Local: true}
	if change != nil {
		change(a)
	}
	return a
}

// countingCheck returns a healthy check and the number of its runs.
func countingCheck() (check.Func, *atomic.Int64) {
	n := new(atomic.Int64)
	return func(context.Context, check.Target) check.Result {
		n.Add(1)
		return check.Result{Code: 200, Body: []byte("fine")}
	}, n
}

func TestOverridesDecideFirst(t *testing.T) {
	for _, c := range []struct {
		state    spool.State
		protocol string
		ignore   bool
		obey     bool
		code     int
		body     string // a prefix
		asked    bool
	}{
		{state: spool.Down, protocol: "stub", code: 503, body: "Service web in down state"},
		{state: spool.Maint, protocol: "stub", code: 503, body: "Service web in down state"},
		{state: spool.Drain, protocol: "stub", code: 404, body: "Service web in drain state"},
		{state: spool.ForceUp, protocol: "stub", code: 200, body: "OK"},
		{state: spool.ForceUp, protocol: "spool", code: 200, body: ""},
		{state: spool.Down, protocol: "spool", code: 503, body: "Service web in down state"},
		{state: spool.Down, protocol: "stub", ignore: true, code: 200, body: "fine", asked: true},
		{state: spool.Drain, protocol: "stub", ignore: true, code: 200, body: "fine", asked: true},
		{state: spool.Down, protocol: "spool", ignore: true, code: 503, body: "Service web in down state"},
		{state: spool.ForceUp, protocol: "stub", ignore: true, code: 200, body: "OK"},
		{state: spool.Maint, protocol: "stub", ignore: true, obey: true, code: 503, body: "Service web in down state"},
	} {
		f, n := countingCheck()
		e, s, _ := newEvaluator(t, f, func(o *Options) { o.IgnoreOverrides = c.ignore })
		s.set(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: c.state}})
		v := e.Evaluate(target(func(a *Request) { a.Target.Protocol, a.ForceOverrides = c.protocol, c.obey }))
		if v.Result.Code != c.code || !strings.HasPrefix(string(v.Result.Body), c.body) || c.body == "" && len(v.Result.Body) > 0 || (n.Load() > 0) != c.asked {
			t.Errorf("%v, %s, ignoring %v: %d %q, asked %d times; want %d %q, asked: %v",
				c.state, c.protocol, c.ignore, v.Result.Code, v.Result.Body, n.Load(), c.code, c.body, c.asked)
		}
		if !c.asked && (v.Override == nil || v.OverrideState != c.state || v.Cache != cache.Override) {
			t.Errorf("%v: verdict %+v does not say that an override decided", c.state, v)
		}
	}
}

func TestRejectedRequests(t *testing.T) {
	f, n := countingCheck()
	e, s, log := newEvaluator(t, f, func(o *Options) { o.CheckHostsAllowed = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")} })
	for _, c := range []struct {
		name   string
		change func(*Request)
		code   int
		says   string
		asked  bool
	}{
		{"no port", func(a *Request) { a.Target.Port = 0 }, 400, "http-check send-state", false},
		{"no port needed", func(a *Request) { a.Target.Port, a.Target.Protocol = 0, "anyport" }, 200, "fine", true},
		{"another host", func(a *Request) { a.Target.Host, a.Local = "10.2.0.1", false }, 403, "check_hosts_allowed", false},
		{"an allowed host", func(a *Request) { a.Target.Host, a.Local = "10.1.0.1", false }, 200, "fine", true},
		{"another host, spool", func(a *Request) { a.Target.Host, a.Local, a.Target.Protocol = "10.2.0.1", false, "spool" }, 200, "", false},
		{"no such protocol", func(a *Request) { a.Target.Protocol = "gopher" }, 404, "gopher", false},
	} {
		before := n.Load()
		v := e.Evaluate(target(c.change))
		if v.Result.Code != c.code || !strings.Contains(string(v.Result.Body), c.says) || (n.Load() > before) != c.asked {
			t.Errorf("%s: %d %q, asked: %v; want %d, %q, %v", c.name, v.Result.Code, v.Result.Body, n.Load() > before, c.code, c.says, c.asked)
		}
	}
	e.Evaluate(target(func(a *Request) { a.Target.Host, a.Local = "10.2.0.1", false }))
	if got := log.count("refused to check another host"); got != 1 {
		t.Errorf("%d log lines about one refused host, want 1", got)
	}
	// An override decides before check_hosts_allowed.
	s.set(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}})
	if v := e.Evaluate(target(func(a *Request) { a.Target.Host, a.Local = "10.2.0.1", false })); v.Result.Code != 503 {
		t.Errorf("another host that is down: %d, want 503", v.Result.Code)
	}
	if s.last.here || s.last.host != "10.2.0.1" {
		t.Errorf("looked up %+v", s.last)
	}
}

// TestCacheKey: the key contains everything that reaches the service and nothing else.
func TestCacheKey(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Request)
		same   bool
	}{
		{"the same", func(*Request) {}, true},
		{"another service", func(a *Request) { a.Target.Service = "db" }, true},
		{"another query string", func(a *Request) { a.Target.URI = "/?x=1" }, false},
		{"another path", func(a *Request) { a.Target.URI = "/x" }, false},
		{"another port", func(a *Request) { a.Target.Port = 81 }, false},
		{"another host", func(a *Request) { a.Target.Host = "127.0.0.2" }, false},
		{"a copied header", func(a *Request) { a.Target.Header = []check.Field{{Name: "Host", Value: "x"}} }, false},
		{"another protocol", func(a *Request) { a.Target.Protocol = "anyport" }, false},
	} {
		f, n := countingCheck()
		e, _, _ := newEvaluator(t, f, nil)
		e.Evaluate(target(nil))
		v := e.Evaluate(target(c.change))
		if (v.Cache == cache.Hit) != c.same || n.Load() == 1 != c.same {
			t.Errorf("%s: %v after %d checks, want the same key: %v", c.name, v.Cache, n.Load(), c.same)
		}
	}
	f, _ := countingCheck()
	e, _, _ := newEvaluator(t, f, nil)
	named := func(a *Request) { a.Target.Protocol = "named" }
	e.Evaluate(target(named))
	if v := e.Evaluate(target(func(a *Request) { named(a); a.Target.Service = "db" })); v.Cache == cache.Hit {
		t.Error("a protocol that depends on the service's name got another service's result")
	}
}

func TestFirstRequestAfterAnOverrideRunsTheCheck(t *testing.T) {
	f, n := countingCheck()
	e, s, _ := newEvaluator(t, f, nil)
	e.Evaluate(target(nil))
	s.set(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}, Generation: 3})
	e.Evaluate(target(nil))
	s.set(spool.View{Generation: 4, MinGeneration: 4})
	if v := e.Evaluate(target(nil)); v.Cache != cache.Miss || n.Load() != 2 {
		t.Fatalf("%v after %d checks; want a new one", v.Cache, n.Load())
	}
	if v := e.Evaluate(target(nil)); v.Cache != cache.Hit {
		t.Fatalf("%v; the new result is to be kept", v.Cache)
	}
}

func TestBusyAnswersInTimeAndIsNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _ check.Target) check.Result {
			<-ctx.Done()
			return check.Result{Code: 503, Reason: check.ReasonTimeout, Body: []byte("timed out"), Err: ctx.Err()}
		}
		e, _, _ := newEvaluator(t, hang, nil)
		began := time.Now()
		var wg sync.WaitGroup
		var busy, late atomic.Int64
		for i := range 5 {
			wg.Go(func() {
				v := e.Evaluate(target(func(a *Request) { a.Target.Port = uint16(1 + i) }))
				if v.Result.Reason == check.ReasonBusy {
					busy.Add(1)
				}
				if v.Result.Code != 503 || time.Since(began) > e.waitLimit() {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if busy.Load() != 3 || late.Load() != 0 {
			t.Fatalf("%d busy and %d late or not 503; want 3 and 0 with 2 slots for 5 checks that hang", busy.Load(), late.Load())
		}
		if s := e.Stats(); s.Cache.Entries != 2 || s.Busy != 3 || s.InFlight != 0 {
			t.Fatalf("%+v; want the 2 that were asked kept, and nothing in flight", s)
		}
	})
}

// TestWaitLimit: a request waits no longer than the limit for a check that exceeds its timeout, whether it runs the
// check (of a protocol with MayExceedTimeout) or waits for that of another request.
func TestWaitLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := func(context.Context, check.Target) check.Result {
			time.Sleep(time.Minute)
			return check.Result{Code: 200}
		}
		e, _, _ := newEvaluator(t, deaf, func(o *Options) {
			o.Checks["slow"] = check.Protocol{Name: "slow", Check: deaf, MayExceedTimeout: true}
			o.MaxClients = 3 // one target may have two of them
		})
		timesOut := func(change func(*Request)) {
			t.Helper()
			began := time.Now()
			v := e.Evaluate(target(change))
			if took := time.Since(began); v.Result.Code != 503 || v.Result.Reason != check.ReasonBusy || took > e.waitLimit() {
				t.Errorf("%d %s after %v", v.Result.Code, v.Result.Body, took)
			}
		}
		slow := func(a *Request) { a.Target.Protocol = "slow" }
		timesOut(slow) // the first
		timesOut(slow) // who joins it
		timesOut(func(a *Request) { slow(a); a.NoCache = true })
		go e.Evaluate(target(nil))
		synctest.Wait()
		timesOut(nil)
		if s := e.Stats(); s.Busy != 4 || s.InFlight != 2 {
			t.Errorf("%+v; want 4 told that hacheck was busy, and 2 checks under way", s)
		}
		time.Sleep(25 * time.Second) // the first check has ended, after a minute
		if v := e.Evaluate(target(slow)); v.Result.Code != 200 || v.Cache != cache.Hit {
			t.Errorf("afterwards: %+v", v)
		}
		time.Sleep(time.Minute)
	})
}

func TestPanicInCheckIsAnAnswer(t *testing.T) {
	e, _, log := newEvaluator(t, func(context.Context, check.Target) check.Result { panic("boom") }, nil)
	v := e.Evaluate(target(nil))
	if v.Result.Code != 503 || strings.Contains(string(v.Result.Body), "boom") || log.count("boom") == 0 {
		t.Fatalf("%d %q; want 503, and the panic in the log only", v.Result.Code, v.Result.Body)
	}
}

func TestOneLogLinePerTransition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy atomic.Bool
		healthy.Store(true)
		f := func(context.Context, check.Target) check.Result {
			if healthy.Load() {
				return check.Result{Code: 200}
			}
			return check.Result{Code: 503, Err: errors.New("refused, said the kernel")}
		}
		e, _, log := newEvaluator(t, f, nil)
		for i := range 20 {
			healthy.Store(i < 5 || i >= 10)
			e.Evaluate(target(nil))
			time.Sleep(16 * time.Second)
		}
		if down, up := log.count("service is not up"), log.count("service is up"); down != 1 || up != 1 {
			t.Fatalf("%d lines for down and %d for up, want 1 and 1:\n%s", down, up, log.b.String())
		}
		if log.count("refused, said the kernel") != 1 {
			t.Errorf("the line does not say why:\n%s", log.b.String())
		}
	})
}

// TestManyNewTargets: a client that requests a new target each time fills neither the disk with log lines nor the memory
// with URLs, and does not suppress the line about a service that was up.
func TestManyNewTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		f := func(_ context.Context, t check.Target) check.Result {
			if t.Service != "real" || down.Load() {
				return check.Result{Code: 503, Err: errors.New(strings.Repeat("e", 4000))}
			}
			return check.Result{Code: 200}
		}
		e, _, log := newEvaluator(t, f, func(o *Options) { o.MaxClients = 100 })
		long := strings.Repeat("x", 4000)
		askReal := func() {
			e.Evaluate(target(func(a *Request) { a.Target.Service, a.Target.URI, a.NoCache = "real", "/real", true }))
		}
		askReal()
		const asked = maxTargets + maxTargets/2
		for i := range asked {
			e.Evaluate(target(func(a *Request) {
				a.Target.Service, a.Target.URI = fmt.Sprint("invented", i/100), fmt.Sprintf("/%d-%s", i, long)
			}))
			if i%1000 == 0 {
				askReal()
			}
		}
		first := log.count("service is not up")
		if first == 0 || first > 100 || log.b.Len() > 200_000 {
			t.Errorf("%d lines of %d bytes for %d new targets", first, log.b.Len(), asked)
		}
		down.Store(true)
		askReal()
		if n := log.count("service=real"); n != 1 {
			t.Errorf("%d lines about a service that was up", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if log.count("left_out=") == 0 {
			t.Error("a minute later the log does not say how many lines were left out")
		}
		if n := len(e.log.current) + len(e.log.previous); n > 2*maxTargets {
			t.Errorf("%d results are remembered", n)
		}
	})
}

// TestFlappingServiceSuppressesNoOther: a service that changes all the time has few log lines; other services keep theirs.
func TestFlappingServiceSuppressesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := map[string]*atomic.Bool{"flapping": {}, "web": {}}
		f := func(_ context.Context, t check.Target) check.Result {
			if up[t.Service].Load() {
				return check.Result{Code: 200}
			}
			return check.Result{Code: 503, Err: errors.New("refused")}
		}
		e, _, log := newEvaluator(t, f, func(o *Options) { o.CacheTime, o.CacheTimeDown = 0, 0 })
		ask := func(service string, healthy bool) {
			up[service].Store(healthy)
			e.Evaluate(target(func(a *Request) { a.Target.Service, a.Target.URI = service, "/"+service }))
		}
		ask("web", true)
		for i := range 5000 {
			ask("flapping", i%2 == 0)
		}
		ask("web", false)
		ask("web", true)
		if n := log.count("service=web"); n != 2 {
			t.Errorf("%d lines about web, want 2", n)
		}
		if n := log.count("service=flapping"); n == 0 || n > 100 {
			t.Errorf("%d lines about the flapping service", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if log.count("about=flapping") != 1 {
			t.Error("a minute later the log does not say that lines about it were left out")
		}
	})
}

// TestHops: a request with too many hops is rejected without a check, after the overrides. Each other number of hops has
// a result of its own if the check forwards the number.
func TestHops(t *testing.T) {
	f, n := countingCheck()
	e, overrides, _ := newEvaluator(t, f, func(o *Options) {
		o.Checks["passes"] = check.Protocol{Name: "passes", Check: f, ForwardsHops: true}
	})
	ask := func(protocol string, hops uint8) Verdict {
		return e.Evaluate(target(func(a *Request) { a.Target.Protocol, a.Target.Hops = protocol, hops }))
	}
	for _, protocol := range []string{"stub", "passes"} {
		v := ask(protocol, check.MaxHops+1)
		if v.Result.Code != 503 || v.Result.Reason != check.ReasonForbidden || n.Load() != 0 || !strings.Contains(string(v.Result.Body), "X-Hacheck-Hops is above 4") {
			t.Errorf("%s: %d %s, %d checks", protocol, v.Result.Code, v.Result.Body, n.Load())
		}
	}
	for protocol, want := range map[string]int64{"stub": 1, "passes": check.MaxHops + 1} {
		n.Store(0)
		for hops := range uint8(check.MaxHops + 1) {
			for range 2 {
				if v := ask(protocol, hops); v.Result.Code != 200 {
					t.Errorf("%s: %+v", protocol, v)
				}
			}
		}
		if n.Load() != want {
			t.Errorf("%s: %d checks, want %d", protocol, n.Load(), want)
		}
	}
	if v := ask("spool", check.MaxHops+1); v.Result.Code != 200 {
		t.Errorf("spool, which asks nothing: %+v", v)
	}
	overrides.set(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}})
	if v := ask("stub", check.MaxHops+1); v.Override == nil {
		t.Errorf("%+v, want the override", v)
	}
}

// TestCanonical: targets that differ in nothing that reaches the check share one check.
func TestCanonical(t *testing.T) {
	f, n := countingCheck()
	var seen check.Target
	e, _, _ := newEvaluator(t, f, func(o *Options) {
		o.Checks["canonical"] = check.Protocol{Name: "canonical", Check: f, PortOptional: true, PerService: true, Canonical: func(t check.Target) check.Target {
			t.Host, t.Port = "", 0
			return t
		}}
		o.OnResult = func(t *check.Target, _ check.Result, _ time.Time) { seen = *t }
	})
	for port := range uint16(100) {
		for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
			e.Evaluate(target(func(a *Request) { a.Target.Protocol, a.Target.Host, a.Target.Port = "canonical", host, port }))
		}
	}
	if n.Load() != 1 || seen.Service != "web" || seen.Host != "" || seen.Port != 0 {
		t.Errorf("%d checks, the last of %+v", n.Load(), seen)
	}
	e.Evaluate(target(func(a *Request) { a.Target.Protocol, a.Target.Service = "canonical", "other" }))
	if n.Load() != 2 {
		t.Errorf("%d checks", n.Load())
	}
}

// TestOnResult is called for each check that has run, and for nothing else.
func TestOnResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type call struct {
			service string
			code    int
			began   time.Time
		}
		var got []call
		slow := func(_ context.Context, t check.Target) check.Result {
			time.Sleep(time.Second)
			if t.Port == 81 {
				return check.Result{Code: 503}
			}
			return check.Result{Code: 200}
		}
		e, s, _ := newEvaluator(t, slow, func(o *Options) {
			o.OnResult = func(t *check.Target, r check.Result, began time.Time) {
				got = append(got, call{t.Service, r.Code, began})
			}
		})
		ask := func(change func(*Request)) { e.Evaluate(target(change)) }
		began := time.Now()
		ask(nil)
		ask(nil)                                     // kept
		ask(func(a *Request) { a.Target.Port = 81 }) // not well
		ask(func(a *Request) { a.Target.Port = 0 })  // refused
		ask(func(a *Request) { a.NoShare = true })   // of its own
		s.set(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}})
		ask(func(a *Request) { a.NoCache = true })
		want := []call{{"web", 200, began}, {"web", 503, began.Add(time.Second)}, {"web", 200, began.Add(2 * time.Second)}}
		if !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

// TestCounters: each answer is counted once, by what decided it and by where it came from.
func TestCounters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		counters := NewCounters(check.Set{"spool": {}, "stub": {}, "anyport": {}, "named": {}})
		f := func(_ context.Context, t check.Target) check.Result {
			if t.Port == 81 {
				return check.Result{Code: 500, Took: time.Second}
			}
			return check.Result{Code: 200, Took: 3 * time.Millisecond}
		}
		e, s, _ := newEvaluator(t, f, func(o *Options) { o.Counters = counters })
		e.Evaluate(target(nil))
		e.Evaluate(target(nil))
		cached := func(change func(*Request)) {
			if v, pending := e.Cached(target(change)); pending == nil {
				e.Count(&v)
			}
		}
		cached(nil)
		e.Cached(target(nil)) // not answered, so not counted
		cached(func(a *Request) { a.Target.Port = 82 })
		e.Evaluate(target(func(a *Request) { a.Target.Port = 81 }))
		e.Evaluate(target(func(a *Request) { a.Target.Port = 0 }))
		s.set(spool.View{Override: &spool.Entry{State: spool.Maint}})
		e.Evaluate(target(nil))
		cached(nil)

		want := []AnswerCount{{"stub", "config", 1}, {"stub", "maint", 2}, {"stub", "ok", 3}, {"stub", "status", 1}}
		if got := counters.Answers(); !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		a := e.Stats().Answers
		if a[cache.Hit] != 2 || a[cache.Miss] != 2 || a[cache.Override] != 3 {
			t.Errorf("by cache: %v", a)
		}
		d := counters.Durations()
		if len(d) != 1 || d[0].Count != 2 || d[0].Sum != 1003*time.Millisecond || d[0].AtMost[1] != 0 || d[0].AtMost[2] != 1 || d[0].AtMost[9] != 2 {
			t.Errorf("durations %+v", d)
		}
	})
}
