//go:build unix

package spool

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// envHelper makes the test binary do one job in a process of its own instead of running tests.
const envHelper = "SPOOL_TEST_HELPER"

// helpers are those jobs by name; args are what came with it.
var helpers = map[string]func(args []string){
	"writer": helpWriter,
}

func TestMain(m *testing.M) {
	if job := os.Getenv(envHelper); job != "" {
		args := strings.Split(job, "\n")
		helpers[args[0]](args[1:])
		return
	}
	goleak.VerifyTestMain(m)
}

// helper returns the command that runs a job.
func helper(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envHelper+"="+strings.Join(args, "\n"))
	return cmd
}

// inSubprocess runs the test again in a process with attr. It returns true in that process; where it returns false the
// test is over.
func inSubprocess(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	const env = "SPOOL_TEST_SUBPROCESS"
	if os.Getenv(env) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
	return false
}

// tries returns how often a test shall try: few as a rule, many with HACHECK_LONG=1.
func tries(few, many int) int {
	if os.Getenv("HACHECK_LONG") == "1" {
		return many
	}
	return few
}

// clock is a wall clock that can be set.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time               { return time.Now().Add(time.Duration(c.offset.Load())).Round(0) }
func (c *clock) set(by time.Duration)         { c.offset.Store(int64(by)) }
func (c *clock) in(d time.Duration) time.Time { return c.now().Add(d) }

// testSpool is a spool directory with an index on it, as the daemon has it.
type testSpool struct {
	t     *testing.T
	d     *Dir
	x     *Index
	clock *clock

	mu      sync.Mutex
	changes []Change
	news    chan struct{}
	logged  bytes.Buffer
}

// openSpool returns a spool in a directory of its own; sys may replace system calls before the index opens.
func openSpool(t *testing.T, sys ...func(*system)) *testSpool {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	return openSpoolOn(t, d, sys...)
}

func openSpoolOn(t *testing.T, d *Dir, sys ...func(*system)) *testSpool {
	t.Helper()
	r := &testSpool{t: t, d: d, clock: &clock{}, news: make(chan struct{}, 1)}
	d.now = r.clock.now
	s := realSystem()
	s.now = r.clock.now
	for _, f := range sys {
		f(&s)
	}
	x, err := openIndex(d, IndexOptions{Log: slog.New(slog.NewTextHandler(r, nil)), OnChange: r.changed}, s)
	if err != nil {
		t.Fatal(err)
	}
	r.x = x
	t.Cleanup(r.close)
	return r
}

func (r *testSpool) close() {
	if err := r.x.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *testSpool) changed(c Change) {
	r.mu.Lock()
	r.changes = append(r.changes, c)
	r.mu.Unlock()
	r.signal()
}

func (r *testSpool) signal() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// Write takes the log of the index.
func (r *testSpool) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.signal()
	return r.logged.Write(p)
}

func (r *testSpool) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logged.String()
}

// waitFor waits until ok accepts the changes and the log so far, and fails after 20 s.
func (r *testSpool) waitFor(what string, ok func(changes []Change, log string) bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for {
		r.mu.Lock()
		done := ok(r.changes, r.logged.String())
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.news:
		case <-ctx.Done():
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("%s: waited in vain; changes %s, log:\n%s", what, showChanges(r.changes), r.logged.String())
		}
	}
}

func showChanges(list []Change) string {
	var b strings.Builder
	for _, c := range list {
		fmt.Fprintf(&b, "\n  %s: %s -> %s", c.Key.Name(), show(c.Old), show(c.New))
		if c.Expired {
			b.WriteString(" expired")
		}
	}
	return b.String()
}

// show formats an override in short: "down why", "" for none.
func show(e *Entry) string {
	if e == nil {
		return ""
	}
	return strings.TrimSpace(e.State.String() + " " + e.Reason)
}

// look returns in short what a lookup of the service at port 80 of this machine finds.
func (r *testSpool) look(service string) string {
	return show(r.x.Lookup(service, "", 80, true).Override)
}

// want fails unless the next lookup of the service says so.
func (r *testSpool) want(service, want string) {
	r.t.Helper()
	if got := r.look(service); got != want {
		r.t.Fatalf("%s is %q, want %q\nstats %+v, log:\n%s", service, got, want, r.x.Stats(), r.log())
	}
}

// wantExpired fails unless the override of the service has expired, and then updates the index: a lookup may leave that
// to the holder of the lock.
func (r *testSpool) wantExpired(service string) {
	r.t.Helper()
	r.want(service, "")
	r.x.mu.Lock()
	r.x.lookupAndUnlock(newQuery(service, "127.0.0.1", 80, true))
}

// wantSoon looks the service up until the answer is want, for at most 5 s.
func (r *testSpool) wantSoon(service, want string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for r.look(service) != want {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Fatalf("%s is %q after 5 s, want %q\nstats %+v, log:\n%s", service, r.look(service), want, r.x.Stats(), r.log())
		}
	}
}

func (r *testSpool) down(service, reason string) {
	r.write(Entry{Key: Key{Service: service}, State: Down, Reason: reason})
}

func (r *testSpool) write(e Entry) {
	r.t.Helper()
	if err := r.d.Write(e); err != nil {
		r.t.Fatal(err)
	}
}

func (r *testSpool) up(service string) {
	r.t.Helper()
	if err := r.d.Remove(Key{Service: service}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *testSpool) path(name string) string { return filepath.Join(r.d.Root(), name) }

// put writes a file in place, as the original tools and people do.
func (r *testSpool) put(name, text string) {
	r.t.Helper()
	put(r.t, r.path(name), text)
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (r *testSpool) remove(name string) {
	r.t.Helper()
	must(r.t, os.Remove(r.path(name)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// names lists the directory.
func (r *testSpool) names() []string {
	r.t.Helper()
	return names(r.t, r.d.Root())
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, d := range list {
		out = append(out, d.Name())
	}
	return out
}

// helpWriter downs and redowns web for ever, with a reason that tells whether it is whole.
func helpWriter(args []string) {
	d, err := OpenDir(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for n := 0; ; n++ {
		if err := d.Write(Entry{Key: web, State: Down, Reason: wholeReason(n)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func wholeReason(n int) string {
	return strconv.Itoa(n) + strings.Repeat(" "+strconv.Itoa(n), 500)
}

// whole reports whether reason is one of wholeReason.
func whole(reason string) bool {
	first, _, _ := strings.Cut(reason, " ")
	n, err := strconv.Atoi(first)
	return err == nil && reason == truncateReason(wholeReason(n))
}
