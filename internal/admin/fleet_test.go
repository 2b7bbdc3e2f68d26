package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/control"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
)

// writesSpool returns a handler that makes each change in the spool directory of a simulation, where its balancers see
// it.
func writesSpool(t *testing.T, s *simulation, fleet *report.Fleet) control.Handler {
	return func(_ context.Context, _ control.Caller, r control.Request, send func(control.Event) error) control.Event {
		states := map[string]spool.State{"drain": spool.Drain, "down": spool.Down, "maint": spool.Maint}
		switch r.Op {
		case control.OpTakeDown, control.OpSet:
			if err := send(control.Event{Text: "granted"}); err != nil {
				t.Error(err)
			}
			for _, name := range r.Services {
				if err := s.dir.Write(spool.Entry{Key: spool.Key{Service: name}, State: states[r.State], Reason: r.Reason}); err != nil {
					t.Error(err)
				}
			}
		case control.OpLift:
			for _, name := range r.Services {
				if err := s.dir.Remove(spool.Key{Service: name}); err != nil {
					t.Error(err)
				}
			}
		case control.OpReport:
			return control.Event{Fleet: fleet}
		}
		return control.Event{Outcome: &report.Outcome{}}
	}
}

// After the daemon has written the override, the command waits for the balancers as it does alone.
func TestSafeThenWait(t *testing.T) {
	t.Parallel()
	for line, state := range map[string]string{"": "", "--drain": "drain", "--maint": "maint", "--json --maint": "maint"} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			s, root := simulate(t, "node=lb1 open=3")
			f := newFleet(t, writesSpool(t, s, nil))
			out, code := run(s, root, System("1"), "hadown web -r why --safe --wait=20s --control-socket "+f.socket+" "+line)
			wantExit(t, out, code, ExitOK)
			want := []string{"hadown: granted\n", "web: out with 1 balancer"}
			if strings.Contains(line, "--json") {
				want = []string{`{"event":"note",`, `"text":"granted"`, `{"event":"written",`, `"state":"drain"`, `"result":"out","exit":0`}
			}
			for _, text := range want {
				if !strings.Contains(out.String(), text) {
					t.Errorf("no %q in:\n%s", text, out)
				}
			}
			e, err := s.dir.Read(spool.Key{Service: "web"})
			if err != nil || e.State.String() != state && state != "" {
				t.Errorf("the override is %v, %v", e, err)
			}
		})
	}
}

// The answer of the daemon is old if the command was stopped meanwhile (SIGSTOP): what was lifted since is no success.
func TestSafeAndLiftedSince(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", " --wait=20s"} {
		s, root := simulate(t, "node=lb1 open=3")
		writes := writesSpool(t, s, nil)
		f := newFleet(t, func(ctx context.Context, caller control.Caller, r control.Request, send func(control.Event) error) control.Event {
			e := writes(ctx, caller, r, send)
			if r.Op == control.OpTakeDown {
				e.WrittenAt = time.Now().Add(-time.Minute)
				if err := s.dir.Remove(spool.Key{Service: "web"}); err != nil {
					t.Error(err)
				}
			}
			return e
		})
		out, code := run(s, root, System("1"), "hadown web -r why --safe --control-socket "+f.socket+options)
		wantExit(t, out, code, ExitFailed)
		if !strings.Contains(out.String(), "hadown: the override was written, and lifted by another command before this one went on; web is up now") {
			t.Errorf("it said:\n%s", out)
		}
	}
}

// A signal closes the connection, which withdraws the claim. So does the end of the command without a chance to say so.
func TestSignalWithdrawsClaim(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGKILL: -1} {
		for _, how := range []string{"", "--json", "--wait=1m", "--wait=1m --json"} {
			t.Run(fmt.Sprint(sig, how), func(t *testing.T) {
				t.Parallel()
				withdrawn := make(chan struct{})
				f := newFleet(t, func(ctx context.Context, _ control.Caller, r control.Request, send func(control.Event) error) control.Event {
					if r.Op != control.OpTakeDown {
						return control.Event{}
					}
					if err := send(control.Event{Text: "waiting for web3"}); err != nil {
						t.Error(err)
					}
					<-ctx.Done()
					close(withdrawn)
					return control.Event{Code: control.CodeUnavailable}
				})
				s, root := simulate(t, "node=lb1")
				args := append([]string{"--spool-root", root, "-p", s.addr, "--control-socket", f.socket, "-r", "why", "web", "--safe", "--wait-turn"}, strings.Fields(how)...)
				cmd := exec.CommandContext(t.Context(), "hadown", args...)
				out := &transcript{}
				cmd.Stdout, cmd.Stderr = out, out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				out.waitFor(t, "waiting for web3")
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != want {
					t.Errorf("%v, want exit %d; it said:\n%s", err, want, out)
				}
				select {
				case <-withdrawn:
				case <-time.After(10 * time.Second):
					t.Error("the daemon still has the claim")
				}
				if _, err := os.Stat(filepath.Join(root, "web")); err == nil {
					t.Error("the override is written")
				}
				if sig == syscall.SIGKILL {
					return
				}
				text := "the claim was withdrawn: " + sig.String() + "; web is up now"
				if !strings.Contains(out.String(), "hadown: "+text) {
					t.Errorf("no %q in:\n%s", text, out)
				}
				if strings.Contains(how, "--wait") && strings.Contains(how, "--json") &&
					!strings.Contains(out.String(), fmt.Sprintf(`"result":"interrupted","exit":%d,"open":[],"text":"%s"`, want, text)) {
					t.Errorf("no such event in:\n%s", out)
				}
			})
		}
	}
}

// A daemon that goes away after it has written the override: the command cannot know, and says what it finds.
func TestDaemonStopsDuringTakedown(t *testing.T) {
	t.Parallel()
	s, root := simulate(t, "node=lb1")
	socket := scriptedSocket(t, func(r control.Request) string {
		if r.Op != control.OpTakeDown {
			return `{"done":true}` + "\n"
		}
		if err := s.dir.Write(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down, Reason: "why"}); err != nil {
			t.Error(err)
		}
		return `{"text":"granted"}` + "\n" + `{"do`
	})
	out, code := run(s, root, System("1"), "hadown web -r why --safe --control-socket "+socket)
	wantExit(t, out, code, ExitDaemonUnavailable)
	if !strings.Contains(out.String(), "hadown: it is not known whether the change was made: ") || !strings.Contains(out.String(), "; web is down now: why\n") {
		t.Errorf("it said:\n%s", out)
	}
	out, code = run(s, root, System("1"), "hadown --group rack7 web -r why --control-socket "+socket)
	wantExit(t, out, code, ExitOK) // an empty answer that is done
}

// scriptedSocket returns a socket that answers each request with the text of answer, and closes the connection.
func scriptedSocket(t *testing.T, answer func(control.Request) string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var r control.Request
			if line, err := bufio.NewReader(conn).ReadBytes('\n'); err == nil && json.Unmarshal(line, &r) == nil {
				io.WriteString(conn, answer(r))
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return socket
}

// --wait with a scope waits for the balancers of this host, which has to be in the scope.
func TestScopeThenWait(t *testing.T) {
	t.Parallel()
	fleet := &report.Fleet{Self: "web1", Connected: true, Hosts: []report.Host{{Name: "web1", Groups: []string{"rack7"}}, {Name: "web2", Groups: []string{"rack8"}}}}
	for line, want := range map[string]int{
		"hadown --group rack7 web -r why --wait=20s":         ExitOK,
		"hadown --fleet web -r why --wait=20s --json":        ExitOK,
		"hadown --host web2 --host web1 web -r why --wait":   ExitOK,
		"hadown --group rack8 web -r why --wait":             ExitUsage,
		"hadown --host web2 web -r why --wait --json":        ExitUsage,
		"haup --group rack7 web --wait=20s":                  ExitOK,
		"haup --host web2 --group rack8 --wait web":          ExitUsage,
		"hadown --group rack7 web -r why --wait=20s --drain": ExitOK,
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			spec := "node=lb1"
			if strings.HasPrefix(line, "haup") {
				spec += " down"
			}
			s, root := simulate(t, spec)
			f := newFleet(t, writesSpool(t, s, fleet))
			out, code := run(s, root, System("1"), line+" --control-socket "+f.socket)
			wantExit(t, out, code, want)
			text := "with 1 balancer after "
			if want == ExitUsage {
				text = "nothing was changed: --wait waits for the balancers of this host, web1, which is not in "
			}
			if !strings.Contains(out.String(), text) {
				t.Errorf("no %q in:\n%s", text, out)
			}
		})
	}
}

// A signal ends the wait, and the overrides stay.
func TestSignalDuringScopeWait(t *testing.T) {
	t.Parallel()
	s, root := simulate(t, "node=lb1 open=1 hold")
	f := newFleet(t, writesSpool(t, s, &report.Fleet{Self: "web1", Connected: true}))
	cmd := exec.CommandContext(t.Context(), "hadown", "--spool-root", root, "-p", s.addr, "--control-socket", f.socket, "-r", "why", "web", "--fleet", "--wait=1m")
	out := &transcript{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "1 session open")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 143 || !strings.Contains(out.String(), "the overrides stay in force") {
		t.Errorf("%v; it said:\n%s", err, out)
	}
}

// The view of a large fleet is bounded, and no text of the fleet reaches the terminal as it is.
func TestLargeFleetView(t *testing.T) {
	t.Parallel()
	const n = 200
	fleet := &report.Fleet{Self: "web0", Connected: true}
	web := report.Service{Name: "web", Budget: 50, Rule: "25%", Out: n}
	for i := range n {
		name := fmt.Sprintf("web%d", i)
		web.Members = append(web.Members, report.Member{Host: name, State: "down", Out: true, Reason: strings.Repeat("x\x1b[31m\n", 1000), By: "eve\u202e"})
		fleet.Hosts = append(fleet.Hosts, report.Host{Name: name, Groups: []string{fmt.Sprintf("rack%d", i/10)}})
		fleet.Queue = append(fleet.Queue, report.Claim{Host: name, Services: []string{"web"}, Reason: "\u009b2J"})
	}
	fleet.Services = []report.Service{web}
	f := newFleet(t, nil)
	f.set(control.OpReport, control.Event{Fleet: fleet})
	show := func(args ...string) string {
		var out strings.Builder
		env := System("1")
		env.Stdout, env.Stderr = &out, &out
		if code := Main("hastatus", append([]string{"hastatus", "--fleet", "--control-socket", f.socket}, args...), env); code != ExitOK {
			t.Errorf("%q: exit %d: %s", args, code, &out)
		}
		return out.String()
	}
	text := show()
	for _, want := range []string{"200 hosts, 0 present", "web      200      200  50 (25%)  0        200\n", "and 100 more; name a service"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%.2000s", want, text)
		}
	}
	if strings.ContainsAny(text, "\x1b\u009b\u202e") || len(text) > 100<<10 {
		t.Errorf("%d bytes, with control characters: %t", len(text), strings.ContainsAny(text, "\x1b\u009b\u202e"))
	}
	if text := show("--group", "rack3"); strings.Contains(text, "more;") || !strings.Contains(text, "web39") || strings.Contains(text, "web40") {
		t.Errorf("group rack3:\n%.2000s", text)
	}
	var all report.Fleet
	if err := json.Unmarshal([]byte(show("--json")), &all); err != nil || len(all.Hosts) != n || len(all.Services[0].Members) != n {
		t.Errorf("--json: %v, %d hosts", err, len(all.Hosts))
	}
}
