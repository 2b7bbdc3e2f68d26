//go:build unix

package spool

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// expiring is the content of an override that ends at a time.
func expiring(reason string, at time.Time) string {
	return fmt.Sprintf(`{"reason": %q, "expiration": %f, "creation": 1}`, reason, UnixSeconds(at))
}

// TestExpires: an override ends by itself at the next lookup, its file goes, and setting the clock back
// brings nothing back that is gone.
func TestExpires(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.put("web", expiring("an hour", r.clock.in(time.Hour)))
		r.put("all", expiring("two hours", r.clock.in(2*time.Hour)))
		r.put("web:80", `{"state": "up"}`)
		r.want("web", "down two hours")
		r.clock.set(time.Hour + time.Second)
		r.want("web", "down two hours")
		r.clock.set(2*time.Hour + time.Second)
		r.want("web", "up")
		r.wantExpired("other")
		r.put("late", expiring("already over", r.clock.in(-time.Second)))
		r.wantExpired("late")
		for _, name := range r.names() {
			if name != "web:80" && !isOwnFile(name) {
				t.Errorf("%s is still there", name)
			}
		}
		r.clock.set(0)
		r.want("other", "")
	})
}

// TestExpiresWhileLockIsHeld: the holder of the lock may wait for a dead file server. An override that expires meanwhile
// ends all the same, no result from before it is used, and the counters can be read.
func TestExpiresWhileLockIsHeld(t *testing.T) {
	r := openSpool(t, func(s *system) { s.verifyEvery = time.Hour })
	r.put("web", expiring("web", r.clock.in(time.Hour)))
	r.put("all", expiring("all", r.clock.in(2*time.Hour)))
	r.put("web:80", `{"state": "up"}`)
	r.put("db", fmt.Sprintf(`{"reason": "db", "state": "maint", "expiration": %f}`, UnixSeconds(r.clock.in(time.Hour))))
	r.want("web", "down all")
	r.want("db", "maint db")
	before := r.x.Lookup("web", "", 80, true)
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	answers := make(chan View)
	look := func(service string) (v View) {
		t.Helper()
		go func() { answers <- r.x.Lookup(service, "", 80, true) }()
		select {
		case v = <-answers:
		case <-time.After(10 * time.Second):
			r.x.mu.Unlock() // or the test would never end
			<-answers
			r.x.mu.Lock()
			t.Fatalf("no answer about %s", service)
		}
		return v
	}
	for _, step := range []struct {
		after time.Duration
		want  string
	}{
		{30 * time.Minute, "down all"},
		{90 * time.Minute, "down all"},
		{150 * time.Minute, "up"},
	} {
		r.clock.set(step.after)
		v := look("web")
		if got := show(v.Override); got != step.want {
			t.Errorf("after %v web is %q, want %q", step.after, got, step.want)
		}
		if step.want == "up" && v.MinGeneration <= before.Generation {
			t.Errorf("after %v a result of generation %d is still used: %+v", step.after, before.Generation, v)
		}
	}
	for _, service := range []string{"db", "other"} {
		if v := look(service); v.Override != nil {
			t.Errorf("%s is %q", service, show(v.Override))
		}
		if ended := r.x.LastMaintEnd(service, "", 80, true); ended.IsZero() != (service == "other") {
			t.Errorf("maint of %s has ended at %v", service, ended)
		}
	}
	listed := make(chan []Entry, 1)
	go func() { listed <- r.x.List() }()
	select {
	case list := <-listed:
		if len(list) != 1 || list[0].Key.Name() != "web:80" {
			t.Errorf("the list is %+v", list)
		}
	case <-time.After(10 * time.Second):
		t.Error("no list")
	}
	if s := r.x.Stats(); s.Overrides != 4 {
		t.Errorf("stats are %+v", s)
	}
}

// TestExpiredIsRemoved for good after the grace, without anybody asking.
func TestExpiredIsRemoved(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.put("web", expiring("x", time.Now().Add(20*time.Millisecond)))
		r.wantSoon("web", "")
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(10 * time.Second); len(r.names()) > 0; <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("files are %q", r.names())
			}
		}
	})
}

// TestClockSteps: an override whose file stays ends and comes back as the clock is set.
func TestClockSteps(t *testing.T) {
	r := openSpool(t)
	r.put("web", expiring("x", r.clock.in(time.Hour)))
	r.want("web", "down x")
	r.x.mu.Lock()
	f := r.x.files.byName["web"]
	r.x.mu.Unlock()
	keep := func(kept bool) {
		r.x.mu.Lock()
		f.removeFailed = kept
		r.x.mu.Unlock()
	}
	keep(true) // as if it may not be removed: TestReadOnly has that for real
	for range 3 {
		r.clock.set(2 * time.Hour)
		r.want("web", "")
		r.clock.set(-2 * time.Hour)
		r.want("web", "down x")
	}
	if got := r.names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("files are %q", got)
	}
	keep(false)
	r.clock.set(2 * time.Hour)
	r.put("web", expiring("x", r.clock.in(time.Hour)))
	r.want("web", "down x")
	r.clock.set(0)
	r.want("web", "down x")
}

// TestRenewalsAreNeverLost: an override that expires all the time is renewed all the time, by writers that
// rename and by writers that write in place. A renewal that has returned is in force.
func TestRenewalsAreNeverLost(t *testing.T) {
	renewals := []struct {
		name  string
		write func(r *testSpool, n int, text string)
	}{
		{"rename", func(r *testSpool, n int, text string) {
			put(r.t, r.path("#renewal"), text)
			must(r.t, os.Rename(r.path("#renewal"), r.path("web")))
		}},
		{"in place", func(r *testSpool, n int, text string) { r.put("web", text) }},
		{"slowly in place", func(r *testSpool, n int, text string) {
			f, err := os.OpenFile(r.path("web"), os.O_WRONLY|os.O_CREATE, 0o644)
			must(r.t, err)
			for range n % 5 { // meanwhile the old content expires, and is moved aside
				runtime.Gosched()
				r.x.Lookup("web", "", 80, true)
			}
			must(r.t, f.Truncate(0))
			_, err = f.WriteString(text)
			must(r.t, err)
			must(r.t, f.Close())
		}},
	}
	for _, tt := range renewals {
		t.Run(tt.name, func(t *testing.T) { renewAgainAndAgain(t, openSpool(t), tries(500, 30_000), tt.write) })
	}
	// Without events a late writer in place is noticed only when the grace ends: TestLateWriter.
	t.Run("poll", func(t *testing.T) {
		renewAgainAndAgain(t, openSpool(t, noInotify), tries(100, 5_000), renewals[0].write)
	})
}

// renewAgainAndAgain has an override expire and be renewed, with two others asking for it.
func renewAgainAndAgain(t *testing.T, r *testSpool, rounds int, renew func(r *testSpool, n int, text string)) {
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				r.x.Lookup("web", "", 80, true)
				runtime.Gosched()
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	for n := range rounds {
		// What is there expires right now, or has just expired.
		r.put("web", expiring("old", r.clock.in(time.Duration(n%40)*time.Microsecond)))
		for range n % 3 {
			runtime.Gosched()
		}
		reason := fmt.Sprint("renewal ", n)
		renew(r, n, expiring(reason, r.clock.in(time.Hour)))
		if got := r.look("web"); got != "down "+reason {
			t.Fatalf("renewal %d: web is %q; files %q", n, got, r.names())
		}
	}
}

// TestLateWriter: a writer that opened the file before it expired and writes after it was set aside has renewed the
// override, at the end of the grace period at most.
func TestLateWriter(t *testing.T) {
	t.Parallel()
	t.Run("kernel cannot tell other openers", func(t *testing.T) {
		writeLate(t, openSpool(t, func(s *system) { s.isOnlyOpener = func(int) bool { return true } }))
	})
	withAndWithoutInotify(t, writeLate)
}

func writeLate(t *testing.T, r *testSpool) {
	r.put("web", expiring("old", r.clock.in(time.Hour)))
	r.want("web", "down old")
	f, err := os.OpenFile(r.path("web"), os.O_WRONLY, 0)
	must(t, err)
	r.clock.set(2 * time.Hour)
	r.wantExpired("web")
	if got := r.names(); len(got) != 1 || !isOwnFile(got[0]) {
		t.Fatalf("files are %q", got)
	}
	must(t, f.Truncate(0))
	_, err = f.WriteString(expiring("renewed", r.clock.in(time.Hour)))
	must(t, err)
	if r.x.Stats().Watching {
		r.want("web", "down renewed")
	} else {
		r.wantSoon("web", "down renewed")
	}
	must(t, f.Truncate(0))
	_, err = f.WriteAt([]byte("again, and for ever"), 0)
	must(t, err)
	must(t, f.Close())
	r.want("web", "down again, and for ever")
	if got := r.names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("files are %q", got)
	}
}

// TestOpenFileIsNotRemoved: a file that was set aside stays while a process may still write to it.
func TestOpenFileIsNotRemoved(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // only there the kernel tells
	}
	r := openSpool(t)
	r.put("web", expiring("old", r.clock.in(time.Hour)))
	f, err := os.OpenFile(r.path("web"), os.O_WRONLY, 0)
	must(t, err)
	r.clock.set(2 * time.Hour)
	r.wantExpired("web")
	aside := r.names()
	if len(aside) != 1 || !isOwnFile(aside[0]) {
		t.Fatalf("files are %q", aside)
	}
	settle := func() {
		r.x.mu.Lock()
		if f := r.x.aside[aside[0]]; f != nil { // nil: the event of the close was faster
			f.since = time.Now().Add(-time.Hour) // the grace is over
		}
		r.x.mu.Unlock()
		r.x.List()
	}
	settle()
	if got := r.names(); !slices.Equal(got, aside) {
		t.Fatalf("files are %q, want %q", got, aside)
	}
	must(t, f.Close())
	settle()
	if got := r.names(); got != nil {
		t.Errorf("files are %q", got)
	}
}

// TestNewerRenewalWins: what was moved aside is not put over something newer.
func TestNewerRenewalWins(t *testing.T) {
	r := openSpool(t)
	aside := newAsideName("web")
	r.put("web", "newer")
	r.put(aside, "older")
	r.want("web", "down newer")
	if got := r.names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("files are %q", got)
	}
	r.remove("web")
	r.put(aside, "put back")
	r.want("web", "down put back")
}

// TestRemoveDeletesAsideFiles: `haup` while the daemon has a renewal moved aside is not undone by it.
func TestRemoveDeletesAsideFiles(t *testing.T) {
	d := openDir(t)
	aside := newAsideName("web")
	put(t, d.Root()+"/"+aside, "renewed")
	must(t, d.Remove(web))
	if got := names(t, d.Root()); got != nil {
		t.Errorf("files are %q", got)
	}
}

// TestCrashLeftovers: what a crash has left is put back, removed after the grace, or swept up at start.
func TestCrashLeftovers(t *testing.T) {
	d := openDir(t)
	file := func(name string) string { return d.Root() + "/" + name }
	renewed, old := newAsideName("renewed"), newAsideName("old")
	stale, fresh, locked := tempPrefix+"0000000000000001", tempPrefix+"0000000000000002", tempPrefix+"0000000000000003"
	put(t, file(renewed), "in force")
	put(t, file(old), `{"expiration": 5}`)
	for _, name := range []string{stale, fresh, locked} {
		put(t, file(name), "half a fi")
	}
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(file(stale), long, long))
	must(t, os.Chtimes(file(locked), long, long))
	f, err := os.Open(file(locked))
	must(t, err)
	defer func() { must(t, f.Close()) }()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))

	r := openSpoolOn(t, d)
	r.want("renewed", "down in force")
	r.want("old", "")
	want := []string{fresh, locked, old, "renewed"}
	if got := r.names(); !slices.Equal(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}
	if strings.Contains(r.log(), "ignored") {
		t.Errorf("our own files are no news:\n%s", r.log())
	}
}
