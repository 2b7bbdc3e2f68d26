package fleet

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/test/servertest"
)

func TestMain(m *testing.M) {
	servertest.Detach()
	goleak.VerifyTestMain(m)
}

// testIndex is an index that holds fleet overrides only.
type testIndex struct {
	mu    sync.Mutex
	list  []spool.Entry
	t     *testing.T
	least int // overrides; fewer fail t
}

func (x *testIndex) SetFleet(list []spool.Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = list
	if len(list) < x.least {
		x.t.Errorf("the index has %d overrides of the fleet, want %d", len(list), x.least)
	}
}

// neverWithout fails the test from now on if the index ever has fewer overrides.
func (x *testIndex) neverWithout(t *testing.T, least int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t, x.least = t, least
}

func (x *testIndex) mayBeWithout() { x.neverWithout(nil, 0) }

func (x *testIndex) List() []spool.Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	var list []spool.Entry
	for _, e := range x.list {
		if !e.Expired(now) {
			list = append(list, e)
		}
	}
	return list
}

// has returns the override of a scope and service that is in force.
func (x *testIndex) has(scope, service string) *spool.Entry {
	for _, e := range x.List() {
		if e.Scope == scope && e.Key.Name() == service {
			return &e
		}
	}
	return nil
}

// testLog is a log that tests read.
type testLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// testHost is a Fleet with what it uses.
type testHost struct {
	*Fleet
	t     *testing.T
	index *testIndex
	log   *testLog
	o     Options
}

// newHost starts a Fleet as host. mend changes its options.
func newHost(t *testing.T, etcd *servertest.EtcdServer, host string, mend ...func(*Options)) *testHost {
	t.Helper()
	h := &testHost{t: t, index: &testIndex{}, log: &testLog{}}
	h.o = Options{
		Endpoints: etcd.URLs(), Prefix: "/hacheck/", Host: host, Lease: 5 * time.Second, StartWait: 5 * time.Second,
		StateDir: t.TempDir(), Version: "1.2.3", Overrides: h.index,
		Credentials: func() (Credentials, error) { return Credentials{}, nil },
		Log:         slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, m := range mend {
		m(&h.o)
	}
	h.open()
	t.Cleanup(func() {
		h.close()
		if t.Failed() {
			h.log.mu.Lock()
			defer h.log.mu.Unlock()
			t.Logf("log of %s:\n%s", host, h.log.buf.String())
		}
	})
	return h
}

// open starts the Fleet, also again after close.
func (h *testHost) open() {
	h.t.Helper()
	f, err := Open(h.o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Fleet = f
}

func (h *testHost) close() {
	if h.Fleet != nil {
		_ = h.Close()
		h.Fleet = nil
	}
}

// startWait sets how long Open waits.
func startWait(d time.Duration) func(*Options) { return func(o *Options) { o.StartWait = d } }

// waitFor waits up to 20 s until ok returns true.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	waitAtMost(t, 20*time.Second, what, ok)
}

func waitAtMost(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, what)
		case <-again.C:
		}
	}
}

// waitRegistered waits until every host is registered and has written applied/<host>.
func waitRegistered(t *testing.T, hosts ...*testHost) {
	t.Helper()
	for _, h := range hosts {
		waitFor(t, h.o.Host+" is registered", func() bool {
			if _, err := h.conn.registration(); err != nil {
				return false
			}
			r, err := h.conn.get(t.Context(), h.o.Prefix+"applied/"+h.o.Host)
			return err == nil && len(r.Kvs) == 1
		})
	}
}

// webDown returns an override of web for a scope.
func webDown(scope, reason, by string) ScopedOverride {
	return ScopedOverride{
		Scopes: []string{scope}, Keys: []spool.Key{{Service: "web"}},
		Override: spool.Entry{State: spool.Down, Reason: reason, By: by},
	}
}

// set sets an override and fails the test unless every host applies it.
func (h *testHost) set(o ScopedOverride) {
	h.t.Helper()
	mustApply(h.t)(h.SetOverride(within(h.t, 15*time.Second), o, nil))
}

// lift lifts an override and fails the test unless every host applies that.
func (h *testHost) lift(o ScopedOverride) {
	h.t.Helper()
	mustApply(h.t)(h.LiftOverride(within(h.t, 15*time.Second), o, nil))
}

func mustApply(t *testing.T) func(o report.Outcome, err error) {
	t.Helper()
	return func(o report.Outcome, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Missing) > 0 {
			t.Fatalf("not applied by %q", o.Missing)
		}
	}
}

// within returns a context that ends after d or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// put writes a raw value below the prefix.
func put(t *testing.T, h *testHost, key, value string) {
	t.Helper()
	client, err := h.conn.etcd()
	if err == nil {
		_, err = client.Put(within(t, 5*time.Second), h.o.Prefix+key, value)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// raw returns the JSON of an override with an id.
func raw(id, extra string) string {
	return fmt.Sprintf(`{"v":1,"id":%q,"state":"down","by":"op","created":%q%s}`, id, time.Now().UTC().Format(time.RFC3339Nano), extra)
}
