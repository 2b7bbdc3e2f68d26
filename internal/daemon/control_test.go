package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/config"
	"hacheck/internal/control"
	"hacheck/internal/fleet"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
)

// ask sends a request to the control socket of a daemon.
func ask(t *testing.T, socket string, r control.Request) control.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	e, err := control.Do(ctx, socket, r, nil)
	if err != nil {
		t.Fatalf("%s: %v", r.Op, err)
	}
	return e
}

// Without a fleet every operation is answered at once, and names the key of the configuration.
func TestControlSocketWithoutFleet(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "control.sock")
	p := startDaemon(t, "--control-socket", socket)
	for _, op := range []string{control.OpTakeDown, control.OpHeldDown, control.OpReport, control.OpSet, control.OpLeave} {
		if e := ask(t, socket, control.Request{Op: op}); !e.NoFleet || e.Code == 0 || !strings.Contains(e.Error, "key fleet") {
			t.Errorf("%s: %+v, want that there is no fleet", op, e)
		}
	}
	if e := ask(t, socket, control.Request{Op: "restart"}); e.NoFleet || e.Code != control.CodeUsage {
		t.Errorf("an operation that does not exist: %+v", e)
	}

	// A second daemon does without the socket, and the first one keeps it.
	q := startDaemon(t, "--control-socket", socket)
	q.waitForLog(regexp.MustCompile(`level=WARN msg="there is no control socket.*another process listens on it`))
	if e := ask(t, socket, control.Request{Op: control.OpReport}); !e.NoFleet {
		t.Errorf("beside a second daemon: %+v", e)
	}

	// A daemon that was killed leaves its socket, and the next one replaces it.
	p.signal(syscall.SIGKILL)
	p.exit()
	if _, err := control.Do(t.Context(), socket, control.Request{}, nil); !errors.Is(err, control.ErrNoSocket) {
		t.Errorf("the socket of a daemon that was killed: %v, want ErrNoSocket", err)
	}
	r := startDaemon(t, "--control-socket", socket)
	if e := ask(t, socket, control.Request{Op: control.OpReport}); !e.NoFleet {
		t.Errorf("the next daemon: %+v", e)
	}
	r.signal(syscall.SIGTERM)
	r.wantExit(0)
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end of its daemon: %v", err)
	}
}

func TestControlSocketCannotBeMade(t *testing.T) {
	t.Parallel()
	p := startDaemon(t, "--control-socket", filepath.Join(t.TempDir(), "missing", "control.sock"))
	p.waitForLog(regexp.MustCompile(`level=WARN msg="there is no control socket`))
	p.mustGet("/spool/web/0/", 200)
	q := startDaemon(t, "--control-socket", "")
	q.mustGet("/spool/web/0/", 200)
	if strings.Contains(q.log(), "control socket") {
		t.Error("a daemon that is to have no control socket speaks of it")
	}
}

// A Unix socket of systemd is the control socket if it has that path. It never answers checks.
func TestInheritedControlSocket(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"control", "http", "unknown", "hacheck.socket"} {
		socket := filepath.Join(t.TempDir(), "s")
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		p := launchWithSockets(t, []fileListener{ln}, name, nil, "-B", "127.0.0.1", "-p", "0", "--control-socket", socket)
		p.waitReady()
		if len(p.addrs) != 1 || strings.Contains(p.addrs[0], socket) {
			t.Errorf("%s: it answers checks on %q", name, p.addrs)
		}
		if e := ask(t, socket, control.Request{Op: control.OpReport}); !e.NoFleet {
			t.Errorf("%s: %+v", name, e)
		}
		p.signal(syscall.SIGTERM)
		p.wantExit(0)
		if _, err := os.Lstat(socket); err != nil {
			t.Errorf("%s: the daemon has removed the socket of systemd: %v", name, err)
		}
	}
	socket := filepath.Join(t.TempDir(), "other")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := launchWithSockets(t, []fileListener{ln}, "http", nil, "-B", "127.0.0.1", "-p", "0", "--control-socket", "")
	p.waitReady()
	p.waitForLog(regexp.MustCompile(`level=WARN msg="systemd handed over sockets that nothing uses.*` + regexp.QuoteMeta(socket)))
}

func TestParseRequest(t *testing.T) {
	now := time.Now()
	later, before := now.Add(time.Hour), now.Add(-time.Second)
	long := strings.Repeat("x", 300)
	for _, test := range []struct {
		name string
		r    control.Request
		want string // part of the error; "" for a right request
	}{
		{"takedown", control.Request{Op: control.OpTakeDown, Services: []string{"web", "db:5432", "all"}, State: "drain", Expires: &later, WaitTurn: 3600}, ""},
		{"takedown without services", control.Request{Op: control.OpTakeDown, State: "down"}, "services"},
		{"takedown up", control.Request{Op: control.OpTakeDown, Services: []string{"web"}, State: "up"}, "state"},
		{"takedown without state", control.Request{Op: control.OpTakeDown, Services: []string{"web"}}, "state"},
		{"takedown of an instance of all", control.Request{Op: control.OpTakeDown, Services: []string{"all:80"}, State: "down"}, "no instances"},
		{"takedown in the past", control.Request{Op: control.OpTakeDown, Services: []string{"web"}, State: "down", Expires: &before}, "over already"},
		{"wait without end", control.Request{Op: control.OpTakeDown, Services: []string{"web"}, State: "down", WaitTurn: math.Inf(1)}, "wait_turn"},
		{"negative wait", control.Request{Op: control.OpTakeDown, Services: []string{"web"}, State: "down", WaitTurn: -1}, "wait_turn"},
		{"timeout that is no number", control.Request{Op: control.OpSet, Timeout: math.NaN()}, "timeout"},
		{"long reason", control.Request{Op: control.OpTakeDown, Services: []string{"web"}, State: "down", Reason: strings.Repeat("x", spool.MaxReason+1)}, "reason"},
		{"name with a slash", control.Request{Op: control.OpHeldDown, Services: []string{"../web"}}, "service"},
		{"long name", control.Request{Op: control.OpHeldDown, Services: []string{long}}, "service"},
		{"too many names", control.Request{Op: control.OpHeldDown, Services: make([]string, maxNamed+1)}, "services"},
		{"set", control.Request{Op: control.OpSet, Scopes: []string{"all", "group:rack7", "host:web.3"}, Services: []string{"web"}, State: "up"}, ""},
		{"set without scopes", control.Request{Op: control.OpSet, Services: []string{"web"}, State: "down"}, "scopes"},
		{"empty scope", control.Request{Op: control.OpSet, Scopes: []string{""}, Services: []string{"web"}, State: "down"}, "scope"},
		{"scope without name", control.Request{Op: control.OpLift, Scopes: []string{"group:"}, Services: []string{"web"}}, "scope"},
		{"scope of another kind", control.Request{Op: control.OpLift, Scopes: []string{"rack:7"}, Services: []string{"web"}}, "scope"},
		{"scope with a slash", control.Request{Op: control.OpLift, Scopes: []string{"host:a/b"}, Services: []string{"web"}}, "scope"},
		{"budget", control.Request{Op: control.OpBudget, Services: []string{"*"}, Budget: "25%"}, ""},
		{"no budget", control.Request{Op: control.OpBudget, Services: []string{"web"}}, ""},
		{"odd budget", control.Request{Op: control.OpBudget, Services: []string{"web"}, Budget: "-1"}, "budget"},
		{"budget of two", control.Request{Op: control.OpBudget, Services: []string{"web", "db"}, Budget: "1"}, "one service"},
		{"budget of an instance", control.Request{Op: control.OpBudget, Services: []string{"web:80"}, Budget: "1"}, "service name"},
		{"forget", control.Request{Op: control.OpForget, Host: "web5"}, ""},
		{"forget no host", control.Request{Op: control.OpForget}, "host"},
		{"release", control.Request{Op: control.OpRelease, Services: []string{"web"}}, ""},
		{"release everything", control.Request{Op: control.OpRelease, Services: []string{"*"}}, "service name"},
		{"release of an odd host", control.Request{Op: control.OpRelease, Services: []string{"web"}, Host: "a b"}, "host"},
	} {
		p, err := parseRequest(test.r, control.Caller{By: "deploy"}, now)
		switch {
		case test.want == "" && (err != nil || p.override.By != "deploy" || p.timeout == 0):
			t.Errorf("%s: %+v, %v", test.name, p, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 500):
			t.Errorf("%s: error %v, want one about %q", test.name, err, test.want)
		}
	}
}

// answers is a fleet.Service that gives one answer. A method that a test does not expect panics.
type answers struct {
	fleet.Service
	outcome report.Outcome
	err     error
	got     fleet.ScopedOverride
	limit   time.Duration
}

func (a *answers) SetOverride(ctx context.Context, o fleet.ScopedOverride, _ fleet.Progress) (report.Outcome, error) {
	a.got = o
	if deadline, ok := ctx.Deadline(); ok {
		a.limit = time.Until(deadline).Round(time.Second)
	}
	return a.outcome, a.err
}

func (a *answers) LiftOverride(_ context.Context, _ fleet.ScopedOverride, _ fleet.Progress) (report.Outcome, error) {
	return a.outcome, a.err
}

func (a *answers) TakeDown(_ context.Context, _ fleet.Takedown, p fleet.Progress) error {
	p("waits for web3")
	return a.err
}

func (a *answers) SetBudget(context.Context, string, string, string) error { return a.err }
func (a *answers) Forget(context.Context, string, string) error            { return a.err }
func (a *answers) Release(context.Context, string, string, string) error   { return a.err }
func (a *answers) Leave(string) error                                      { return a.err }
func (a *answers) Join(string) error                                       { return a.err }
func (a *answers) Report(context.Context) (*report.Fleet, error) {
	return &report.Fleet{Self: "web17"}, a.err
}

func (a *answers) Impact(context.Context, fleet.ScopedOverride) ([]report.Impact, error) {
	return []report.Impact{{Service: "web"}}, a.err
}

// newTestHandler returns a handler for the fleet a, and what it logs.
func newTestHandler(a *answers, overrides ...spool.Entry) (*controlHandler, *strings.Builder) {
	var log strings.Builder
	return &controlHandler{
		log:       slog.New(slog.NewTextHandler(&log, nil)),
		overrides: func() []spool.Entry { return overrides },
		section:   func() *config.Fleet { return &config.Fleet{Host: "web17"} },
		fleet:     func() fleet.Service { return a },
		balancers: balancer.New(),
	}, &log
}

// requests has a right request of every operation.
var requests = []control.Request{
	{Op: control.OpTakeDown, Services: []string{"web"}, State: "down"},
	{Op: control.OpHeldDown, Services: []string{"web"}},
	{Op: control.OpReport},
	{Op: control.OpImpact, Scopes: []string{"all"}, Services: []string{"web"}, State: "down"},
	{Op: control.OpSet, Scopes: []string{"all"}, Services: []string{"web"}, State: "down", Reason: "new\nkernel"},
	{Op: control.OpLift, Scopes: []string{"all"}, Services: []string{"web"}},
	{Op: control.OpBudget, Services: []string{"web"}, Budget: "2"},
	{Op: control.OpForget, Host: "web5"},
	{Op: control.OpRelease, Services: []string{"web"}},
	{Op: control.OpLeave},
	{Op: control.OpJoin},
}

func TestOnlyOperatorsChangeTheFleet(t *testing.T) {
	everyone := []string{control.OpTakeDown, control.OpHeldDown, control.OpReport, control.OpImpact}
	for _, r := range requests {
		for _, caller := range []control.Caller{{UID: 0, By: "deploy"}, {UID: 65534, By: "nobody"}, {UID: -1, By: "unknown"}} {
			h, log := newTestHandler(&answers{})
			var texts []string
			e := h.handle(t.Context(), caller, r, func(e control.Event) error { texts = append(texts, e.Text); return nil })
			want := control.CodeRefused
			for _, op := range everyone {
				if caller.UID == 0 || op == r.Op {
					want = 0
				}
			}
			if e.Code != want || e.NoFleet {
				t.Errorf("%s by user %d: %+v, want code %d", r.Op, caller.UID, e, want)
			}
			if refused := strings.Contains(log.String(), "was refused"); refused != (want != 0) {
				t.Errorf("%s by user %d: the log has %q", r.Op, caller.UID, log)
			}
			if r.Op == control.OpTakeDown && !reflect.DeepEqual(texts, []string{"waits for web3"}) {
				t.Errorf("progress is %q", texts)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{&fleet.RefusedError{Reason: "web: 2 of 8 hosts are out"}, control.CodeRefused},
		{&fleet.UnavailableError{Err: errors.New("no leader")}, control.CodeUnavailable},
		{&fleet.UnavailableError{Err: errors.New("timeout"), Unknown: true}, control.CodeUnavailable},
		{context.DeadlineExceeded, control.CodeUnavailable},
		{errors.New("disk full"), control.CodeUnavailable},
	} {
		for _, r := range requests {
			if r.Op == control.OpHeldDown {
				continue
			}
			h, _ := newTestHandler(&answers{err: test.err})
			e := h.handle(t.Context(), control.Caller{By: "deploy"}, r, func(control.Event) error { return nil })
			if e.Code != test.want || !strings.Contains(e.Error, test.err.Error()) {
				t.Errorf("%s: error %v is %+v, want code %d", r.Op, test.err, e, test.want)
			}
		}
	}
}

// TestStoppingDaemon: a command that waits for its turn learns why its claim has ended.
func TestStoppingDaemon(t *testing.T) {
	for _, r := range requests {
		if r.Op == control.OpHeldDown {
			continue
		}
		h, _ := newTestHandler(&answers{err: fmt.Errorf("wait: %w", context.Canceled)})
		e := h.handle(t.Context(), control.Caller{By: "deploy"}, r, func(control.Event) error { return nil })
		if want := "the daemon is stopping; run the command again when it is back"; e.Code != control.CodeUnavailable || e.Error != want {
			t.Errorf("%s: %+v, want %q", r.Op, e, want)
		}
		unknown := &fleet.UnavailableError{Err: context.Canceled, Unknown: true}
		h, _ = newTestHandler(&answers{err: unknown})
		if e = h.handle(t.Context(), control.Caller{By: "deploy"}, r, func(control.Event) error { return nil }); e.Error != unknown.Error() {
			t.Errorf("%s: %+v, want %q", r.Op, e, unknown)
		}
	}
}

func TestOutcomes(t *testing.T) {
	for _, test := range []struct {
		name    string
		outcome report.Outcome
		want    int
	}{
		{"all have applied it", report.Outcome{Absent: []string{"web5"}, Left: []string{"web6"}}, 0},
		{"missing", report.Outcome{Missing: []string{"web5"}}, control.CodeTimeout},
		{"held", report.Outcome{StillDown: []report.HeldDown{{Host: "web5"}}}, control.CodeRefused},
		{"missing and held", report.Outcome{Missing: []string{"web5"}, StillDown: []report.HeldDown{{Host: "web5"}}}, control.CodeTimeout},
	} {
		a := &answers{outcome: test.outcome}
		h, log := newTestHandler(a)
		e := h.handle(t.Context(), control.Caller{By: "deploy"}, requests[4], nil)
		if e.Code != test.want || e.Outcome == nil || !reflect.DeepEqual(*e.Outcome, test.outcome) {
			t.Errorf("%s: %+v, want code %d", test.name, e, test.want)
		}
		for _, want := range []string{"scope=all", "service=web", "by=deploy", `reason="new kernel"`, "state=down"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %s: %s", want, log)
			}
		}
		if a.limit != defaultApplyTime || a.got.Override.By != "deploy" || a.got.Override.State != spool.Down || len(a.got.Keys) != 1 {
			t.Errorf("the fleet got %+v with %v", a.got, a.limit)
		}
	}
}

// Only overrides of the fleet that cover the service and take it out are named.
func TestHeldDown(t *testing.T) {
	key := func(name string) spool.Key {
		k, err := spool.ParseKey(name)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	h, _ := newTestHandler(&answers{},
		spool.Entry{Key: key("all"), State: spool.Maint, Scope: "group:rack7", Reason: "power", By: "deploy"},
		spool.Entry{Key: key("web"), State: spool.Down},
		spool.Entry{Key: key("web"), State: spool.ForceUp, Scope: "all"},
		spool.Entry{Key: key("db"), State: spool.Drain, Scope: "host:web17"},
		spool.Entry{Key: key("web:80"), State: spool.Drain, Scope: "all"},
	)
	for _, test := range []struct {
		services []string
		want     []string
	}{
		{[]string{"web"}, []string{"all"}},
		{[]string{"web:80"}, []string{"all", "web:80"}},
		{[]string{"db", "web"}, []string{"all", "db"}},
		{[]string{"all"}, []string{"all"}},
	} {
		e := h.handle(t.Context(), control.Caller{By: "deploy"}, control.Request{Op: control.OpHeldDown, Services: test.services}, nil)
		var got []string
		for _, held := range e.HeldDown {
			got = append(got, held.Service)
			if held.Service == "all" && (held.Host != "web17" || held.State != "maint" || held.Scope != "group:rack7" || held.Reason != "power" || held.By != "deploy") {
				t.Errorf("held down: %+v", held)
			}
		}
		if e.Code != 0 || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v: %v, want %v", test.services, got, test.want)
		}
	}
}

// TestForgetBalancerRequest: it needs no fleet and no operator. Wrong names are refused.
func TestForgetBalancerRequest(t *testing.T) {
	h, log := newTestHandler(&answers{})
	h.section = func() *config.Fleet { return nil }
	r := balancer.AnsweredRequest{Peer: "10.0.0.7", HasState: true, State: "UP; node=lb1; name=be/web", Node: "lb1", Name: "be/web", Code: 200, Answered: time.Now()}
	h.balancers.Service("web").Record(&r)
	for name, want := range map[string]struct {
		code int
		text string
	}{
		"10.0.0.7":               {control.CodeRefused, "10.0.0.7: the balancer still asks, its last request came "},
		"lb1":                    {control.CodeRefused, "lb1: the balancer still asks"},
		"lb\x1b2":                {control.CodeRefused, "lb 2: no balancer has that address or node name"},
		"":                       {control.CodeUsage, "want the address or the node name"},
		strings.Repeat("x", 300): {control.CodeUsage, "at most 256 bytes"},
	} {
		e := h.handle(t.Context(), control.Caller{UID: 1000, By: "deploy"}, control.Request{Op: control.OpForgetBalancer, Balancer: name}, nil)
		if e.Code != want.code || !strings.Contains(e.Error, want.text) || e.NoFleet {
			t.Errorf("%.20q: %+v, want code %d and %q", name, e, want.code, want.text)
		}
	}
	if log.Len() != 0 {
		t.Errorf("the log says %s", log)
	}
	r.Answered = time.Now().Add(-time.Minute)
	h.balancers = balancer.New()
	h.balancers.Service("web").Record(&r)
	e := h.handle(t.Context(), control.Caller{UID: 1000, By: "deploy"}, control.Request{Op: control.OpForgetBalancer, Balancer: "lb1"}, nil)
	if e.Code != 0 || !strings.Contains(log.String(), `msg="a balancer was forgotten" balancer=lb1 rows=1 by=deploy`) {
		t.Errorf("%+v, and the log says %s", e, log)
	}
}
