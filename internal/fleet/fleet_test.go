package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hacheck/internal/spool"
	"hacheck/test/servertest"
)

// TestOverrideReachesHostsOfItsScope: when SetOverride returns, every lookup on every host of the scope sees the
// override; when LiftOverride returns, none does.
func TestOverrideReachesHostsOfItsScope(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	group := func(o *Options) { o.Groups = []string{"rack7"} }
	a, b, c := newHost(t, etcd, "a", group), newHost(t, etcd, "b", group), newHost(t, etcd, "c")
	waitRegistered(t, a, b, c)

	tests := []struct {
		scope string
		hosts []*testHost
	}{
		{"all", []*testHost{a, b, c}},
		{"group:rack7", []*testHost{a, b}},
		{"host:c", []*testHost{c}},
	}
	for _, tt := range tests {
		o := webDown(tt.scope, "new kernel", "jane")
		c.set(o)
		for _, h := range []*testHost{a, b, c} {
			want := false
			for _, x := range tt.hosts {
				want = want || x == h
			}
			e := h.index.has(tt.scope, "web")
			if (e != nil) != want {
				t.Errorf("%s on %s: in force %v, want %v", tt.scope, h.o.Host, e != nil, want)
			}
			if e != nil && (e.Reason != "new kernel" || e.By != "jane" || e.State != spool.Down || e.Created.IsZero()) {
				t.Errorf("%s on %s: %+v", tt.scope, h.o.Host, e)
			}
		}
		a.lift(o)
		for _, h := range []*testHost{a, b, c} {
			if e := h.index.has(tt.scope, "web"); e != nil {
				t.Errorf("%s on %s after the lift: %+v", tt.scope, h.o.Host, e)
			}
		}
	}
}

// TestSeveralScopesInOneCommand: each host waits for the scopes that concern it, not for the last key that was written.
func TestSeveralScopesInOneCommand(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	a, b := newHost(t, etcd, "a"), newHost(t, etcd, "b")
	waitRegistered(t, a, b)
	o := webDown("host:a", "disk", "jane")
	o.Scopes = []string{"host:a", "host:b", "host:gone"}
	a.set(o)
	if a.index.has("host:a", "web") == nil || b.index.has("host:b", "web") == nil {
		t.Error("a host does not obey the override of its name")
	}
	b.lift(o)
	if len(a.index.List())+len(b.index.List()) > 0 {
		t.Errorf("after the lift: %+v, %+v", a.index.List(), b.index.List())
	}
}

// TestOverrideOfAnotherPerson is refused without Replace, and the refusal names the person and the reason.
func TestOverrideOfAnotherPerson(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a")
	waitRegistered(t, h)
	h.set(webDown("all", "disk full", "jane"))
	h.set(webDown("all", "disk still full", "jane"))
	o := webDown("all", "mine", "joe")
	_, err := h.SetOverride(within(t, 5*time.Second), o, nil)
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "jane") || !strings.Contains(err.Error(), "disk still full") {
		t.Fatalf("got %v", err)
	}
	if e := h.index.has("all", "web"); e == nil || e.By != "jane" {
		t.Fatalf("after a refusal: %+v", e)
	}
	o.Replace = true
	h.set(o)
	if e := h.index.has("all", "web"); e == nil || e.By != "joe" {
		t.Fatalf("after a replacement: %+v", e)
	}
}

// TestWrongOverrides are refused before anything is written.
func TestWrongOverrides(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a")
	waitRegistered(t, h)
	for name, mend := range map[string]func(*ScopedOverride){
		"no person":        func(o *ScopedOverride) { o.Override.By = "" },
		"unknown scope":    func(o *ScopedOverride) { o.Scopes = []string{"rack7"} },
		"empty group":      func(o *ScopedOverride) { o.Scopes = []string{"group:"} },
		"slash in a host":  func(o *ScopedOverride) { o.Scopes = []string{"host:a/b"} },
		"no scope":         func(o *ScopedOverride) { o.Scopes = nil },
		"instance of all":  func(o *ScopedOverride) { o.Keys = []spool.Key{{Service: "all", Port: 80}} },
		"odd service":      func(o *ScopedOverride) { o.Keys = []spool.Key{{Service: "../web"}} },
		"no state":         func(o *ScopedOverride) { o.Override.State = spool.Ready },
		"ends in the past": func(o *ScopedOverride) { o.Override.Expires = time.Now().Add(-time.Hour) },
	} {
		o := webDown("all", "", "jane")
		mend(&o)
		_, err := h.SetOverride(within(t, 5*time.Second), o, nil)
		var refused *RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	kvs, err := h.readPrefix(t.Context(), overridesPrefix)
	if err != nil || len(kvs) != 0 {
		t.Fatalf("%d keys were written (%v)", len(kvs), err)
	}
}

// TestOverrideExpires: an override ends by its time on every host, and its end is in the entry of the index.
func TestOverrideExpires(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a")
	waitRegistered(t, h)
	o := webDown("all", "", "jane")
	o.Override.Expires = time.Now().Add(1500 * time.Millisecond)
	h.set(o)
	if e := h.index.has("all", "web"); e == nil || !e.Expires.Equal(o.Override.Expires.Round(0)) {
		t.Fatalf("got %+v, want the end %v", e, o.Override.Expires)
	}
	waitFor(t, "the override has expired", func() bool { return h.index.has("all", "web") == nil && h.Status().Overrides == 0 })
}

// TestMissingAbsentAndLeft: a command names the hosts that have not followed, and why.
func TestMissingAbsentAndLeft(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	a, b, gone := newHost(t, etcd, "a"), newHost(t, etcd, "b"), newHost(t, etcd, "gone")
	waitRegistered(t, a, b, gone)
	gone.close()
	if err := b.Leave("joe"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "b has published that it has left", func() bool {
		r, err := a.conn.get(t.Context(), "/hacheck/applied/b")
		return err == nil && len(r.Kvs) == 1 && strings.Contains(string(r.Kvs[0].Value), `"left":true`)
	})
	put(t, a, "present/frozen", `{"v":1,"instance":"x","boot":"y"}`)

	var texts []string
	out, err := a.SetOverride(within(t, 2*time.Second), webDown("all", "", "jane"), func(s string) { texts = append(texts, s) })
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(out.Missing, " ") + "|" + strings.Join(out.Absent, " ") + "|" + strings.Join(out.Left, " "); got != "frozen|gone|b" {
		t.Errorf("missing|absent|left: %s", got)
	}
	if len(texts) == 0 || !strings.Contains(texts[len(texts)-1], "frozen") {
		t.Errorf("progress: %q", texts)
	}
	if b.index.has("all", "web") != nil {
		t.Error("a host that has left obeys")
	}

	gone.open() // obeys when it is back
	if gone.index.has("all", "web") == nil {
		t.Error("a host that was absent does not obey at its start")
	}
	b.close()
	b.open()
	if b.index.has("all", "web") != nil || !b.Status().Left {
		t.Error("a host that has left obeys after its restart")
	}
	waitRegistered(t, b)
	if err := b.Join("joe"); err != nil {
		t.Fatal(err)
	}
	if b.index.has("all", "web") == nil || b.Status().Left {
		t.Error("a host that has joined does not obey")
	}
}

// TestStillDown: after a lift the command names members that something else keeps out.
func TestStillDown(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a", func(o *Options) { o.Groups = []string{"eu"} })
	waitRegistered(t, h)
	put(t, h, "state/web/a", `{"v":1,"state":"up","since":"2026-01-01T00:00:00Z","groups":["eu"]}`)
	put(t, h, "state/web/b", `{"v":1,"state":"maint","since":"2026-01-01T00:00:00Z","by":"bob","reason":"ssd"}`)
	put(t, h, "state/web/c", `{"v":1,"state":"down","since":"2026-01-01T00:00:00Z","scope":"all"}`)
	put(t, h, "state/db/b", `{"v":1,"state":"down","since":"2026-01-01T00:00:00Z"}`)
	h.set(webDown("all", "", "jane"))
	h.set(webDown("group:eu", "racks move", "joe"))
	out, err := h.LiftOverride(within(t, 10*time.Second), webDown("all", "", "jane"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range out.StillDown {
		got = append(got, d.Host+" "+d.Service+" "+d.State+" "+d.Scope+" "+d.By+" "+d.Reason)
	}
	if want := "a web down group:eu joe racks move, b web maint  bob ssd"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, ", "), want)
	}
}

// TestReportHasOwnChanges: a report is shared for some seconds, but it has what this host has changed, and the budgets of
// services without members.
func TestReportHasOwnChanges(t *testing.T) {
	t.Parallel()
	a := newHost(t, servertest.Etcd(t), "a")
	waitRegistered(t, a)
	wantBudgets := func(want string) {
		t.Helper()
		r, err := a.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Budgets); got != want {
			t.Errorf("budgets: %s, want %s", got, want)
		}
	}
	wantBudgets("[]")
	for _, service := range []string{"web", "*"} {
		if err := a.SetBudget(t.Context(), service, "25%", "op"); err != nil {
			t.Fatal(err)
		}
	}
	wantBudgets("[{* 25%} {web 25%}]")
	if err := a.SetBudget(t.Context(), "web", "", "op"); err != nil {
		t.Fatal(err)
	}
	wantBudgets("[{* 25%}]")
}

// TestUnknownScopes: a command names the hosts and groups that the fleet does not know, which may be mistyped.
func TestUnknownScopes(t *testing.T) {
	t.Parallel()
	a := newHost(t, servertest.Etcd(t), "a", func(o *Options) { o.Groups = []string{"rack7"} })
	waitRegistered(t, a)
	for scope, want := range map[string]string{"all": "", "host:a": "", "group:rack7": "", "host:b": "host:b", "group:rak7": "group:rak7"} {
		out, err := a.SetOverride(within(t, 10*time.Second), webDown(scope, "why", "op"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(out.Unknown, " "); got != want {
			t.Errorf("%s: %q, want %q", scope, got, want)
		}
	}
}

// TestReportOfATakenName: a report says what is wrong on this host, also while etcd answers.
func TestReportOfATakenName(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	a := newHost(t, etcd, "a")
	waitRegistered(t, a)
	second := newHost(t, etcd, "a", startWait(time.Second))
	waitFor(t, "the second host is refused", second.conn.isRefused)
	r, err := second.Report(t.Context())
	if err != nil || !r.Connected || !strings.Contains(r.Error, "another daemon has the name a") {
		t.Errorf("connected %v, error %q; %v", r.Connected, r.Error, err)
	}
	if r, err = a.Report(t.Context()); err != nil || r.Error != "" {
		t.Errorf("the first host: error %q; %v", r.Error, err)
	}
}
