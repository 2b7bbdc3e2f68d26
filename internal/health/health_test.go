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

// said answers every lookup with what it holds.
type said struct {
	mu   sync.Mutex
	view spool.View
	last struct {
		service, host string
		port          uint16
		here          bool
	}
}

func (s *said) Lookup(service, host string, port uint16, here bool) spool.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.service, s.last.host, s.last.port, s.last.here = service, host, port, here
	return s.view
}

func (s *said) say(v spool.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
}

// judge returns a Judge with the protocols "spool", "stub" (which runs f) and "anyport" (the same without
// need of a port), and the log it writes.
func judge(t *testing.T, f check.Func, change func(*Options)) (*Evaluator, *said, *lines) {
	t.Helper()
	s, log := new(said), new(lines)
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

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(s string) int {
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

// counted returns a healthy check and how often it has run.
func counted() (check.Func, *atomic.Int64) {
	n := new(atomic.Int64)
	return func(context.Context, check.Target) check.Result {
		n.Add(1)
		return check.Result{Code: 200, Body: []byte("fine")}
	}, n
}

func TestOverridesComeFirst(t *testing.T) {
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
		f, n := counted()
		j, s, _ := judge(t, f, func(o *Options) { o.IgnoreOverrides = c.ignore })
		s.say(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: c.state}})
		v := j.Evaluate(target(func(a *Request) { a.Target.Protocol, a.ApplyOverrides = c.protocol, c.obey }))
		if v.Result.Code != c.code || !strings.HasPrefix(string(v.Result.Body), c.body) || c.body == "" && len(v.Result.Body) > 0 || (n.Load() > 0) != c.asked {
			t.Errorf("%v, %s, ignoring %v: %d %q, asked %d times; want %d %q, asked: %v",
				c.state, c.protocol, c.ignore, v.Result.Code, v.Result.Body, n.Load(), c.code, c.body, c.asked)
		}
		if !c.asked && (v.Override == nil || v.State != c.state || v.Cache != cache.Override) {
			t.Errorf("%v: verdict %+v does not say that an override decided", c.state, v)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	f, n := counted()
	j, s, log := judge(t, f, func(o *Options) { o.Allowed = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")} })
	for _, c := range []struct {
		name   string
		change func(*Request)
		code   int
		says   string
		asked  bool
	}{
		{"no port", func(a *Request) { a.Target.Port = 0 }, 400, "http-check send-state", false},
		{"no port needed", func(a *Request) { a.Target.Port, a.Target.Protocol = 0, "anyport" }, 200, "fine", true},
		{"a stranger", func(a *Request) { a.Target.Host, a.Local = "10.2.0.1", false }, 403, "check_hosts_allowed", false},
		{"an allowed host", func(a *Request) { a.Target.Host, a.Local = "10.1.0.1", false }, 200, "fine", true},
		{"a stranger, spool", func(a *Request) { a.Target.Host, a.Local, a.Target.Protocol = "10.2.0.1", false, "spool" }, 200, "", false},
		{"no such protocol", func(a *Request) { a.Target.Protocol = "gopher" }, 404, "gopher", false},
	} {
		before := n.Load()
		v := j.Evaluate(target(c.change))
		if v.Result.Code != c.code || !strings.Contains(string(v.Result.Body), c.says) || (n.Load() > before) != c.asked {
			t.Errorf("%s: %d %q, asked: %v; want %d, %q, %v", c.name, v.Result.Code, v.Result.Body, n.Load() > before, c.code, c.says, c.asked)
		}
	}
	j.Evaluate(target(func(a *Request) { a.Target.Host, a.Local = "10.2.0.1", false }))
	if got := log.count("refused to check another host"); got != 1 {
		t.Errorf("%d log lines about one stranger, want 1", got)
	}
	// A stranger that is downed is told so: overrides come before permission.
	s.say(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}})
	if v := j.Evaluate(target(func(a *Request) { a.Target.Host, a.Local = "10.2.0.1", false })); v.Result.Code != 503 {
		t.Errorf("downed stranger: %d, want 503", v.Result.Code)
	}
	if s.last.here || s.last.host != "10.2.0.1" {
		t.Errorf("looked up %+v", s.last)
	}
}

// TestWhatIsOneQuestion holds the cache key to everything that reaches the service, and to nothing else.
func TestWhatIsOneQuestion(t *testing.T) {
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
		f, n := counted()
		j, _, _ := judge(t, f, nil)
		j.Evaluate(target(nil))
		v := j.Evaluate(target(c.change))
		if (v.Cache == cache.Hit) != c.same || n.Load() == 1 != c.same {
			t.Errorf("%s: %v after %d checks, want the same question: %v", c.name, v.Cache, n.Load(), c.same)
		}
	}
	f, _ := counted()
	j, _, _ := judge(t, f, nil)
	named := func(a *Request) { a.Target.Protocol = "named" }
	j.Evaluate(target(named))
	if v := j.Evaluate(target(func(a *Request) { named(a); a.Target.Service = "db" })); v.Cache == cache.Hit {
		t.Error("a protocol that depends on the service's name got another service's result")
	}
}

func TestFirstRequestAfterAnOverrideAsks(t *testing.T) {
	f, n := counted()
	j, s, _ := judge(t, f, nil)
	j.Evaluate(target(nil))
	s.say(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}, Generation: 3})
	j.Evaluate(target(nil))
	s.say(spool.View{Generation: 4, MinGeneration: 4})
	if v := j.Evaluate(target(nil)); v.Cache != cache.Miss || n.Load() != 2 {
		t.Fatalf("%v after %d checks; want a new one", v.Cache, n.Load())
	}
	if v := j.Evaluate(target(nil)); v.Cache != cache.Hit {
		t.Fatalf("%v; the new result is to be kept", v.Cache)
	}
}

func TestBusyIsSaidInTimeAndNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _ check.Target) check.Result {
			<-ctx.Done()
			return check.Result{Code: 503, Reason: check.ReasonTimeout, Body: []byte("timed out"), Err: ctx.Err()}
		}
		j, _, _ := judge(t, hang, nil)
		began := time.Now()
		var wg sync.WaitGroup
		var busy, late atomic.Int64
		for i := range 5 {
			wg.Go(func() {
				v := j.Evaluate(target(func(a *Request) { a.Target.Port = uint16(1 + i) }))
				if v.Result.Reason == check.ReasonBusy {
					busy.Add(1)
				}
				if v.Result.Code != 503 || time.Since(began) > j.patience() {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if busy.Load() != 3 || late.Load() != 0 {
			t.Fatalf("%d busy and %d late or not 503; want 3 and 0 with 2 slots for 5 checks that hang", busy.Load(), late.Load())
		}
		if s := j.Stats(); s.Cache.Entries != 2 || s.Busy != 3 || s.InFlight != 0 {
			t.Fatalf("%+v; want the 2 that were asked kept, and nothing in flight", s)
		}
	})
}

// TestAskersPatience: an asker is not bound to a check that outlives its time, neither the first one of a protocol
// whose checks may do that, nor any that joins another.
func TestAskersPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := func(context.Context, check.Target) check.Result {
			time.Sleep(time.Minute)
			return check.Result{Code: 200}
		}
		j, _, _ := judge(t, deaf, func(o *Options) {
			o.Checks["slow"] = check.Protocol{Name: "slow", Check: deaf, MayExceedTimeout: true}
			o.MaxClients = 3 // one target may have two of them
		})
		tired := func(change func(*Request)) {
			t.Helper()
			began := time.Now()
			v := j.Evaluate(target(change))
			if took := time.Since(began); v.Result.Code != 503 || v.Result.Reason != check.ReasonBusy || took > j.patience() {
				t.Errorf("%d %s after %v", v.Result.Code, v.Result.Body, took)
			}
		}
		slow := func(a *Request) { a.Target.Protocol = "slow" }
		tired(slow) // the first
		tired(slow) // who joins it
		tired(func(a *Request) { slow(a); a.NoCache = true })
		go j.Evaluate(target(nil))
		synctest.Wait()
		tired(nil)
		if s := j.Stats(); s.Busy != 4 || s.InFlight != 2 {
			t.Errorf("%+v; want 4 told that hacheck was busy, and 2 checks under way", s)
		}
		time.Sleep(25 * time.Second) // the first check has ended, after a minute
		if v := j.Evaluate(target(slow)); v.Result.Code != 200 || v.Cache != cache.Hit {
			t.Errorf("afterwards: %+v", v)
		}
		time.Sleep(time.Minute)
	})
}

func TestAPanicInACheckIsAnAnswer(t *testing.T) {
	j, _, log := judge(t, func(context.Context, check.Target) check.Result { panic("boom") }, nil)
	v := j.Evaluate(target(nil))
	if v.Result.Code != 503 || strings.Contains(string(v.Result.Body), "boom") || log.count("boom") == 0 {
		t.Fatalf("%d %q; want 503, and the panic in the log only", v.Result.Code, v.Result.Body)
	}
}

func TestOneLineWhenAServiceChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy atomic.Bool
		healthy.Store(true)
		f := func(context.Context, check.Target) check.Result {
			if healthy.Load() {
				return check.Result{Code: 200}
			}
			return check.Result{Code: 503, Err: errors.New("refused, said the kernel")}
		}
		j, _, log := judge(t, f, nil)
		for i := range 20 {
			healthy.Store(i < 5 || i >= 10)
			j.Evaluate(target(nil))
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

// TestManyNewTargets: a client that asks for a new target each time can fill neither the disk with lines, nor memory
// with URLs, nor keep out the line about a service that was up.
func TestManyNewTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		f := func(_ context.Context, t check.Target) check.Result {
			if t.Service != "real" || down.Load() {
				return check.Result{Code: 503, Err: errors.New(strings.Repeat("e", 4000))}
			}
			return check.Result{Code: 200}
		}
		j, _, log := judge(t, f, func(o *Options) { o.MaxClients = 100 })
		long := strings.Repeat("x", 4000)
		askReal := func() {
			j.Evaluate(target(func(a *Request) { a.Target.Service, a.Target.URI, a.NoCache = "real", "/real", true }))
		}
		askReal()
		const asked = maxRemembered + maxRemembered/2
		for i := range asked {
			j.Evaluate(target(func(a *Request) {
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
		if n := len(j.changes.last) + len(j.changes.before); n > 2*maxRemembered {
			t.Errorf("%d results are remembered", n)
		}
	})
}

// TestAFlappingServiceSilencesNoOther: it has fewer lines than there may be.
func TestAFlappingServiceSilencesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := map[string]*atomic.Bool{"flapping": {}, "web": {}}
		f := func(_ context.Context, t check.Target) check.Result {
			if up[t.Service].Load() {
				return check.Result{Code: 200}
			}
			return check.Result{Code: 503, Err: errors.New("refused")}
		}
		j, _, log := judge(t, f, func(o *Options) { o.CacheTime, o.CacheTimeDown = 0, 0 })
		ask := func(service string, healthy bool) {
			up[service].Store(healthy)
			j.Evaluate(target(func(a *Request) { a.Target.Service, a.Target.URI = service, "/"+service }))
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

// TestHops: a request that came through too many checks is refused and nothing is asked, after the overrides; the others
// have a result of their own for each number of hops, where the check passes the number on.
func TestHops(t *testing.T) {
	f, n := counted()
	j, said, _ := judge(t, f, func(o *Options) {
		o.Checks["passes"] = check.Protocol{Name: "passes", Check: f, ForwardsHops: true}
	})
	ask := func(protocol string, hops uint8) Verdict {
		return j.Evaluate(target(func(a *Request) { a.Target.Protocol, a.Target.Hops = protocol, hops }))
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
	said.say(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}})
	if v := ask("stub", check.MaxHops+1); v.Override == nil {
		t.Errorf("%+v, want the override", v)
	}
}

// TestReduce: what does not reach the check makes no check of its own.
func TestReduce(t *testing.T) {
	f, n := counted()
	var seen check.Target
	j, _, _ := judge(t, f, func(o *Options) {
		o.Checks["reduced"] = check.Protocol{Name: "reduced", Check: f, PortOptional: true, PerService: true, Canonical: func(t check.Target) check.Target {
			t.Host, t.Port = "", 0
			return t
		}}
		o.OnResult = func(t *check.Target, _ check.Result, _ time.Time) { seen = *t }
	})
	for port := range uint16(100) {
		for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
			j.Evaluate(target(func(a *Request) { a.Target.Protocol, a.Target.Host, a.Target.Port = "reduced", host, port }))
		}
	}
	if n.Load() != 1 || seen.Service != "web" || seen.Host != "" || seen.Port != 0 {
		t.Errorf("%d checks, the last of %+v", n.Load(), seen)
	}
	j.Evaluate(target(func(a *Request) { a.Target.Protocol, a.Target.Service = "reduced", "other" }))
	if n.Load() != 2 {
		t.Errorf("%d checks", n.Load())
	}
}

// TestResultsAreTold: each check that has run, and nothing else.
func TestResultsAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type told struct {
			service string
			code    int
			began   time.Time
		}
		var got []told
		slow := func(_ context.Context, t check.Target) check.Result {
			time.Sleep(time.Second)
			if t.Port == 81 {
				return check.Result{Code: 503}
			}
			return check.Result{Code: 200}
		}
		j, s, _ := judge(t, slow, func(o *Options) {
			o.OnResult = func(t *check.Target, r check.Result, began time.Time) {
				got = append(got, told{t.Service, r.Code, began})
			}
		})
		ask := func(change func(*Request)) { j.Evaluate(target(change)) }
		began := time.Now()
		ask(nil)
		ask(nil)                                     // kept
		ask(func(a *Request) { a.Target.Port = 81 }) // not well
		ask(func(a *Request) { a.Target.Port = 0 })  // refused
		ask(func(a *Request) { a.NoShare = true })   // of its own
		s.say(spool.View{Override: &spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down}})
		ask(func(a *Request) { a.NoCache = true })
		want := []told{{"web", 200, began}, {"web", 503, began.Add(time.Second)}, {"web", 200, began.Add(2 * time.Second)}}
		if !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

// TestCounters: each answer is counted once, by what decided it and by how it was come by.
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
		j, s, _ := judge(t, f, func(o *Options) { o.Counters = counters })
		j.Evaluate(target(nil))
		j.Evaluate(target(nil))
		known := func(change func(*Request)) {
			if v, open := j.Cached(target(change)); open == nil {
				j.Count(&v)
			}
		}
		known(nil)
		j.Cached(target(nil)) // nobody answers with it
		known(func(a *Request) { a.Target.Port = 82 })
		j.Evaluate(target(func(a *Request) { a.Target.Port = 81 }))
		j.Evaluate(target(func(a *Request) { a.Target.Port = 0 }))
		s.say(spool.View{Override: &spool.Entry{State: spool.Maint}})
		j.Evaluate(target(nil))
		known(nil)

		want := []AnswerCount{{"stub", "config", 1}, {"stub", "maint", 2}, {"stub", "ok", 3}, {"stub", "status", 1}}
		if got := counters.Answers(); !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		a := j.Stats().Answers
		if a[cache.Hit] != 2 || a[cache.Miss] != 2 || a[cache.Override] != 3 {
			t.Errorf("by cache: %v", a)
		}
		d := counters.Durations()
		if len(d) != 1 || d[0].Count != 2 || d[0].Sum != 1003*time.Millisecond || d[0].AtMost[1] != 0 || d[0].AtMost[2] != 1 || d[0].AtMost[9] != 2 {
			t.Errorf("durations %+v", d)
		}
	})
}
