package runner

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"hacheck/internal/check"
	"hacheck/internal/terminal"
	"hacheck/test/checktest"
)

// result returns a step that returns r at once.
func result(r check.Result) check.Func {
	return func(context.Context, check.Target) check.Result { return r }
}

var (
	passes    = result(check.Result{Code: 200})
	fails     = result(check.Result{Code: 503, Reason: check.ReasonFailed, Body: []byte("wrong\x1b[2J password\nsecond line"), Err: fmt.Errorf("log in: %w", io.EOF)})
	wrongCode = result(check.Result{Code: 404, Body: []byte("<html>")})
)

// hangs is a step that blocks until its context ends.
func hangs(ctx context.Context, _ check.Target) check.Result {
	<-ctx.Done()
	return check.Result{Code: 503, Reason: check.ReasonTimeout, Body: []byte("Connection timed out")}
}

// fakeCheck returns a check with these steps, each a name and a function.
func fakeCheck(typ string, tags []string, steps ...any) *check.ConfiguredCheck {
	c := &check.ConfiguredCheck{Type: typ, Name: typ + ":stub", Tags: tags, Timeout: time.Minute}
	for i := 0; i < len(steps); i += 2 {
		c.Steps = append(c.Steps, check.StepOf(steps[i].(string), asFunc(steps[i+1])))
	}
	return c
}

func asFunc(f any) check.Func {
	if f, ok := f.(check.Func); ok {
		return f
	}
	return f.(func(context.Context, check.Target) check.Result)
}

// fakeChecks returns a check that passes, two that fail in a later step and one with an unexpected code.
func fakeChecks() []*check.ConfiguredCheck {
	return []*check.ConfiguredCheck{
		fakeCheck("tcp", []string{"b"}, "tcp:z:1", passes),
		fakeCheck("postgres", []string{"a", "b"}, "tcp:db:5432", passes, "tls:db:5432", fails, "postgres:db:5432", passes, "postgres:db:query", passes),
		fakeCheck("redis", []string{"a"}, "redis:r:6379:tcp:r:6379", passes, "redis:r:6379:connect with auth", fails),
		fakeCheck("http", nil, "http:http://w/a|b?c=<d>&e=\"f\":", wrongCode),
	}
}

func runFakeChecks(t *testing.T, checks []*check.ConfiguredCheck, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := System("1.2.3")
	env.Stdout, env.Stderr = &out, &errs
	c := newCommand("hacheck run", env)
	o, _, done := c.parseOptions(append([]string{"stubs.yaml"}, args...), "", "")
	if done {
		t.Fatalf("options %q: %s", args, &errs)
	}
	code = c.finish(c.runChecks(o, checks))
	return code, out.String(), errs.String()
}

// TestGolden compares every format of the report with testdata/golden; times are T.
func TestGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"text":         nil,
		"verbose":      {"-v"},
		"duration":     {"-d"},
		"tracebacks":   {"-t"},
		"dry-run":      {"--dry-run"},
		"dry-run-U":    {"--dry-run", "-U"},
		"json":         {"--output", "json", "-vdtU"},
		"json-dry-run": {"--output", "json", "--dry-run"},
		"json-empty":   {"--output", "json", "nothing"},
		"junit":        {"--output", "junit"},
		"nagios":       {"--output", "nagios"},
		"nagios-ok":    {"--output", "nagios", "tcp:*"},
		"nagios-dry":   {"--output", "nagios", "--dry-run"},
		"nagios-empty": {"--output", "nagios", "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runFakeChecks(t, fakeChecks(), args...)
			golden(t, name, fmt.Sprintf("%s%sexit %d\n", maskTimes(stdout), stderr, code))
		})
	}
}

func TestNagiosLineNamesThreeFailures(t *testing.T) {
	var checks []*check.ConfiguredCheck
	for i := range 5 {
		checks = append(checks, fakeCheck("tcp", nil, fmt.Sprintf("tcp:h:%d", i), fails))
	}
	_, stdout, _ := runFakeChecks(t, checks, "--output", "nagios")
	line, _, _ := strings.Cut(stdout, "\n")
	if !strings.Contains(line, "tcp:h:2 (") || strings.Contains(line, "tcp:h:3") || !strings.Contains(line, " and 2 more | ") {
		t.Errorf("first line %q", line)
	}
}

// TestPatternsSelectSteps: as in conn-check, a step is run when its own name matches, even if the steps before it are
// not selected.
func TestPatternsSelectSteps(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"postgres:*"}, "postgres:db:5432 OK\npostgres:db:query OK\n", 0},
		{[]string{"*:5432"}, "tls:db:5432 FAILED - wrong [2J password second line\ntcp:db:5432 OK\nSKIPPED: postgres:db:5432\n", 2},
		{[]string{"tcp:*", "--exclude-tags", "a"}, "tcp:z:1 OK\n", 0},
		{[]string{"tcp:*", "--include-tags", "x,a"}, "tcp:db:5432 OK\n", 0},
		{[]string{"tcp:*", "--include-tags", "", "--exclude-tags", "a"}, "tcp:z:1 OK\n", 0}, // an empty value counts as not given
		{[]string{"tcp:*", "--exclude-tags="}, "tcp:db:5432 OK\ntcp:z:1 OK\n", 0},
		{[]string{"tcp:z:1", "redis:*:tcp:*"}, "redis:r:6379:tcp:r:6379 OK\ntcp:z:1 OK\n", 0},
		{[]string{"none"}, "", 0},
	} {
		code, stdout, stderr := runFakeChecks(t, fakeChecks(), test.args...)
		if stdout != test.want || code != test.code {
			t.Errorf("%q: exit %d\n%s\nwant %d\n%s", test.args, code, stdout, test.code, test.want)
		}
		if (test.want == "") != strings.Contains(stderr, "nothing to check") {
			t.Errorf("%q: stderr %q", test.args, stderr)
		}
	}
}

// TestRunTakesAsLongAsTheSlowestCheck runs 200 checks, 20 of which time out.
func TestRunTakesAsLongAsTheSlowestCheck(t *testing.T) {
	const timeout = 2 * time.Second
	open, silent := openPort(t), hangingPort(t)
	ports := slices.Repeat([]string{open}, 200)
	for i := range 20 {
		ports[i*10] = silent
	}
	file := writeChecks(t, fmt.Sprint(timeout.Seconds()), ports...)
	var out, errs bytes.Buffer
	env := System("")
	env.Stdout, env.Stderr = &out, &errs
	began := time.Now()
	code := Run([]string{file}, env)
	took := time.Since(began)
	if ok, bad := strings.Count(out.String(), " OK\n"), strings.Count(out.String(), " FAILED - Connection timed out"); code != 2 || ok != 180 || bad != 20 {
		t.Errorf("exit %d, %d OK, %d timed out; want 2, 180, 20\n%s", code, ok, bad, &errs)
	}
	if took < timeout || took >= 2*timeout {
		t.Errorf("took %v, want %v and less than twice that", took, timeout)
	}
}

// TestConcurrencyLimit: maxConcurrent checks run at once and never more.
func TestConcurrencyLimit(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	all := make(chan struct{})
	step := func(ctx context.Context, _ check.Target) check.Result {
		mu.Lock()
		running++
		if most = max(most, running); most == maxConcurrent && running == maxConcurrent {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		mu.Unlock()
		select {
		case <-all:
		case <-ctx.Done():
		}
		mu.Lock()
		running--
		mu.Unlock()
		return check.Result{Code: 200}
	}
	var checks []*check.ConfiguredCheck
	for i := range maxConcurrent + 50 {
		checks = append(checks, fakeCheck("x", nil, fmt.Sprint(i), step))
	}
	if code, _, stderr := runFakeChecks(t, checks); code != 0 || most != maxConcurrent {
		t.Errorf("exit %d, at most %d at once, want 0 and %d\n%s", code, most, maxConcurrent, stderr)
	}
}

// TestMaxTimeout: the results so far are printed, unfinished checks have failed.
func TestMaxTimeout(t *testing.T) {
	checks := append(fakeChecks()[:1], fakeCheck("x", nil, "x:1", passes, "x:2", hangs, "x:3", passes))
	want := "x:2 FAILED - not finished: maximum timeout reached\ntcp:z:1 OK\nx:1 OK\nSKIPPED: x:3\n"
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "Maximum timeout reached: 0.3s\n" + want},
		{[]string{"-f", "60"}, "Maximum timeout reached: 0.3s\n" + want},
		{[]string{"-f", "0.001", "--output", "nagios"}, "HACHECK CRITICAL - 1 of 4 failed: x:2 (not finished: maximum timeout reached) | "},
	} {
		code, stdout, _ := runFakeChecks(t, checks, append(test.args, "--max-timeout", "0.3")...)
		if code != 2 || !strings.HasPrefix(stdout, test.want) {
			t.Errorf("%q: exit %d, stdout\n%s\nwant 2,\n%s", test.args, code, stdout, test.want)
		}
	}
	_, stdout, _ := runFakeChecks(t, checks, "-U", "--max-timeout", "0.3")
	lines := strings.SplitAfter(stdout, "\n")
	slices.Sort(lines)
	if d := cmp.Diff([]string{
		"", "Maximum timeout reached: 0.3s\n", "SKIPPED: x:3\n", "tcp:z:1 OK\n", "x:1 OK\n", "x:2 FAILED - not finished: maximum timeout reached\n",
	}, lines); d != "" {
		t.Errorf("-U (-want +got):\n%s", d)
	}
}

// TestMaxTimeoutBetweenRounds: the last round is reported.
func TestMaxTimeoutBetweenRounds(t *testing.T) {
	code, stdout, stderr := runFakeChecks(t, fakeChecks()[3:], "-f", "60", "--max-timeout", "0.2")
	if code != 2 || !strings.HasPrefix(stdout, "Maximum timeout reached: 0.2s\nhttp:") || stderr != "hacheck run: round 1: 1 of 1 failed, next in 1m0s\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestMaxTimeoutEndsCheckThatIgnoresItsContext(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	ignoresContext := func(context.Context, check.Target) check.Result { <-release; return check.Result{Code: 200} }
	code, stdout, _ := runFakeChecks(t, []*check.ConfiguredCheck{fakeCheck("x", nil, "x:1", ignoresContext)}, "--max-timeout", "0.1")
	if code != 2 || !strings.Contains(stdout, "x:1 FAILED - not finished") {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

// TestStepsShareOneTimeout: the timeout of a check covers all its steps together.
func TestStepsShareOneTimeout(t *testing.T) {
	c := fakeCheck("x", nil, "x:1", passes, "x:2", hangs)
	c.Timeout = 100 * time.Millisecond
	if code, stdout, _ := runFakeChecks(t, []*check.ConfiguredCheck{c}); code != 2 || stdout != "x:2 FAILED - Connection timed out\nx:1 OK\n" {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

// onLine is a writer that calls f when a line containing text is written.
type onLine struct {
	bytes.Buffer
	text string
	f    func()
}

func (w *onLine) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.f()
	}
	return w.Buffer.Write(p)
}

// TestWatch repeats rounds until a port listens, from round 2 on.
func TestWatch(t *testing.T) {
	for _, unbuffered := range []bool{false, true} {
		fd, n := checktest.Bound(t)
		port := strconv.Itoa(int(n))
		var out bytes.Buffer
		env := System("")
		stderr := &onLine{text: "round 2", f: func() {
			if err := syscall.Listen(fd, 10); err != nil {
				t.Error(err)
			}
		}}
		env.Stdout, env.Stderr = &out, stderr
		args := []string{writeChecks(t, "5", port, openPort(t)), "--watch", "0.01", "--max-timeout", "60"}
		if unbuffered {
			args = append(args, "-U")
		}
		if code := Run(args, env); code != 0 {
			t.Errorf("exit %d: %s", code, stderr)
		}
		want := "hacheck run: round 1: 1 of 2 failed, next in 10ms\nhacheck run: round 2: 1 of 2 failed, next in 10ms\n"
		if stderr.String() != want {
			t.Errorf("stderr %q, want %q", stderr, want)
		}
		ok, bad := strings.Count(out.String(), " OK\n"), strings.Count(out.String(), " FAILED")
		if unbuffered && (ok != 4 || bad != 2) || !unbuffered && (ok != 2 || bad != 0) {
			t.Errorf("unbuffered %v: stdout %q", unbuffered, &out)
		}
	}
}

// TestDocumentation holds docs/runner.md to the program: its example, every firewall command and every option.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("../../docs/runner.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	_, example, _ := strings.Cut(doc, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	var out, errs bytes.Buffer
	env := System("")
	env.Stdin, env.Stdout, env.Stderr = strings.NewReader(example), &out, &errs
	code := Run([]string{"--dry-run", "-"}, env)
	want := "SKIPPED: tcp:cache1.example.com:11211\nSKIPPED: tcp:cache2.example.com:11211\nSKIPPED: tcp:localhost:80\n"
	if code != 0 || out.String() != want {
		t.Errorf("the example: exit %d\n%s%s", code, &out, &errs)
	}
	d := destination{protocol: "tcp", host: "web.example.com", addr: netip.MustParseAddr("10.0.0.1"), port: 80}
	for _, tool := range tools {
		if row := "`" + tool.rule(d, "$SECGROUP") + "` |"; !strings.Contains(doc, row) {
			t.Errorf("docs/runner.md has no %s", row)
		}
	}
	o := options{}
	o.flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "version" && !strings.Contains(doc, "`--"+f.Name) {
			t.Errorf("docs/runner.md has no --%s", f.Name)
		}
	})
}

// fullDisk fails every write.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestWriteErrorFailsTheRun: a lost report must not look like a passed one.
func TestWriteErrorFailsTheRun(t *testing.T) {
	for _, args := range [][]string{{}, {"-U"}, {"--output", "json"}, {"--output", "junit"}, {"--output", "nagios"}, {"--dry-run"}} {
		var errs bytes.Buffer
		env := System("")
		env.Stdout, env.Stderr = fullDisk{}, &errs
		if code := Run(append(args, writeChecks(t, "5", openPort(t))), env); code != 3 || !strings.Contains(errs.String(), "write output") {
			t.Errorf("%q: exit %d, stderr %q", args, code, &errs)
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progressLine{terminal.NewFixedBlock(&b, 80, 24)}
	p.drawRound(progress{done: 1, total: 3, failed: 1, running: []string{"a", strings.Repeat("ä", 90)}}, 2*time.Second)
	if got := b.String(); !strings.HasPrefix(got, "\r\x1b[K2 s: 1 of 3 done, 1 failed, waiting for a, ä") || !strings.HasSuffix(got, "ä...") {
		t.Errorf("drew %q", got)
	}
}
