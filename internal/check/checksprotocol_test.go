package check_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// fixed returns a configured check with a fixed result.
func fixed(name string, r check.Result) *check.ConfiguredCheck {
	return &check.ConfiguredCheck{
		Type: "tcp", Name: name, Timeout: 10 * time.Second,
		Steps: []check.Step{check.StepOf(name, func(context.Context, check.Target) check.Result { return r })},
	}
}

// askService runs a URL protocol for the service web, with these checks configured.
func askService(t testing.TB, protocol string, port uint16, checks ...*check.ConfiguredCheck) check.Result {
	t.Helper()
	o := check.Options{Services: map[string][]*check.ConfiguredCheck{"web": checks}}
	return ask(t, o, check.Target{Protocol: protocol, Service: "web", Host: "127.0.0.1", Port: port})
}

func TestChecks(t *testing.T) {
	up := check.Result{Code: 200, Body: []byte("fine")}
	down := check.Result{Code: 500, Reason: check.ReasonFailed, Body: []byte("not\nwell"), Err: errors.New("why")}
	busy := check.Result{Code: 503, Reason: check.ReasonBusy, Body: []byte("busy"), Err: errors.New("busy")}
	left := check.Result{Code: 503, Reason: check.ReasonCancelled, Body: []byte("left"), Err: errors.New("left")}
	away := check.Result{Code: 404, Body: []byte("away")} // as the http check passes it on
	type checks []*check.ConfiguredCheck
	for name, c := range map[string]struct {
		checks checks
		code   int
		reason check.Reason
		want   string
	}{
		"one":                    {checks{fixed("a", up)}, 200, check.ReasonAnswered, "OK"},
		"all":                    {checks{fixed("a", up), fixed("b", up)}, 200, check.ReasonAnswered, "OK"},
		"one of them not":        {checks{fixed("a", up), fixed("b", down), fixed("c", up)}, 503, check.ReasonFailed, "b: not well"},
		"none, in their order":   {checks{fixed("a", down), fixed("b", away)}, 503, check.ReasonFailed, "a: not well\nb: away"},
		"not 200":                {checks{fixed("a", away)}, 503, check.ReasonFailed, "a: away"},
		"busy":                   {checks{fixed("a", up), fixed("b", busy)}, 503, check.ReasonBusy, "b: busy"},
		"busy, but another not":  {checks{fixed("a", busy), fixed("b", down), fixed("c", left)}, 503, check.ReasonFailed, "a: busy\nb: not well\nc: left"},
		"the caller has left":    {checks{fixed("a", left)}, 503, check.ReasonCancelled, "a: left"},
		"nothing but ours":       {checks{fixed("a", busy), fixed("b", left)}, 503, check.ReasonBusy, "a: busy\nb: left"},
		"none is configured":     {nil, 500, check.ReasonConfig, "No checks are configured for web; add to the configuration file: services: {web: {checks: [{type: tcp, port: 8080}]}}"},
		"the first counts":       {checks{fixed("a", down), fixed("b", busy)}, 503, check.ReasonFailed, "a: not well\nb: busy"},
		"odd names and no words": {checks{fixed("a\nb", check.Result{Code: 503})}, 503, check.ReasonFailed, "a b: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := askService(t, "checks", 0, c.checks...)
			if r.Code != c.code || r.Reason != c.reason || string(r.Body) != c.want || (r.Err == nil) != (r.Code == 200) || r.Took <= 0 {
				t.Errorf("%d %s %q (%v)", r.Code, r.Reason, r.Body, r.Err)
			}
			var want, got []string
			for _, c := range c.checks {
				want = append(want, c.Name)
			}
			for _, p := range r.Parts {
				got = append(got, p.Name)
			}
			if !slices.Equal(want, got) {
				t.Errorf("parts %q, want %q", got, want)
			}
		})
	}
}

// The text of many failures is cut to MaxBody.
func TestChecksBounded(t *testing.T) {
	long := check.Result{Code: 503, Reason: check.ReasonFailed, Body: []byte(strings.Repeat("x", 10_000)), Err: errors.New("why")}
	var checks []*check.ConfiguredCheck
	for i := range 100 {
		checks = append(checks, fixed(fmt.Sprint("c", i), long))
	}
	r := askService(t, "checks", 0, checks...)
	if r.Code != 503 || len(r.Body) > check.MaxBody || len(r.Body) < check.MaxBody/2 || !strings.Contains(string(r.Body), "\nnot shown: what ") {
		t.Errorf("%d, %d bytes: ...%s", r.Code, len(r.Body), r.Body[len(r.Body)-60:])
	}
}

// The checks of a service run in parallel, at most 64 at once, and each gets the service and port of the request.
func TestChecksSideBySide(t *testing.T) {
	const all = 100
	var mu sync.Mutex
	running, most := 0, 0
	full := make(chan struct{})
	once := sync.Once{}
	var checks []*check.ConfiguredCheck
	for i := range all {
		name := fmt.Sprint("c", i)
		run := func(ctx context.Context, target check.Target) check.Result {
			mu.Lock()
			running++
			most = max(most, running)
			if running == 64 {
				once.Do(func() { close(full) })
			}
			mu.Unlock()
			defer func() {
				mu.Lock()
				running--
				mu.Unlock()
			}()
			if target.Service != "web" || target.Port != 8080 {
				t.Errorf("asked about %s, port %d", target.Service, target.Port)
			}
			// Each blocks until 64 run at once.
			select {
			case <-full:
				return check.Result{Code: 200}
			case <-ctx.Done():
				return check.Result{Code: 503, Reason: check.ReasonTimeout, Err: ctx.Err()}
			}
		}
		checks = append(checks, &check.ConfiguredCheck{Name: name, Timeout: 10 * time.Second, Steps: []check.Step{check.StepOf(name, run)}})
	}
	if r := askService(t, "checks", 8080, checks...); r.Code != 200 || len(r.Parts) != all {
		t.Errorf("%d, %d results, %s", r.Code, len(r.Parts), r.Body)
	}
	if most != 64 {
		t.Errorf("%d at once", most)
	}
}

// After a failed step the other steps do not run.
func TestConfiguredSteps(t *testing.T) {
	var ran []string
	step := func(name string, code int) check.Step {
		return check.StepOf(name, func(context.Context, check.Target) check.Result {
			ran = append(ran, name)
			return check.Result{Code: code, Body: []byte(name)}
		})
	}
	c := &check.ConfiguredCheck{Timeout: time.Second, Steps: []check.Step{step("a", 200), step("b", 503), step("c", 200)}}
	if r := c.Check(t.Context(), check.Target{}); r.Code != 503 || string(r.Body) != "b" || r.Took <= 0 {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	if diff := cmp.Diff([]string{"a", "b"}, ran); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDefaultHost(t *testing.T) {
	d := check.Defaults{Host: "127.0.0.2"}
	options := map[string]any{"port": 80}
	if c := build(t, d, "tcp", options); c.Name != "tcp:127.0.0.2:80" || len(options) != 1 {
		t.Errorf("%s, of %v", c.Name, options)
	}
	if c := build(t, d, "tcp", map[string]any{"port": 80, "host": "::1"}); c.Name != "tcp:::1:80" {
		t.Errorf("%s", c.Name)
	}
	if c := build(t, d, "udp-listen", options); c.Name != "udp-listen:80" {
		t.Errorf("a host that need not be given: %s", c.Name)
	}
	if _, err := check.Build(check.Spec{Type: "tcp", Options: options}, check.Defaults{}); err == nil {
		t.Error("no host and no default")
	}
}

func TestAt(t *testing.T) {
	options := map[string]any{"host": "127.0.0.1", "port": 1, "send": "a", "expect": "b", "timeout": 3}
	c := build(t, check.Defaults{}, "udp", options)
	at, err := c.WithAddress("::1", 2)
	if err != nil || at.Name != "udp:::1:2" || at.Timeout != 3*time.Second || c.Name != "udp:127.0.0.1:1" || options["port"] != 1 {
		t.Errorf("%+v, %v, of %v", at, err, options)
	}
	_, err = build(t, check.Defaults{}, "script", map[string]any{"command": "true"}).WithAddress("::1", 2)
	var option *check.OptionError
	if !errors.As(err, &option) {
		t.Errorf("a type without host and port: %v", err)
	}
}

// URL protocols that are types take all options but host and port from the service's first check of this type.
func TestTypedProtocols(t *testing.T) {
	options := func(send, expect string) map[string]any {
		return map[string]any{"host": "192.0.2.1", "port": 1, "send": send, "expect": expect}
	}
	d := check.Defaults{}
	port := checktest.ServeUDP(t, "127.0.0.1", pong)
	right, wrong := build(t, d, "udp", options("ping", "pong")), build(t, d, "udp", options("ping", "what"))
	if r := askService(t, "udp", port, fixed("a", check.Result{}), right, wrong); r.Code != 200 {
		t.Errorf("the first of two: %d %s", r.Code, r.Body)
	}
	if r := askService(t, "udp", port, wrong, right); r.Reason != check.ReasonFailed {
		t.Errorf("the first of two: %d %s", r.Code, r.Body)
	}
	r := askService(t, "udp", 514, fixed("a", check.Result{}))
	if want := "No check of type udp is configured for web; add to the configuration file: services: {web: {checks: [{type: udp, port: 514, send: ..., expect: ...}]}}"; r.Code != 500 || r.Reason != check.ReasonConfig || string(r.Body) != want {
		t.Errorf("none: %d %s %s", r.Code, r.Reason, r.Body)
	}

	// tls works without a configured check, and verifies certificates as https does.
	a := newAuthority(t)
	s := tlsServer(t, issue(t, loopback(), a))
	target := check.Target{Protocol: "tls", Service: "web", Host: s.Host, Port: s.Port}
	strict := build(t, d, "tls", map[string]any{"host": "192.0.2.1", "port": 1})
	lax := build(t, d, "tls", map[string]any{"host": "192.0.2.1", "port": 1, "disable_tls_verification": true})
	for name, c := range map[string]struct {
		options check.Options
		code    int
	}{
		"as https":              {check.Options{}, 200},
		"tls_verify":            {check.Options{TLSVerify: true}, 503},
		"tls_verify, trusted":   {check.Options{TLSVerify: true, TLSRoots: a.pool()}, 200},
		"configured, strict":    {check.Options{Services: map[string][]*check.ConfiguredCheck{"web": {strict}}}, 503},
		"configured, lax":       {check.Options{TLSVerify: true, Services: map[string][]*check.ConfiguredCheck{"web": {lax}}}, 200},
		"of another service":    {check.Options{Services: map[string][]*check.ConfiguredCheck{"other": {strict}}}, 200},
		"of another type, none": {check.Options{Services: map[string][]*check.ConfiguredCheck{"web": {right}}}, 200},
	} {
		if r := ask(t, c.options, target); r.Code != c.code {
			t.Errorf("%s: %d %s", name, r.Code, r.Body)
		}
	}
}

// Every type can be built by each of its names, and has a description.
func TestTypes(t *testing.T) {
	names := map[string]bool{}
	for _, typ := range check.Types() {
		for _, name := range append([]string{typ.Name}, typ.Aliases...) {
			if names[name] {
				t.Errorf("two types are called %s", name)
			}
			names[name] = true
			_, err := check.Build(check.Spec{Type: name, Options: map[string]any{"no such": 1}}, check.Defaults{})
			var option *check.OptionError
			if !errors.As(err, &option) || !strings.Contains(err.Error(), "no such option of "+typ.Name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if typ.Doc == "" {
			t.Errorf("%s has no sentence", typ.Name)
		}
		for _, o := range typ.Options {
			if o.Doc == "" || o.Want == "" || o.Required && o.Default != "" {
				t.Errorf("option %s of %s is not described: %+v", o.Name, typ.Name, o)
			}
		}
	}
	if _, err := check.Build(check.Spec{Type: "no-such"}, check.Defaults{}); err == nil || !strings.HasPrefix(err.Error(), "type: expected one of tcp, ") {
		t.Errorf("no such type: %v", err)
	}
}

// Targets have one canonical form if they differ only in what the checks of the service do not use.
func TestCanonical(t *testing.T) {
	script := map[string]any{"command": "true", "ports": []any{7001}}
	services := map[string][]*check.ConfiguredCheck{
		"script": {build(t, check.Defaults{}, "script", map[string]any{"command": "true"})},
		"both":   {build(t, check.Defaults{}, "script", script), build(t, check.Defaults{}, "tcp", map[string]any{"host": "127.0.0.1", "port": 80})},
		"tcp":    {build(t, check.Defaults{}, "tcp", map[string]any{"host": "127.0.0.1", "port": 80})},
		"http":   {build(t, check.Defaults{}, "http", map[string]any{"url": "http://127.0.0.1:80/"})},
		"tls":    {build(t, check.Defaults{}, "tls", map[string]any{"host": "127.0.0.1", "port": 80})},
	}
	set := check.All(check.Options{Services: services})
	reduce := func(target check.Target) check.Target {
		p := set[target.Protocol]
		if p.Canonical != nil {
			target = p.Canonical(target)
		}
		if !p.ForwardsHops {
			target.Hops = 0 // as the cache key has it
		}
		return target
	}
	type row struct {
		service string
		port    uint16
		hops    uint8
	}
	for in, want := range map[row]row{
		{"script", 80, 1}: {"script", 0, 0},
		{"both", 80, 1}:   {"both", 80, 0},
		{"both", 7001, 1}: {"both", 7001, 0},
		{"both", 7002, 1}: {"both", 0, 0},
		{"tcp", 80, 1}:    {"tcp", 0, 0},
		{"http", 80, 1}:   {"http", 0, 1},
		{"none", 80, 1}:   {"none", 0, 0},
	} {
		got := reduce(check.Target{Protocol: "checks", Service: in.service, Host: "192.0.2.1", Port: in.port, Hops: in.hops})
		if diff := cmp.Diff(check.Target{Protocol: "checks", Service: want.service, Port: want.port, Hops: want.hops}, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", in, diff)
		}
	}
	header := []check.Field{{Name: "Host", Value: "a"}}
	for _, c := range []struct{ in, want check.Target }{
		{check.Target{Protocol: "tls", Service: "tls", Hops: 2}, check.Target{Protocol: "tls", Service: "tls"}},
		{check.Target{Protocol: "tls", Service: "invented"}, check.Target{Protocol: "tls"}},
		{check.Target{Protocol: "grpc", Service: "invented", Hops: 2}, check.Target{Protocol: "grpc", Hops: 2}},
		{check.Target{Protocol: "postgres", Service: "invented"}, check.Target{Protocol: "postgres", Service: "invented"}}, // it is in the answer
		{check.Target{Protocol: "redis-info", URI: "/a?b", Header: header}, check.Target{Protocol: "redis-info", URI: "/"}},
		{check.Target{Protocol: "redis-info", URI: "//match/?a=b", Header: header}, check.Target{Protocol: "redis-info", URI: "//match/?a=b"}},
		{check.Target{Protocol: "http", URI: "/a?b", Header: header, Hops: 1}, check.Target{Protocol: "http", URI: "/a?b", Header: header, Hops: 1}},
		{check.Target{Protocol: "tcp", Hops: 1}, check.Target{Protocol: "tcp"}},
	} {
		c.in.Host, c.in.Port, c.want.Host, c.want.Port = "192.0.2.1", 80, "192.0.2.1", 80
		if diff := cmp.Diff(c.want, reduce(c.in)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.in, diff)
		}
	}
	copied := check.Options{ServiceNameHeader: "X-Service"}.HeadersToCopy([]string{"Host", "x-service", "user-agent", "Accept-Encoding", "x-hacheck-hops", "Cookie"})
	if diff := cmp.Diff([]string{"Host", "user-agent", "Cookie"}, copied); diff != "" {
		t.Errorf("headers that are copied (-want +got):\n%s", diff)
	}
}
