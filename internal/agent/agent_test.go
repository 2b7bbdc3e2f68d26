//go:build unix

package agent

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/internal/spool"
)

// TestAnswers is the table of section 4 of the contract, and every kind of reason.
func TestAnswers(t *testing.T) {
	t.Parallel()
	h := newTestAgent(t, spool.All)
	if got := h.ask("web\n"); got != "up ready\n" {
		t.Errorf("without an override: %q", got)
	}
	long := strings.Repeat("x", maxReason)
	for _, c := range []struct {
		state  spool.State
		reason string
		want   string
	}{
		{spool.ForceUp, "trust me", "up ready"},
		{spool.Drain, "kernel", "up drain"},
		{spool.Down, "kernel", "ready down #kernel"},
		{spool.Maint, "disk", "maint down #disk"},
		{spool.Down, "", "ready down"},
		{spool.Maint, "", "maint down"},
		{spool.Down, " \n\t ", "ready down"},
		{spool.Down, "#1 down, up ready", "ready down ##1 down, up ready"},
		{spool.Down, " a\r\nup ready\x00b\tc\u2028d\u0085e ", "ready down #a  up ready b c d e"},
		{spool.Down, "größe \xff", "ready down #größe \uFFFD"},
		{spool.Down, long, "ready down #" + long},
		{spool.Down, long + "y", "ready down #" + long},
		{spool.Down, long[1:] + "ö", "ready down #" + long[1:]},
		{spool.Maint, strings.Repeat("€", 41), "maint down #" + strings.Repeat("€", 40)},
		{spool.Down, "   " + long, "ready down #" + long},
	} {
		h.overrides.set("web", c.state, c.reason)
		if got := h.ask("web\n"); got != c.want+"\n" {
			t.Errorf("%v, %q: answered %q, want %q", c.state, c.reason, got, c.want+"\n")
		}
	}
}

func pass(p *PassedChecks, service, host string, port uint16, code int, began time.Time) {
	p.CheckFinished(&check.Target{Service: service, Host: host, Port: port}, check.Result{Code: code}, began)
}

// TestComingBack: from the end of maint until a check that began later has passed, 10 s at most.
func TestComingBack(t *testing.T) {
	t.Parallel()
	type result struct {
		service, host string
		port          uint16
		code          int
	}
	for name, c := range map[string]struct {
		key   string
		after result
		back  bool
	}{
		"its check":                       {"web", result{"web", "127.0.0.1", 80, 200}, true},
		"a check of all its checks":       {"web", result{"web", "127.0.0.1", 0, 200}, true},
		"a check that failed":             {"web", result{"web", "127.0.0.1", 80, 503}, false},
		"a check that did not say 200":    {"web", result{"web", "127.0.0.1", 80, 204}, false},
		"another service's check":         {"web", result{"db", "127.0.0.1", 80, 200}, false},
		"an instance":                     {"web:80", result{"web", "127.0.0.1", 80, 200}, true},
		"an instance, by its address":     {"web:80", result{"web", "192.0.2.7", 80, 200}, true},
		"another instance":                {"web:80", result{"web", "127.0.0.1", 81, 200}, false},
		"an instance, all checks":         {"web:80", result{"web", "127.0.0.1", 0, 200}, true},
		"a host":                          {"web:192.0.2.7:80", result{"web", "192.0.2.7", 80, 200}, true},
		"a host, spelled otherwise":       {"web:[2001:DB8::1]:80", result{"web", "2001:db8:0::1", 80, 200}, true},
		"another host":                    {"web:192.0.2.7:80", result{"web", "192.0.2.8", 80, 200}, false},
		"a host, this one's port instead": {"web:192.0.2.7:80", result{"web", "127.0.0.1", 80, 200}, false},
		"this host, by its name":          {"web:127.0.0.2:80", result{"web", "myself", 80, 200}, true},
		"all, any service's check":        {"all", result{"db", "127.0.0.1", 80, 200}, true},
		"all, a check that failed":        {"all", result{"db", "127.0.0.1", 80, 503}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := new(fakeOverrides)
				a := New(Options{Overrides: s, PassedChecks: new(PassedChecks)})
				k, err := spool.ParseKey(c.key)
				if err != nil {
					t.Fatal(err)
				}
				want := func(when, want string) {
					t.Helper()
					if got := a.line(k, netip.Addr{}); got != want {
						t.Errorf("%s: %q, want %q", when, got, want)
					}
				}
				s.set(k.Service, spool.Maint, "disk")
				want("in maint", "maint down #disk")
				early := time.Now()
				time.Sleep(time.Second) // by the clock of synctest, as the others here
				s.endMaint(k.Service)
				want("at once", "ready down #coming back")
				time.Sleep(time.Second)
				pass(a.o.PassedChecks, c.after.service, c.after.host, c.after.port, c.after.code, early)
				want("after a check that began in maint", "ready down #coming back")
				pass(a.o.PassedChecks, c.after.service, c.after.host, c.after.port, c.after.code, time.Now())
				if c.back {
					want("after the check", "up ready")
					return
				}
				want("after the check", "ready down #coming back")
				time.Sleep(9*time.Second - 1)
				want("just before 10 s", "ready down #coming back")
				time.Sleep(time.Nanosecond)
				want("after 10 s", "up ready")
			})
		})
	}
}

// TestComingBackNeedsNoOverride: an override that follows maint is answered at once.
func TestComingBackNeedsNoOverride(t *testing.T) {
	t.Parallel()
	s := new(fakeOverrides)
	a := New(Options{Overrides: s, PassedChecks: new(PassedChecks)})
	s.endMaint("web")
	for state, want := range map[spool.State]string{
		spool.ForceUp: "up ready", spool.Drain: "up drain", spool.Down: "ready down #why", spool.Maint: "maint down #why",
	} {
		s.set("web", state, "why")
		if got := a.line(spool.Key{Service: "web"}, netip.Addr{}); got != want {
			t.Errorf("%v: %q, want %q", state, got, want)
		}
	}
	if got := a.line(spool.Key{Service: "db"}, netip.Addr{}); got != "up ready" {
		t.Errorf("another service: %q", got)
	}
}

// TestSuccessBeforeFirstRequest: a check that passed between the end of maint and the agent's next
// question counts, whether or not a balancer had been told of maint.
func TestSuccessBeforeFirstRequest(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := new(fakeOverrides)
			a := New(Options{Overrides: s, PassedChecks: new(PassedChecks)})
			web := spool.Key{Service: "web"}
			if told {
				s.set("web", spool.Maint, "disk")
				a.line(web, netip.Addr{})
			}
			s.endMaint("web")
			time.Sleep(time.Nanosecond)
			if !told {
				a.o.PassedChecks.OverrideChanged(spool.Change{Key: web, Old: &spool.Entry{Key: web, State: spool.Maint}})
			}
			pass(a.o.PassedChecks, "web", "127.0.0.1", 80, 200, time.Now())
			time.Sleep(time.Second)
			if got := a.line(web, netip.Addr{}); got != "up ready" {
				t.Errorf("told %v: %q, want up ready", told, got)
			}
		})
	}
}

// TestSuccessesAreBounded: none are kept when nothing comes back, and few and not for long when something does.
func TestSuccessesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := new(PassedChecks)
		down := &spool.Entry{State: spool.Down}
		p.OverrideChanged(spool.Change{Old: down})
		p.OverrideChanged(spool.Change{New: &spool.Entry{State: spool.Maint}})
		pass(p, "web", "127.0.0.1", 80, 200, time.Now())
		if p.latest != nil {
			t.Error("a down that ends, or a maint that begins, is no maint that ends")
		}
		p.OverrideChanged(spool.Change{Old: &spool.Entry{State: spool.Maint}, New: down})
		for i := range maxPassedChecks {
			pass(p, "web", "127.0.0.1", uint16(i), 200, time.Now())
			pass(p, "web"+string(rune('a'+i%26)), "192.0.2.1", uint16(i), 200, time.Now())
		}
		if n := len(p.latest); n == 0 || n > maxPassedChecks+4 {
			t.Errorf("%d passes are remembered, want at most %d", n, maxPassedChecks)
		}
		time.Sleep(recheckTimeout + 1)
		pass(p, "web", "127.0.0.1", 80, 200, time.Now())
		if p.latest != nil {
			t.Errorf("%d passes are remembered long after", len(p.latest))
		}
	})
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "\n", "\r", "web", "web\r", "web:8080", "web:10.0.0.1:80", "web:[::1]:80", "all", "..", "a b", "\x00\xff", strings.Repeat("x", 201)} {
		f.Add([]byte(s), s)
	}
	own := spool.Key{Service: "own"}
	f.Fuzz(func(t *testing.T, text []byte, reason string) {
		if k, ok := parseRequest(text, own); ok {
			again, err := spool.ParseKey(k.Name())
			if d := cmp.Diff(k, again); err != nil || d != "" {
				t.Errorf("%q is %+v, whose name is %v %s", text, k, err, d)
			}
			if k == own && len(text) > 1 && string(text) != "own" && string(text) != "own\r" {
				t.Errorf("%q is taken for nothing", text)
			}
		}
		s := &fakeOverrides{}
		s.set("web", spool.Maint, reason)
		a := New(Options{Overrides: s, PassedChecks: new(PassedChecks)})
		line := a.line(spool.Key{Service: "web"}, netip.Addr{})
		rest, ok := strings.CutPrefix(line, "maint down")
		if !ok || rest != "" && !strings.HasPrefix(rest, " #") {
			t.Fatalf("%q does not begin with its words", line)
		}
		if rest = strings.TrimPrefix(rest, " #"); len(rest) > maxReason || !utf8.ValidString(rest) || strings.ContainsFunc(rest, unicode.IsControl) {
			t.Errorf("the reason %q is %q", reason, rest)
		}
	})
}
