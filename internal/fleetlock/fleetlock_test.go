package fleetlock_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/fleet"
	"hacheck/internal/fleetlock"
	"hacheck/internal/health"
	"hacheck/internal/proxy"
	"hacheck/internal/spool"
	"hacheck/internal/web"
)

// testFleet grants a permit at once, refuses it with an error, or waits until the request ends.
type testFleet struct {
	dir *spool.Dir

	mu      sync.Mutex
	err     error         // of the next requests
	waiting chan struct{} // gets an element when a request waits; nil: none waits
	ended   chan error    // gets the error of the context of a request that waited
	granted int
}

// behave sets what the next requests find.
func (f *testFleet) behave(err error, waiting chan struct{}, ended chan error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.waiting, f.ended = err, waiting, ended
}

// permits returns how many permits were granted.
func (f *testFleet) permits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.granted
}

// TakeDown implements fleetlock.Fleet.
func (f *testFleet) TakeDown(ctx context.Context, t fleet.Takedown, _ fleet.Progress) error {
	f.mu.Lock()
	err, waiting, ended := f.err, f.waiting, f.ended
	if err == nil && waiting == nil {
		f.granted++
	}
	f.mu.Unlock()
	if waiting != nil {
		waiting <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	e := t.Override
	e.Key = t.Keys[0]
	return f.dir.Write(e)
}

// serverLimit is how long the server gives a request and its answer, unless the handler says otherwise.
const serverLimit = 2 * time.Second

// host is a daemon with its spool, on a port of its own.
type host struct {
	fleet *testFleet
	dir   *spool.Dir
	index *spool.Index
	url   string
}

func startHost(t *testing.T) *host {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	dir, err := spool.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	index, err := spool.OpenIndex(dir, spool.IndexOptions{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = index.Close() })
	h := &host{fleet: &testFleet{dir: dir}, dir: dir, index: index}

	checks := check.All(check.Options{})
	evaluator := health.New(health.Options{
		Overrides: index, Checks: checks, Timeout: 5 * time.Second, MaxClients: 50, CacheMaxEntries: 10, CacheMaxBytes: 1 << 20, Log: log,
	})
	pages := web.New(web.Options{Log: log, Balancers: balancer.New(), Overrides: index}, web.Settings{Evaluator: evaluator})
	handler := fleetlock.New(fleetlock.Options{
		Fleet: h.fleet, Spool: dir, Overrides: index, Log: log,
		Balancers: func() balancer.Report {
			r := pages.BalancerReport()
			r.Uptime += 1000 // the daemon has listened for so long that it knows every balancer
			return r
		},
	})
	server := proxy.New(proxy.Options{Log: log, Recorder: pages, Pages: pages, FleetLock: handler}, proxy.Settings{
		Evaluator: evaluator, Checks: checks, CheckHost: "127.0.0.1",
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + listener.Addr().String()
	s := server.HTTPServer(time.Second)
	s.ReadTimeout, s.WriteTimeout = serverLimit, serverLimit
	done := make(chan struct{})
	go func() { _ = s.Serve(server.Listener(listener)); close(done) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return h
}

const body = `{"client_params": {"id": "abc", "group": "default"}}`

// post sends a request of the protocol and returns the code and the error in the answer.
func (h *host) post(ctx context.Context, path, body string, headers ...string) (code int, kind, value string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	r.Header.Set("fleet-lock-protocol", "true")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", "", err
	}
	var answer struct{ Kind, Value string }
	if resp.StatusCode != http.StatusOK || len(b) > 0 {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&answer); err != nil {
			return resp.StatusCode, "", string(b), nil
		}
	}
	return resp.StatusCode, answer.Kind, answer.Value, nil
}

// mustPost is post of a request that gets an answer with this code, and returns the text of the answer.
func (h *host) mustPost(t *testing.T, path string, want int) string {
	t.Helper()
	code, _, value, err := h.post(t.Context(), path, body)
	if err != nil || code != want {
		t.Fatalf("%s: %d %q %v, want %d", path, code, value, err, want)
	}
	return value
}

// balancerAsks sends a check of a balancer that has the server in that state.
func (h *host) balancerAsks(t *testing.T, state string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/spool/web/0/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(balancer.StateHeader, state+"; name=be/web1; node=lb1; weight=1/2; scur=0/2; qcur=0")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// all returns the override of all in the spool, as its state, by whom and why. It returns "" for none.
func (h *host) all(t *testing.T) string {
	t.Helper()
	e, err := h.dir.Read(spool.Key{Service: spool.All})
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return e.State.String() + " " + e.By + " " + e.Reason
}

// waitFor polls until is returns true.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

const ours = "drain fleetlock reboot by abc (group default)"

// TestReboot: pre-reboot takes the host out, steady-state puts it back, and both may be repeated.
func TestReboot(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.mustPost(t, fleetlock.SteadyStatePath, 200) // a client sends it at every start
	h.mustPost(t, fleetlock.PreRebootPath, 200)
	if got := h.all(t); got != ours {
		t.Errorf("the override is %q, want %q", got, ours)
	}
	h.mustPost(t, fleetlock.PreRebootPath, 200)
	if h.fleet.permits() != 1 {
		t.Errorf("%d permits for one reboot", h.fleet.permits())
	}
	h.mustPost(t, fleetlock.SteadyStatePath, 200)
	h.mustPost(t, fleetlock.SteadyStatePath, 200)
	if got := h.all(t); got != "" {
		t.Errorf("after steady-state: %q", got)
	}
	h.mustPost(t, fleetlock.PreRebootPath, 200)
	if h.all(t) != ours || h.fleet.permits() != 2 {
		t.Errorf("the second reboot: %q, %d permits", h.all(t), h.fleet.permits())
	}
}

// TestPreRebootWaitsForBalancers: the answer comes after a balancer that had the server up has it out.
func TestPreRebootWaitsForBalancers(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.balancerAsks(t, "UP")
	answered := make(chan error, 1)
	go func() {
		code, _, value, err := h.post(t.Context(), fleetlock.PreRebootPath, body)
		if err == nil && code != 200 {
			err = errors.New(value)
		}
		answered <- err
	}()
	waitFor(t, "the override", func() bool { return h.all(t) == ours })
	h.balancerAsks(t, "UP") // it gets the answer with the override
	select {
	case err := <-answered:
		t.Fatalf("answered while the balancer had the host up: %v", err)
	case <-time.After(time.Second):
	}
	h.balancerAsks(t, "NOLB 2/2")
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

// TestPreRebootOutlastsTheServersLimits: an answer takes longer than a check may, and the request is not cut off.
func TestPreRebootOutlastsTheServersLimits(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.balancerAsks(t, "UP")
	answered := make(chan string, 1)
	go func() {
		code, _, value, err := h.post(t.Context(), fleetlock.PreRebootPath, body)
		answered <- http.StatusText(code) + value + errorText(err)
	}()
	waitFor(t, "the override", func() bool { return h.all(t) == ours })
	// The balancer asks every second, so that it is not silent, until the limits have passed twice over.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < 2*serverLimit; {
		h.balancerAsks(t, "UP")
		select {
		case text := <-answered:
			t.Fatalf("answered too early: %s", text)
		case <-tick.C:
		}
	}
	h.balancerAsks(t, "NOLB 2/2")
	if text := <-answered; text != "OK" {
		t.Fatal(text)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestOperatorsOverrides: pre-reboot overwrites no override of a person, and steady-state lifts none.
func TestOperatorsOverrides(t *testing.T) {
	t.Parallel()
	key := spool.Key{Service: spool.All}
	for _, c := range []struct {
		name     string
		override spool.Entry
		fleet    bool
		want     int
	}{
		{"down", spool.Entry{Key: key, State: spool.Down, By: "alice", Reason: "disk"}, false, 200},
		{"maint by an old tool", spool.Entry{Key: key, State: spool.Maint, Reason: "disk"}, false, 200},
		{"drain of the whole fleet", spool.Entry{Key: key, State: spool.Drain, By: "alice", Reason: "disk", Scope: "all"}, true, 200},
		{"forced up", spool.Entry{Key: key, State: spool.ForceUp, By: "alice", Reason: "disk"}, false, 409},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t)
			if c.fleet {
				h.index.SetFleet([]spool.Entry{c.override})
			} else if err := h.dir.Write(c.override); err != nil {
				t.Fatal(err)
			}
			before := h.all(t)
			text := h.mustPost(t, fleetlock.PreRebootPath, c.want)
			if c.want == 409 && text != "all is forced up by alice: disk; lift it with haup all" {
				t.Errorf("%q", text)
			}
			h.mustPost(t, fleetlock.SteadyStatePath, 200)
			if after := h.all(t); after != before || h.fleet.permits() != 0 {
				t.Errorf("%q became %q, with %d permits", before, after, h.fleet.permits())
			}
			if list := h.index.List(); len(list) != 1 || list[0].State != c.override.State {
				t.Errorf("%+v", list)
			}
		})
	}
	t.Run("set over ours", func(t *testing.T) {
		t.Parallel()
		h := startHost(t)
		h.mustPost(t, fleetlock.PreRebootPath, 200)
		if err := h.dir.Write(spool.Entry{Key: key, State: spool.Maint, By: "alice", Reason: "disk"}); err != nil {
			t.Fatal(err)
		}
		h.mustPost(t, fleetlock.SteadyStatePath, 200)
		if got := h.all(t); got != "maint alice disk" {
			t.Errorf("steady-state made it %q", got)
		}
	})
	t.Run("of one service", func(t *testing.T) {
		t.Parallel()
		h := startHost(t)
		if err := h.dir.Write(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down, By: "alice"}); err != nil {
			t.Fatal(err)
		}
		h.mustPost(t, fleetlock.PreRebootPath, 200)
		if h.all(t) != ours {
			t.Errorf("%q, want ours: the other services are in", h.all(t))
		}
	})
}

// TestLiftedMeanwhile: a pre-reboot whose override an operator lifts is refused.
func TestLiftedMeanwhile(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	h.balancerAsks(t, "UP")
	answered := make(chan int, 1)
	go func() {
		code, _, _, _ := h.post(t.Context(), fleetlock.PreRebootPath, body)
		answered <- code
	}()
	waitFor(t, "the override", func() bool { return h.all(t) == ours })
	h.mustPost(t, fleetlock.SteadyStatePath, 200)
	if code := <-answered; code != 409 {
		t.Errorf("%d, want 409", code)
	}
}

// TestRefusals: the answer has the reason of the fleet, and nothing is written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		code  int
		kind  string
		value string
	}{
		{&fleet.RefusedError{Reason: "web: 2 of 8 hosts are out\x1b[2J"}, 409, "refused", "web: 2 of 8 hosts are out [2J"},
		{&fleet.UnavailableError{Err: errors.New("no leader")}, 503, "unavailable", "etcd cannot be asked: no leader"},
		{errors.New("disk full"), 500, "internal", "disk full"},
	} {
		h := startHost(t)
		h.fleet.behave(c.err, nil, nil)
		code, kind, value, err := h.post(t.Context(), fleetlock.PreRebootPath, body)
		if err != nil || code != c.code || kind != c.kind || value != c.value {
			t.Errorf("%v: %d %q %q %v", c.err, code, kind, value, err)
		}
		if h.all(t) != "" {
			t.Errorf("%v: %q", c.err, h.all(t))
		}
		h.mustPost(t, fleetlock.SteadyStatePath, 200) // needs no etcd
	}
}

// TestDisconnect: a client that closes its connection before the override is written takes its request back.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	waiting, ended := make(chan struct{}, 1), make(chan error, 1)
	h.fleet.behave(nil, waiting, ended)
	ctx, cut := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, _, _, err := h.post(ctx, fleetlock.PreRebootPath, body)
		answered <- err
	}()
	<-waiting
	cut()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the fleet is not told within 10 s that the client is gone")
	}
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("answered: %v", err)
	}
	if h.all(t) != "" {
		t.Errorf("%q", h.all(t))
	}
	h.fleet.behave(nil, nil, nil)
	h.mustPost(t, fleetlock.PreRebootPath, 200) // the first request has left nothing behind
}

// TestRequestsAtOnce: a client that asks without end fills nothing but its own places.
func TestRequestsAtOnce(t *testing.T) {
	t.Parallel()
	const most = 8
	h := startHost(t)
	h.fleet.behave(nil, make(chan struct{}, most), make(chan error, most))
	ctx, cut := context.WithTimeout(t.Context(), 20*time.Second)
	answered := make(chan int, most+1)
	for range most + 1 {
		go func() {
			code, _, _, _ := h.post(ctx, fleetlock.PreRebootPath, body)
			answered <- code
		}()
	}
	if code := <-answered; code != 503 {
		t.Errorf("%d, want 503", code)
	}
	cut()
	for range most {
		if code := <-answered; code != 0 {
			t.Errorf("%d, want no answer", code)
		}
	}
}

// TestBadRequests: every wrong request gets an error of the protocol, and changes nothing.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	for _, path := range []string{fleetlock.PreRebootPath, fleetlock.SteadyStatePath} {
		for name, c := range map[string]struct {
			body    string
			headers []string
			code    int
		}{
			"no header":         {body, []string{"fleet-lock-protocol", ""}, 400},
			"false header":      {body, []string{"fleet-lock-protocol", "false"}, 400},
			"no body":           {"", nil, 400},
			"no JSON":           {"id=abc", nil, 400},
			"no client":         {"{}", nil, 400},
			"no id":             {`{"client_params": {"group": "default"}}`, nil, 400},
			"no group":          {`{"client_params": {"id": "abc"}}`, nil, 400},
			"other types":       {`{"client_params": [1]}`, nil, 400},
			"two documents":     {body + body, nil, 400},
			"body of 1 MB":      {`{"client_params": {"id": "` + strings.Repeat("a", 1<<20) + `", "group": "g"}}`, nil, 400},
			"a page of a site":  {body, []string{"Origin", "http://evil.example"}, 403},
			"a page by address": {body, []string{"Sec-Fetch-Site", "same-origin"}, 403},
		} {
			if code, kind, value, err := h.post(t.Context(), path, c.body, c.headers...); err != nil || code != c.code || kind == "" || value == "" {
				t.Errorf("%s: %s: %d %q %q %v, want %d", path, name, code, kind, value, err, c.code)
			}
		}
		resp, err := http.Get(h.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
			t.Errorf("GET %s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	for _, path := range []string{"/v1/", "/v1/pre-reboot/", "/v1/other"} {
		if code, _, _, err := h.post(t.Context(), path, body); err != nil || code != 404 && code != 405 {
			t.Errorf("%s: %d %v", path, code, err)
		}
	}
	if h.all(t) != "" || h.fleet.permits() != 0 {
		t.Errorf("%q, %d permits", h.all(t), h.fleet.permits())
	}
}

// TestOtherMachines: only the loopback address may ask, no other address of this machine or of another.
func TestOtherMachines(t *testing.T) {
	t.Parallel()
	handler := fleetlock.New(fleetlock.Options{Log: slog.New(slog.DiscardHandler)})
	for _, peer := range []string{"192.0.2.7:1234", "[2001:db8::1]:1234", "[::ffff:192.0.2.7]:1234", "", "@"} {
		r := httptest.NewRequest(http.MethodPost, fleetlock.PreRebootPath, strings.NewReader(body))
		r.Header.Set("fleet-lock-protocol", "true")
		r.RemoteAddr = peer
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != 403 || !strings.Contains(w.Body.String(), `"kind":"forbidden"`) {
			t.Errorf("%q: %d %s", peer, w.Code, w.Body)
		}
	}
}
