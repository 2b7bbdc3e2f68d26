//go:build unix

package spool

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withAndWithoutInotify runs a test with inotify and without, where every lookup looks at the directory.
func withAndWithoutInotify(t *testing.T, f func(t *testing.T, r *testSpool)) {
	t.Helper()
	t.Run("inotify", func(t *testing.T) {
		r := openSpool(t)
		if runtime.GOOS == "linux" && !r.x.Stats().Watching {
			t.Fatal("no inotify here")
		}
		f(t, r)
	})
	t.Run("poll", func(t *testing.T) { f(t, openSpool(t, noInotify)) })
}

func noInotify(s *system) {
	s.openRawWatch = func() (*rawWatch, error) { return nil, unix.EMFILE }
}

func TestLookupCombines(t *testing.T) {
	type file struct{ name, text string }
	drain, maint, up := `{"state": "drain", "reason": "%s"}`, `{"state": "maint", "reason": "%s"}`, `{"state": "up", "reason": "%s"}`
	for _, tt := range []struct {
		files []file
		host  string
		port  uint16
		away  bool
		want  string
	}{
		{want: ""},
		{files: []file{{"other", ""}}, port: 80, want: ""},
		{files: []file{{"web", "s"}}, port: 0, want: "down s"},
		{files: []file{{"web", "s"}}, port: 80, want: "down s"},
		{files: []file{{"web", "s"}}, host: "10.9.9.9", port: 80, away: true, want: "down s"},
		{files: []file{{"all", "a"}, {"web", "s"}}, port: 80, want: "down a"},
		{files: []file{{"all", drain}, {"web", "s"}}, port: 80, want: "down s"},
		{files: []file{{"all", "a"}, {"web", maint}}, port: 80, want: "maint web"},
		{files: []file{{"all", up}, {"web", drain}}, port: 80, want: "drain web"},
		{files: []file{{"all", up}}, port: 80, want: "up all"},
		{files: []file{{"web:80", "i"}}, port: 80, want: "down i"},
		{files: []file{{"web:80", "i"}}, port: 81, want: ""},
		{files: []file{{"web:80", "i"}}, port: 0, want: ""},
		{files: []file{{"web:80", "i"}}, host: "10.9.9.9", port: 80, away: true, want: ""},
		{files: []file{{"web:80", "i"}}, host: "10.0.0.1", port: 80, want: "down i"},
		{files: []file{{"web:10.0.0.1:80", "h"}}, host: "10.0.0.1", port: 80, want: "down h"},
		{files: []file{{"web:10.0.0.1:80", "h"}}, host: "10.0.0.1", port: 80, away: true, want: "down h"},
		{files: []file{{"web:10.0.0.1:80", "h"}}, host: "10.0.0.2", port: 80, away: true, want: ""},
		{files: []file{{"web:127.0.0.1:80", "h"}}, port: 80, want: "down h"},
		{files: []file{{"web:localhost:80", "h"}}, port: 80, want: "down h"},
		{files: []file{{"web:[2001:DB8::1]:80", "h"}}, host: "2001:db8::1", port: 80, away: true, want: "down h"},
		{files: []file{{"web:80", "i"}, {"web:127.0.0.1:80", "h"}}, port: 80, want: "down i"},
		{files: []file{{"web", "s"}, {"web:80", "i"}}, port: 80, want: "down s"},
		{files: []file{{"web", drain}, {"web:80", "i"}}, port: 80, want: "down i"},
		{files: []file{{"all:80", "x"}}, port: 80, want: ""},
		{files: []file{{"web", `{"expiration": 5}`}, {"web:80", drain}}, port: 80, want: "drain web:80"},
	} {
		r := openSpool(t)
		var said []string
		for _, f := range tt.files {
			said = append(said, f.name)
			text := f.text
			if strings.Contains(text, "%s") {
				text = fmt.Sprintf(text, f.name)
			}
			r.put(f.name, text)
		}
		if got := show(r.x.Lookup("web", tt.host, tt.port, !tt.away).Override); got != tt.want {
			t.Errorf("%q, host %q, port %d, away %v: %q, want %q", said, tt.host, tt.port, tt.away, got, tt.want)
		}
		r.close()
	}
	r := openSpool(t)
	r.put("all", "a")
	r.put("all:80", maint)
	if got := show(r.x.Lookup("all", "", 0, true).Override); got != "down a" {
		t.Errorf("all is %q", got)
	}
}

// TestEveryWriterShowsAtOnce: the next lookup sees a change by any kind of writer.
func TestEveryWriterShowsAtOnce(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.want("web", "")
		r.down("web", "a")
		r.want("web", "down a")
		r.down("web", "b")
		r.want("web", "down b")
		r.up("web")
		r.want("web", "")

		r.put("web", "in place")
		r.want("web", "down in place")
		r.put("web", "in place again")
		r.want("web", "down in place again")
		f, err := os.OpenFile(r.path("web"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		r.want("web", "down in place again")
		_, err = f.WriteString(", appended")
		must(t, err)
		r.want("web", "down in place again, appended")
		must(t, f.Truncate(8))
		r.want("web", "down in place")
		must(t, f.Close())
		must(t, os.Truncate(r.path("web"), 0))
		r.want("web", "down")
		r.remove("web")
		r.want("web", "")

		r.put("#rsync", "renamed")
		r.want("web", "")
		must(t, os.Rename(r.path("#rsync"), r.path("web")))
		r.want("web", "down renamed")
		must(t, os.Rename(r.path("web"), r.path("other")))
		r.want("web", "")
		r.want("other", "down renamed")
		must(t, os.Link(r.path("other"), r.path("web")))
		r.want("web", "down renamed")
		must(t, os.Rename(r.path("web"), filepath.Join(t.TempDir(), "away")))
		r.want("web", "")

		must(t, os.Symlink("other", r.path("web")))
		r.want("web", "down renamed")
		r.put("other", "behind the link")
		r.want("web", "down behind the link")
		r.remove("other")
		r.want("web", "")
		r.put("other", "back")
		r.want("web", "down back")
		r.remove("web")
		r.want("web", "")

		if runtime.GOOS == "linux" && os.Getuid() != 0 {
			must(t, os.Chmod(r.path("other"), 0))
			r.want("other", "down spool file cannot be read: permission denied")
		}
	})
}

// TestLinks: symbolic links count when they stay in the directory, over however many hops.
func TestLinks(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		outside := filepath.Join(t.TempDir(), "outside")
		put(t, outside, "outside")
		must(t, os.MkdirAll(r.path("..2024"), 0o755))
		must(t, os.MkdirAll(r.path("..2025"), 0o755))
		put(t, r.path("..2024/web"), "old")
		put(t, r.path("..2025/web"), "new")
		put(t, r.path("#hidden"), "hidden")
		must(t, os.Symlink(outside, r.path("outside")))
		must(t, os.Symlink("../../outside", r.path("relative")))
		must(t, os.Symlink("loop", r.path("loop")))
		must(t, os.Symlink(r.path("#hidden"), r.path("absolute")))
		must(t, os.Symlink("absolute", r.path("second")))
		must(t, os.Symlink("second", r.path("third")))
		must(t, os.Symlink("../"+filepath.Base(r.d.Root())+"/#hidden", r.path("around")))
		must(t, os.Symlink("..2024", r.path("..data"))) // as Kubernetes mounts a ConfigMap
		must(t, os.Symlink("..data/web", r.path("web")))
		must(t, os.Symlink("nothing", r.path("dangling")))
		must(t, os.Symlink("..2024/nothing", r.path("deep")))
		must(t, os.Symlink("/dev/zero", r.path("device")))

		for name, want := range map[string]string{
			"outside": "", "relative": "", "loop": "", "dangling": "", "deep": "", "device": "",
			"absolute": "down hidden", "second": "down hidden", "third": "down hidden", "around": "down hidden",
			"web": "down old",
		} {
			r.want(name, want)
		}
		r.put("#hidden", "edited")
		for _, name := range []string{"absolute", "second", "third", "around"} {
			r.want(name, "down edited")
		}
		put(t, r.path("..2024/web"), "edited")
		r.want("web", "down edited")
		must(t, os.Symlink("..2025", r.path("..tmp")))
		must(t, os.Rename(r.path("..tmp"), r.path("..data")))
		r.want("web", "down new")
		r.put("nothing", "there")
		r.want("dangling", "down there")
		put(t, r.path("..2024/nothing"), "there")
		r.want("deep", "down there")
		must(t, os.Remove(r.path("..2024/nothing")))
		r.want("deep", "")
		r.remove("#hidden")
		for _, name := range []string{"absolute", "second", "third", "around"} {
			r.want(name, "")
		}
	})
}

// TestOddThingsAreIgnored and said so once; what counts as an override is down, whatever is in it.
func TestOddThingsAreIgnored(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		must(t, os.Mkdir(r.path("directory"), 0o755))
		must(t, unix.Mkfifo(r.path("fifo"), 0o644))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, err)
		defer func() { must(t, unix.Close(fd)) }()
		t.Chdir(r.d.Root()) // the whole path may be too long for a socket
		must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}))
		for _, name := range []string{"foo~", "foo:0", "foo:bar", "#foo#", "a b", "new\nline"} {
			r.put(name, "x")
		}
		for range 3 {
			for _, name := range []string{"directory", "fifo", "socket", "foo"} {
				r.want(name, "")
			}
			r.put("foo~", "again")
		}
		r.waitFor("ignored files", func(_ []Change, log string) bool {
			return strings.Count(log, "is ignored") >= 9
		})
		for _, name := range []string{"directory", "fifo", "socket", "foo~", "foo:0", "foo:bar", "#foo#", `"a b"`, `"new\nline"`} {
			if n := strings.Count(r.log(), "name="+name+" "); n != 1 {
				t.Errorf("%s is in the log %d times", name, n)
			}
		}
		if n := r.x.Stats().Ignored; n != 9 {
			t.Errorf("%d names ignored, want 9", n)
		}

		r.put("binary", "\x00\xff\x7f{")
		r.want("binary", "down \x00\xff\x7f{")
		r.put("empty", "")
		r.want("empty", "down")
		r.put(".foo.swp", "editor")
		r.want(".foo.swp", "down editor")
		must(t, os.Truncate(r.path("empty"), 1<<30))
		if got := r.look("empty"); !strings.HasPrefix(got, "down \x00") || len(got) > 2*MaxReason {
			t.Errorf("a file of 1 GB is %.20q", got)
		}
		must(t, os.Remove(r.path("fifo")))
		r.put("fifo", "a file now")
		r.want("fifo", "down a file now")
		r.remove("fifo")
		must(t, os.Mkdir(r.path("fifo"), 0o755))
		r.want("fifo", "")
	})
}

// TestAliases: of the files that mean one key the strongest counts, and one command ends them all.
func TestAliases(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		k := Key{Service: "web", Host: "::1", Port: 80}
		want := func(want string) {
			t.Helper()
			if got := show(r.x.Lookup("web", "::1", 80, true).Override); got != want {
				t.Fatalf("is %q, want %q", got, want)
			}
		}
		r.put("web:[::1]:80", "brackets")
		want("down brackets")
		r.put("web:0:0:0:0:0:0:0:1:80", `{"state": "maint", "reason": "long"}`)
		want("maint long")
		r.put("web:::1:80", "canonical")
		want("maint long")
		r.remove("web:0:0:0:0:0:0:0:1:80")
		want("down canonical")
		r.put("web:::1:80", `{"state": "drain"}`)
		want("down brackets")
		if list := r.x.List(); len(list) != 1 || list[0].Key != k {
			t.Errorf("List is %+v", list)
		}
		must(t, r.d.Remove(k))
		want("")
		if got := r.names(); got != nil {
			t.Errorf("files are %q", got)
		}
	})
}

// TestGenerations: no result from before an override ended is used after it.
func TestGenerations(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		look := func(service string) View { return r.x.Lookup(service, "", 80, true) }
		outdated := func(what string, before View, service string, want bool) {
			t.Helper()
			if after := look(service); before.Generation < after.MinGeneration != want {
				t.Errorf("%s: a result of %s from generation %d, ended %d: outdated is not %v", what, service, before.Generation, after.MinGeneration, want)
			}
		}
		r.down("web", "a")
		before := look("web")
		outdated("nothing happened", before, "web", false)
		r.put("web", `{"state": "drain"}`)
		outdated("still overridden", before, "web", false)
		r.up("web")
		outdated("ended", before, "web", true)
		before = look("web")
		outdated("ended before", before, "web", false)
		for _, name := range []string{"web:80", "web:127.0.0.1:80", "all"} {
			r.put(name, `{"state": "up"}`)
			before, bystander := look("web"), look("other")
			r.remove(name)
			outdated(name+" ended", before, "web", true)
			if r.x.Stats().Watching { // without events every target is a bystander
				outdated(name+" ended", bystander, "other", name == "all")
			}
		}
		before = look("web")
		r.x.mu.Lock() // no goroutine reads events in between
		r.down("web", "between two requests")
		r.up("web")
		r.x.mu.Unlock()
		outdated("came and went", before, "web", true)
		r.write(Entry{Key: web, State: Down, Expires: r.clock.in(time.Hour)})
		before = look("web")
		outdated("not expired", before, "web", false)
		r.clock.set(2 * time.Hour)
		outdated("expired", before, "web", true)
	})
}

// TestEndedKeysAreBounded: beyond a bound the ends of overrides are forgotten, which costs a few more checks.
func TestEndedKeysAreBounded(t *testing.T) {
	r := openSpool(t)
	first := r.x.Lookup("svc0", "", 0, true)
	for i := range maxEndedSlots + 10 {
		name := fmt.Sprintf("svc%d", i)
		r.put(name, "")
		r.remove(name)
		if i%100 == 0 {
			r.look("web")
		}
	}
	if v := r.x.Lookup("svc0", "", 0, true); first.Generation >= v.MinGeneration {
		t.Errorf("a result of svc0 from generation %d counts although it was down: ended %d", first.Generation, v.MinGeneration)
	}
	s := r.x.pub.snapshot.Load()
	if s.slots > maxEndedSlots || s.minGeneration == 0 || s.slots != s.endedOnly {
		t.Errorf("%d slots, %d of them ended, minimum generation %d", s.slots, s.endedOnly, s.minGeneration)
	}
}

// TestNeverStale: with the daemon under load, no lookup that begins after a write has returned answers
// from before it.
func TestNeverStale(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		rounds := tries(2000, 95_000)
		if !r.x.Stats().Watching {
			rounds = tries(400, 20_000)
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for i := range 3 { // load: requests, and another writer
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if i == 0 && n%64 == 0 {
						put(t, r.path("busy"), "x")
					}
					r.x.Lookup("web", "", 80, true)
					if n%16 == 0 {
						runtime.Gosched() // or the writer gets a processor every 10 ms
					}
				}
			})
		}
		defer wg.Wait()
		defer close(stop)
		for n := range rounds {
			reason := fmt.Sprint(n)
			switch n % 4 {
			case 0: // as we write
				must(t, os.WriteFile(r.path("#new"), []byte(reason), 0o644))
				must(t, os.Rename(r.path("#new"), r.path("web")))
			default: // as the original tools do
				r.put("web", reason)
			}
			r.want("web", "down "+reason)
			if n%2 == 0 {
				r.remove("web")
				r.want("web", "")
			}
			if n%200 == 0 {
				r.down("web", "command")
				r.want("web", "down command")
				r.up("web")
				r.want("web", "")
			}
		}
	})
}

// TestNeverTorn: while the override moves from key to key, always written before the other is taken away,
// no lookup sees neither.
func TestNeverTorn(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		keys := []string{"all", "web", "web:80", "web:127.0.0.1:80"}
		r.put(keys[0], "0")
		var bare atomic.Int64
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 3 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if r.x.Lookup("web", "", 80, true).Override == nil {
						bare.Add(1)
					}
					if n%16 == 0 {
						runtime.Gosched() // or the writer gets a processor every 10 ms
					}
				}
			})
		}
		rounds := tries(2000, 100_000)
		if !r.x.Stats().Watching {
			rounds = tries(1000, 20_000)
		}
		for n := 1; n <= rounds; n++ {
			step := 1 + n%3 // both ways between every pair
			next := keys[(n*step)%len(keys)]
			for _, name := range keys {
				if name == next {
					r.put(name, fmt.Sprint(n))
				}
			}
			for _, name := range keys {
				if name != next {
					_ = os.Remove(r.path(name))
				}
			}
		}
		close(stop)
		wg.Wait()
		if n := bare.Load(); n > 0 {
			t.Errorf("%d lookups saw no override", n)
		}
	})
}

// TestNotifiesWithoutRequests: OnChange is called for changes and expirations without a lookup.
func TestNotifiesWithoutRequests(t *testing.T) {
	r := openSpool(t)
	r.down("web", "a")
	r.waitFor("hadown", func(c []Change, _ string) bool { return len(c) == 1 })
	r.put("web", "b")
	r.waitFor("edit", func(c []Change, _ string) bool { return len(c) > 0 && show(c[len(c)-1].New) == "down b" })
	r.up("web")
	r.waitFor("haup", func(c []Change, _ string) bool { return len(c) > 0 && c[len(c)-1].New == nil })
	r.write(Entry{Key: web, State: Drain, Reason: "short", Expires: time.Now().Add(50 * time.Millisecond)})
	r.waitFor("expiry", func(c []Change, _ string) bool { return len(c) > 0 && c[len(c)-1].Expired })
	r.mu.Lock()
	defer r.mu.Unlock()
	old := ""
	for _, c := range r.changes {
		if c.Key != web || show(c.Old) != old || c.Expired != (old == "drain short") {
			t.Errorf("changes do not follow on each other:%s", showChanges(r.changes))
		}
		old = show(c.New)
	}
	if old != "" {
		t.Errorf("the last change leaves %q", old)
	}
}

// TestOnChangeMayCallIndex: OnChange may use the index, and a slow one holds up no request.
func TestOnChangeMayCallIndex(t *testing.T) {
	d := openDir(t)
	asked := make(chan View)
	var x *Index
	ready := make(chan struct{})
	x, err := OpenIndex(d, IndexOptions{OnChange: func(c Change) {
		<-ready
		asked <- x.Lookup(c.Key.Service, "", 0, true)
	}})
	must(t, err)
	close(ready)
	must(t, d.Write(Entry{Key: web, State: Down, Reason: "x"}))
	for range 3 { // OnChange does not return yet
		if got := show(x.Lookup("web", "", 0, true).Override); got != "down x" {
			t.Errorf("web is %q", got)
		}
	}
	if v := <-asked; show(v.Override) != "down x" {
		t.Errorf("the receiver sees %q", show(v.Override))
	}
	must(t, x.Close())
	must(t, x.Close())
	if got := show(x.Lookup("web", "", 0, true).Override); got != "down x" {
		t.Errorf("after Close web is %q", got)
	}
}

// TestNotifierIsBounded: of changes that are not delivered, one a key is kept.
func TestNotifierIsBounded(t *testing.T) {
	c := notifier{wake: make(chan struct{}, 1)}
	var got []Change
	c.onChange = func(change Change) { got = append(got, change) }
	entries := make([]*Entry, 5)
	for i := range entries {
		entries[i] = &Entry{Reason: fmt.Sprint(i)}
	}
	total := 5 * maxQueued
	for n := range total {
		c.change(Change{Key: Key{Service: fmt.Sprint(n % 5)}, Old: entries[n/5%5], New: entries[(n/5+1)%5]})
		if len(c.queue) > maxQueued+1 {
			t.Fatalf("%d letters are kept", len(c.queue))
		}
	}
	done := make(chan struct{})
	close(done)
	c.run(done)
	last := map[Key]*Entry{}
	for _, change := range got {
		if old, ok := last[change.Key]; ok && old != change.Old {
			t.Fatalf("the changes of %s do not follow on each other", change.Key.Name())
		}
		last[change.Key] = change.New
	}
	if len(last) != 5 {
		t.Errorf("changes of %d keys, want 5", len(last))
	}
}

// TestTooManyFiles: beyond the limit of files no override is lost.
func TestTooManyFiles(t *testing.T) {
	r := openSpool(t, func(s *system) { s.maxFiles = 20 })
	for i := range 30 {
		r.put(fmt.Sprintf("svc%d", i), fmt.Sprint(i))
	}
	for i := range 30 {
		r.want(fmt.Sprintf("svc%d", i), fmt.Sprintf("down %d", i))
	}
	if n := r.x.Stats().Overrides; n != 20 {
		t.Errorf("%d overrides in memory, want 20", n)
	}
	r.waitFor("limit", func(_ []Change, log string) bool { return strings.Contains(log, "too many spool files") })
	v := r.x.Lookup("svc29", "", 0, true)
	if v.Generation >= v.MinGeneration {
		t.Error("results may be reused although not every end is known")
	}
	r.put("all", `{"state": "maint"}`)
	r.want("svc3", "maint")
	r.want("web", "maint")
	r.remove("all")
	r.want("web", "")
	r.put("svc29", "edited")
	r.want("svc29", "down edited")
	for i := range 25 {
		r.remove(fmt.Sprintf("svc%d", i))
		r.want(fmt.Sprintf("svc%d", i), "")
	}
	if list := r.x.List(); len(list) != 5 { // List verifies, and there is room again
		t.Errorf("List has %d entries, want 5", len(list))
	}
	if v := r.x.Lookup("svc29", "", 0, true); v.Generation < v.MinGeneration {
		t.Error("still crowded with 5 files")
	}
}

// TestIgnoredIsBounded: a directory full of rubbish fills neither memory nor log.
func TestIgnoredIsBounded(t *testing.T) {
	r := openSpool(t)
	for i := range maxIgnored + 50 {
		r.put(fmt.Sprintf("rubbish~%d", i), "")
	}
	r.down("web", "x")
	r.want("web", "down x")
	r.waitFor("end of the list", func(_ []Change, log string) bool { return strings.Contains(log, "no more is said") })
	if n := strings.Count(r.log(), "is ignored"); n != maxIgnored {
		t.Errorf("%d names in the log, want %d", n, maxIgnored)
	}
}

// TestManyOverrides: 10,000 of them are read at start, and found one by one.
func TestManyOverrides(t *testing.T) {
	d := openDir(t)
	want := map[string]string{}
	for i := range 10_000 {
		name := fmt.Sprintf("svc%d", i)
		if i%10 == 0 {
			name += ":80"
		}
		want[name] = fmt.Sprintf("down %d", i)
		put(t, filepath.Join(d.Root(), name), fmt.Sprintf(`{"reason": "%d", "expiration": null, "creation": 1}`, i))
	}
	r := openSpoolOn(t, d)
	for name, said := range want {
		k, err := ParseKey(name)
		must(t, err)
		if got := r.look(k.Service); got != said {
			t.Fatalf("%s is %q, want %q", name, got, said)
		}
	}
	if n := len(r.x.List()); n != len(want) {
		t.Errorf("List has %d entries, want %d", n, len(want))
	}
	r.remove("svc77")
	r.want("svc77", "")
	for name := range maps.Keys(want) {
		_ = os.Remove(r.path(name))
	}
	r.want("svc78", "")
	if list := r.x.List(); len(list) != 0 {
		t.Errorf("List has %d entries, want none", len(list))
	}
}

// TestLookupDoesNotAllocate, whatever it finds.
func TestLookupDoesNotAllocate(t *testing.T) {
	r := openSpool(t)
	for _, files := range [][]string{nil, {"web"}, {"all", "web:80", "web:127.0.0.1:80"}} {
		for _, name := range files {
			r.put(name, `{"expiration": 4000000000}`)
		}
		r.look("web")
		if n := testing.AllocsPerRun(1000, func() { r.x.Lookup("web", "127.0.0.1", 80, true) }); n != 0 {
			t.Errorf("with %q a lookup allocates %v times", files, n)
		}
	}
}

// TestDescriptors: an index takes three at most and gives them back.
func TestDescriptors(t *testing.T) {
	count := func() int { return len(names(t, "/dev/fd")) }
	before := count()
	r := openSpool(t)
	r.down("web", "x")
	r.waitFor("hadown", func(c []Change, _ string) bool { return len(c) > 0 })
	if n := count() - before; n > 4 { // the netpoller takes one, once a process
		t.Errorf("%d descriptors are open", n)
	}
	r.close()
	if n := count() - before; n > 2 {
		t.Errorf("%d descriptors stay open", n)
	}
}

func TestStatsAndList(t *testing.T) {
	r := openSpool(t)
	r.put("web", "x")
	r.put("all", "y")
	r.put("gone", `{"expiration": 5}`)
	list := r.x.List()
	var got []string
	for _, e := range list {
		got = append(got, e.Key.Name()+" "+show(&e))
	}
	if want := []string{"all down y", "web down x"}; !slices.Equal(got, want) {
		t.Errorf("List is %q, want %q", got, want)
	}
	s := r.x.Stats()
	if s.Overrides != 2 || s.Rescans == 0 || s.Lost || s.Watching && (s.Events == 0 || s.Reloads == 0) {
		t.Errorf("stats are %+v", s)
	}
}

func TestOpenIndexErrors(t *testing.T) {
	d := openDir(t)
	must(t, os.Remove(d.Root()))
	if x, err := OpenIndex(d, IndexOptions{}); err == nil {
		_ = x.Close()
		t.Error("an index of nothing opens")
	}
}

// TestLastRound: when writers never pause, the last round may add overrides and not end them. The next lookup decides.
func TestLastRound(t *testing.T) {
	r := openSpool(t)
	r.put("web", "gone")
	r.put("weaker", "x")
	r.want("web", "down gone")
	r.x.mu.Lock()
	u := r.x.newUpdate()
	u.lastRound = true
	u.openDir()
	r.remove("web")
	r.put("weaker", `{"state": "drain"}`)
	r.put("new", "y")
	for _, name := range []string{"web", "weaker", "new"} {
		u.load(name, true)
	}
	u.finish()
	s := r.x.pub.snapshot.Load()
	for name, want := range map[string]string{"web": "down gone", "weaker": "down x", "new": "down y"} {
		if got := show(s.slot(Key{Service: name}).entry); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if r.x.attention.Load()&attReload == 0 {
		t.Error("no lookup will reload the files")
	}
	r.x.mu.Unlock()
	r.want("web", "")
	r.want("weaker", "drain")
	r.want("new", "down y")
}

// TestNotifiesAfterPublishing: OnChange finds the change in the Index.
func TestNotifiesAfterPublishing(t *testing.T) {
	r := openSpool(t)
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	r.put("web", "x")
	u := r.x.newUpdate()
	u.run(nil, 0)
	r.x.pub.notify.mu.Lock()
	for _, l := range r.x.pub.notify.queue {
		if l.log == nil {
			t.Errorf("notified before it was published: %s", showChanges([]Change{l.change}))
		}
	}
	r.x.pub.notify.mu.Unlock()
	u.finish()
	if got := show(r.x.pub.snapshot.Load().slot(web).entry); got != "down x" {
		t.Errorf("published is %q", got)
	}
}

// TestStampIsReliable: a listing within a tick of the clock after the last change proves nothing.
func TestStampIsReliable(t *testing.T) {
	stamp := func(at time.Time) dirStamp {
		return dirStamp{mtime: at, ctime: at}
	}
	change := time.Unix(1_800_000_000, 123_456_789)
	whole := change.Truncate(time.Second)
	for _, tt := range []struct {
		change time.Time
		after  time.Duration
		want   bool
	}{
		{change, -time.Hour, false}, // the clock was set back
		{change, 0, false},
		{change, 10 * time.Millisecond, false},
		{change, 30 * time.Millisecond, true},
		{whole, 30 * time.Millisecond, false},
		{whole, 2 * time.Second, false},
		{whole, 3 * time.Second, true},
	} {
		if got := stamp(tt.change).isReliable(tt.change.Add(tt.after)); got != tt.want {
			t.Errorf("a listing %v after %v: reliable is %v", tt.after, tt.change, got)
		}
	}
	late := stamp(change)
	late.ctime = late.ctime.Add(time.Second)
	if late.isReliable(change.Add(time.Second)) {
		t.Error("only one of the stamps is looked at")
	}
}

// TestListedFileVanishes: a file that was listed and is gone when it is read may have moved to a name that the listing
// did not have. So the directory is listed again.
func TestListedFileVanishes(t *testing.T) {
	r := openSpool(t, noInotify)
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	u := r.x.newUpdate()
	u.openDir()
	before := u.changes
	u.applyListed([]loadedFile{{name: "web", key: web}})
	if u.changes == before {
		t.Error("the round counts as unchanged")
	}
	u.finish()
}
