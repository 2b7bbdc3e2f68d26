package runner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
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

// result is a step that ends at once.
func result(r check.Result) check.Func {
	return func(context.Context, check.Target) check.Result { return r }
}

var (
	well   = result(check.Result{Code: 200})
	broken = result(check.Result{Code: 503, Reason: check.ReasonFailed, Body: []byte("wrong\x1b[2J password\nsecond line"), Err: fmt.Errorf("log in: %w", io.EOF)})
	odd    = result(check.Result{Code: 404, Body: []byte("<html>")})
)

// hang is a step that ends with its context.
func hang(ctx context.Context, _ check.Target) check.Result {
	<-ctx.Done()
	return check.Result{Code: 503, Reason: check.ReasonTimeout, Body: []byte("Connection timed out")}
}

func stub(typ string, tags []string, steps ...any) *check.Configured {
	c := &check.Configured{Type: typ, Name: typ + ":stub", Tags: tags, Timeout: time.Minute}
	for i := 0; i < len(steps); i += 2 {
		c.Steps = append(c.Steps, check.Step{Name: steps[i].(string), Run: asFunc(steps[i+1])})
	}
	return c
}

func asFunc(f any) check.Func {
	if f, ok := f.(check.Func); ok {
		return f
	}
	return f.(func(context.Context, check.Target) check.Result)
}

// stubs are a check that fails in the middle, one that passes and one whose service answers otherwise.
func stubs() []*check.Configured {
	return []*check.Configured{
		stub("tcp", []string{"b"}, "tcp:z:1", well),
		stub("postgres", []string{"a", "b"}, "tcp:db:5432", well, "tls:db:5432", broken, "postgres:db:5432", well, "postgres:db:query", well),
		stub("redis", []string{"a"}, "redis:r:6379:tcp:r:6379", well, "redis:r:6379:connect with auth", broken),
		stub("http", nil, "http:http://w/a|b?c=<d>&e=\"f\":", odd),
	}
}

func runStubs(t *testing.T, checks []*check.Configured, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := System("1.2.3")
	env.Stdout, env.Stderr = &out, &errs
	c := newCommand("hacheck run", env)
	o, _, done := c.options(append([]string{"stubs.yaml"}, args...), "", "")
	if done {
		t.Fatalf("options %q: %s", args, &errs)
	}
	code = c.finish(c.runChecks(o, checks))
	return code, out.String(), errs.String()
}

// TestGolden compares every form of the report with testdata/golden; times are T.
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
			code, stdout, stderr := runStubs(t, stubs(), args...)
			golden(t, name, fmt.Sprintf("%s%sexit %d\n", timeless(stdout), stderr, code))
		})
	}
}

func TestNagiosNamesThree(t *testing.T) {
	var checks []*check.Configured
	for i := range 5 {
		checks = append(checks, stub("tcp", nil, fmt.Sprintf("tcp:h:%d", i), broken))
	}
	_, stdout, _ := runStubs(t, checks, "--output", "nagios")
	line, _, _ := strings.Cut(stdout, "\n")
	if !strings.Contains(line, "tcp:h:2 (") || strings.Contains(line, "tcp:h:3") || !strings.Contains(line, " and 2 more | ") {
		t.Errorf("first line %q", line)
	}
}

// TestPatternsChooseSteps: as in conn-check, a step is run when its own name matches, whatever happens to
// the steps before it.
func TestPatternsChooseSteps(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"postgres:*"}, "postgres:db:5432 OK\npostgres:db:query OK\n", 0},
		{[]string{"*:5432"}, "tls:db:5432 FAILED - wrong [2J password second line\ntcp:db:5432 OK\nSKIPPED: postgres:db:5432\n", 2},
		{[]string{"tcp:*", "--exclude-tags", "a"}, "tcp:z:1 OK\n", 0},
		{[]string{"tcp:*", "--include-tags", "x,a"}, "tcp:db:5432 OK\n", 0},
		{[]string{"tcp:*", "--include-tags", "", "--exclude-tags", "a"}, "tcp:z:1 OK\n", 0}, // as good as not given
		{[]string{"tcp:*", "--exclude-tags="}, "tcp:db:5432 OK\ntcp:z:1 OK\n", 0},
		{[]string{"tcp:z:1", "redis:*:tcp:*"}, "redis:r:6379:tcp:r:6379 OK\ntcp:z:1 OK\n", 0},
		{[]string{"none"}, "", 0},
	} {
		code, stdout, stderr := runStubs(t, stubs(), test.args...)
		if stdout != test.want || code != test.code {
			t.Errorf("%q: exit %d\n%s\nwant %d\n%s", test.args, code, stdout, test.code, test.want)
		}
		if (test.want == "") != strings.Contains(stderr, "nothing to check") {
			t.Errorf("%q: stderr %q", test.args, stderr)
		}
	}
}

// TestSlowest: 200 checks of which 20 hang take as long as the slowest, and less than two of those would one after the
// other.
func TestSlowest(t *testing.T) {
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

// TestSideBySide: every check runs while the others do, and never more than there are slots.
func TestSideBySide(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	all := make(chan struct{})
	step := func(ctx context.Context, _ check.Target) check.Result {
		mu.Lock()
		running++
		if most = max(most, running); most == maxAtOnce && running == maxAtOnce {
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
	var checks []*check.Configured
	for i := range maxAtOnce + 50 {
		checks = append(checks, stub("x", nil, fmt.Sprint(i), step))
	}
	if code, _, stderr := runStubs(t, checks); code != 0 || most != maxAtOnce {
		t.Errorf("exit %d, at most %d at once, want 0 and %d\n%s", code, most, maxAtOnce, stderr)
	}
}

// TestMaxTimeout: what is known then is printed, the rest is named.
func TestMaxTimeout(t *testing.T) {
	checks := append(stubs()[:1], stub("x", nil, "x:1", well, "x:2", hang, "x:3", well))
	want := "x:2 FAILED - not finished: maximum timeout reached\ntcp:z:1 OK\nx:1 OK\nSKIPPED: x:3\n"
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "Maximum timeout reached: 0.3s\n" + want},
		{[]string{"-f", "60"}, "Maximum timeout reached: 0.3s\n" + want},
		{[]string{"-f", "0.001", "--output", "nagios"}, "HACHECK CRITICAL - 1 of 4 failed: x:2 (not finished: maximum timeout reached) | "},
	} {
		code, stdout, _ := runStubs(t, checks, append(test.args, "--max-timeout", "0.3")...)
		if code != 2 || !strings.HasPrefix(stdout, test.want) {
			t.Errorf("%q: exit %d, stdout\n%s\nwant 2,\n%s", test.args, code, stdout, test.want)
		}
	}
	_, stdout, _ := runStubs(t, checks, "-U", "--max-timeout", "0.3")
	lines := strings.SplitAfter(stdout, "\n")
	slices.Sort(lines)
	if d := cmp.Diff([]string{
		"", "Maximum timeout reached: 0.3s\n", "SKIPPED: x:3\n", "tcp:z:1 OK\n", "x:1 OK\n", "x:2 FAILED - not finished: maximum timeout reached\n",
	}, lines); d != "" {
		t.Errorf("-U (-want +got):\n%s", d)
	}
}

// TestMaxTimeoutBetweenRounds: the last round is what is reported.
func TestMaxTimeoutBetweenRounds(t *testing.T) {
	code, stdout, stderr := runStubs(t, stubs()[3:], "-f", "60", "--max-timeout", "0.2")
	if code != 2 || !strings.HasPrefix(stdout, "Maximum timeout reached: 0.2s\nhttp:") || stderr != "hacheck run: round 1: 1 of 1 failed, next in 1m0s\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// TestDisobedient: a check that does not obey its context cannot hold up the end.
func TestDisobedient(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	deaf := func(context.Context, check.Target) check.Result { <-release; return check.Result{Code: 200} }
	code, stdout, _ := runStubs(t, []*check.Configured{stub("x", nil, "x:1", deaf)}, "--max-timeout", "0.1")
	if code != 2 || !strings.Contains(stdout, "x:1 FAILED - not finished") {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

// TestStepsShareTheTimeout: a check's timeout is for all its steps together.
func TestStepsShareTheTimeout(t *testing.T) {
	c := stub("x", nil, "x:1", well, "x:2", hang)
	c.Timeout = 100 * time.Millisecond
	if code, stdout, _ := runStubs(t, []*check.Configured{c}); code != 2 || stdout != "x:2 FAILED - Connection timed out\nx:1 OK\n" {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

// onLine calls f when a line with text has been written.
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

// TestWatch repeats until a port listens that did not at first.
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

// TestInterrupt: a signal ends the run, and what is known so far is printed.
func TestInterrupt(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sig  os.Signal
		code int
	}{{os.Interrupt, 130}, {syscall.SIGTERM, 143}} {
		cmd := exec.CommandContext(t.Context(), exe, "run", "-Uv", writeChecks(t, "60", openPort(t), hangingPort(t)))
		cmd.Args[0] = "hacheck"
		cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var lines []string
		started := 0
		for s := bufio.NewScanner(out); s.Scan(); {
			lines = append(lines, s.Text())
			if strings.HasPrefix(s.Text(), "Starting") || strings.HasSuffix(s.Text(), " OK") {
				if started++; started == 3 { // both have begun and the one that can has ended
					if err := cmd.Process.Signal(test.sig); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		var failed *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &failed) || failed.ExitCode() != test.code {
			t.Errorf("%v: %v, want exit %d\n%s", test.sig, err, test.code, strings.Join(lines, "\n"))
		}
		if last := lines[len(lines)-1]; !strings.HasSuffix(last, " FAILED - not finished: interrupted") {
			t.Errorf("last line %q", last)
		}
	}
}

// TestNohup: a signal that was ignored when the run began stays ignored.
func TestNohup(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `trap "" HUP; exec -a hacheck "$0" run -U --max-timeout 0.5 "$1"`
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script, exe, writeChecks(t, "60", openPort(t), hangingPort(t)))
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.HasSuffix(s.Text(), " OK") {
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
	var failed *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &failed) || failed.ExitCode() != 2 {
		t.Errorf("%v, want exit 2", err)
	}
}

// TestDocumentation runs what docs/runner.md shows.
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
	g := grant{protocol: "tcp", host: "web.example.com", addr: netip.MustParseAddr("10.0.0.1"), port: 80}
	for _, tool := range tools {
		if row := "`" + tool.rule(g, "$SECGROUP") + "` |"; !strings.Contains(doc, row) {
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

// brokenPipe fails every write.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestNoSpace: a report that did not arrive must not look like a good one.
func TestNoSpace(t *testing.T) {
	for _, args := range [][]string{{}, {"-U"}, {"--output", "json"}, {"--output", "junit"}, {"--output", "nagios"}, {"--dry-run"}} {
		var errs bytes.Buffer
		env := System("")
		env.Stdout, env.Stderr = brokenPipe{}, &errs
		if code := Run(append(args, writeChecks(t, "5", openPort(t))), env); code != 3 || !strings.Contains(errs.String(), "write output") {
			t.Errorf("%q: exit %d, stderr %q", args, code, &errs)
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progress{terminal.NewFixedBlock(&b, 80, 24)}
	p.round(state{done: 1, total: 3, failed: 1, running: []string{"a", strings.Repeat("ä", 90)}}, 2*time.Second)
	if got := b.String(); !strings.HasPrefix(got, "\r\x1b[K2 s: 1 of 3 done, 1 failed, waiting for a, ä") || !strings.HasSuffix(got, "ä...") {
		t.Errorf("drew %q", got)
	}
}

func TestPattern(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "tcp:a:1", true},
		{"**", "x", true},
		{"tcp:a:1", "tcp:a:1", true},
		{"tcp:a:1", "tcp:a:12", false},
		{"tcp:a", "tcp:a:1", false},
		{"tcp:*", "tcp:a:1", true},
		{"tcp:*", "tcp:", true},
		{"tcp:*", "xtcp:", false},
		{"*:1", "tcp:a:1", true},
		{"*:1", "tcp:a:11", false},
		{"*a*a", "a", false},
		{"*a*a", "aba", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "acb", false},
		{"a*ab", "ab", false},
		{"a*ab*b", "aabb", true},
		{"t.p:*", "tcp:a", false},
		{"[t]cp:*", "tcp:a", false},
		{"tcp:?:1", "tcp:a:1", false},
		{"a*", "a\nb", true},
	} {
		if got := pattern(test.pattern).match(test.name); got != test.want {
			t.Errorf("pattern %q matches %q: %v, want %v", test.pattern, test.name, got, test.want)
		}
	}
}

// slowMatch says the same in the simplest way.
func slowMatch(p, s string) bool {
	if p == "" {
		return s == ""
	}
	if p[0] == '*' {
		return slowMatch(p[1:], s) || s != "" && slowMatch(p, s[1:])
	}
	return s != "" && s[0] == p[0] && slowMatch(p[1:], s[1:])
}

func FuzzPattern(f *testing.F) {
	f.Add("tcp:*:80", "tcp:a:80")
	f.Add("a*ab*b", "aabb")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 16 {
			_ = pattern(p).match(s)
			return
		}
		if got, want := pattern(p).match(s), slowMatch(p, s); got != want {
			t.Errorf("pattern %q, name %q: %v, want %v", p, s, got, want)
		}
	})
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "sg-1", "a b", "it's", "$(reboot)", "-x", "a;b", "`x`", "ä", "*", "a\nb"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q quoted as %s comes out as %q: %v", s, quote(s), out, err)
		}
	}
}

func TestGrantsAreSafe(t *testing.T) {
	for _, tool := range tools {
		g := grant{protocol: "tcp", host: "2001:db8::1", addr: netip.MustParseAddr("2001:db8::1"), port: 65535}
		out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", tool.rule(g, quote("$(x)"))).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", tool.name, err, out)
		}
	}
}

func TestClean(t *testing.T) {
	long := strings.Repeat("ä", 300)
	if got := clean(long, maxWhy); len(got) > maxWhy+3 || !strings.HasSuffix(got, "ä...") {
		t.Errorf("cut to %q", got)
	}
	if got := clean(" a\tb\r\n\u2028c\u202e\x00\xff ", 99); got != "a b   c" {
		t.Errorf("%q", got)
	}
}
