//go:build unix

package spool

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWeightIsNeverStale: what WriteWeight and EndWeight have done is in the next answer, with and without inotify.
func TestWeightIsNeverStale(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		web, instance := Key{Service: "web"}, Key{Service: "web", Port: 80}
		want := func(when string, want int) {
			t.Helper()
			if got := r.x.Weight("web", "", 80, true); got != want {
				t.Errorf("%s: %d %%, want %d", when, got, want)
			}
		}
		write := func(k Key, percent int, expires time.Time) {
			t.Helper()
			if err := r.d.WriteWeight(Weight{Key: k, Percent: percent, Expires: expires}); err != nil {
				t.Fatal(err)
			}
		}
		want("without a weight", 0)
		write(Key{Service: All}, 50, time.Time{})
		want("all", 50)
		write(instance, 25, time.Time{})
		want("the narrowest", 25)
		for percent := 1; percent <= 50; percent++ {
			write(web, percent, time.Time{})
			if got := r.x.Weight("web", "", 81, true); got != percent {
				t.Fatalf("%d %%, want %d", got, percent)
			}
		}
		for _, k := range []Key{instance, web, {Service: All}} {
			if err := r.d.EndWeight(k); err != nil {
				t.Fatal(err)
			}
		}
		want("after the end", MaxWeight)
		write(web, 10, r.clock.in(time.Minute))
		want("until it expires", 10)
		r.clock.set(2 * time.Minute)
		want("once it has expired", MaxWeight)
		r.clock.set(WeightEndTime + 2*time.Minute)
		want("long after", 0)
	})
}

// TestWeightSurvivesRestart: a canary does not get all traffic because the daemon starts again.
func TestWeightSurvivesRestart(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	if err := r.d.WriteWeight(Weight{Key: Key{Service: "web"}, Percent: 1, By: "root"}); err != nil {
		t.Fatal(err)
	}
	again := openSpoolOn(t, r.d)
	if got := again.x.Weight("web", "", 80, true); got != 1 {
		t.Errorf("%d %%, want 1", got)
	}
}

// TestWeightIsNoFile: a program that opens every file of the directory finds none of that name, as the original tools
// need it, and no override is made of it.
func TestWeightIsNoFile(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	if err := r.d.WriteWeight(Weight{Key: Key{Service: "web"}, Percent: 25, By: "remote 192.0.2.1/a/b"}); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(r.d.Root())
	if err != nil || len(names) != 1 {
		t.Fatalf("%d files, %v; want one", len(names), err)
	}
	if _, err := os.Open(filepath.Join(r.d.Root(), names[0].Name())); !os.IsNotExist(err) {
		t.Errorf("open: %v, want that it does not exist", err)
	}
	if list := r.x.List(); len(list) > 0 {
		t.Errorf("overrides: %v", list)
	}
	if list, err := r.d.List(); err != nil || len(list) > 0 {
		t.Errorf("overrides of the directory: %v, %v", list, err)
	}
}

// TestListWeights: only what is in force, and no garbage.
func TestListWeights(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	if err := os.Symlink("garbage", filepath.Join(r.d.Root(), weightPrefix+"other")); err != nil {
		t.Fatal(err)
	}
	for _, w := range []Weight{
		{Key: Key{Service: "web", Port: 80}, Percent: 5},
		{Key: Key{Service: "db"}, Percent: 50, By: "root"},
		{Key: Key{Service: "web"}, Percent: 10, Expires: time.Unix(1, 0)},
	} {
		if err := r.d.WriteWeight(w); err != nil {
			t.Fatal(err)
		}
	}
	fromDisk, err := r.d.ListWeights()
	if err != nil {
		t.Fatal(err)
	}
	for from, list := range map[string][]Weight{"directory": fromDisk, "index": r.x.Weights()} {
		if len(list) != 2 || list[0].Key.Name() != "db" || list[0].By != "root" || list[1].Percent != 5 {
			t.Errorf("%s: %v", from, list)
		}
	}
}

// TestParsePercent: what operators write, and nothing that could be read in two ways.
func TestParsePercent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"1": 1, "25": 25, "25%": 25, "100%": 100} {
		if got, err := ParsePercent(text); got != want || err != nil {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "0", "0%", "101", "101%", "-1", "+25", "25%%", "25 %", "0.5", "2.5e1", "0x10", "300"} {
		if got, err := ParsePercent(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

// TestGarbageIsNoWeight: no up, no down, and no weight.
func TestGarbageIsNoWeight(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"x", weightMark, weightMark + "{}", weightMark + `{"weight":0}`, weightMark + `{"weight":101}`,
		weightMark + `{"weight":-1}`, weightMark + `{"weight":"25"}`, weightMark + `{"weight":25`,
	} {
		r := openSpool(t)
		if err := os.Symlink(target, filepath.Join(r.d.Root(), weightPrefix+"web")); err != nil {
			t.Fatal(err)
		}
		if got := r.x.Weight("web", "", 80, true); got != 0 {
			t.Errorf("%s: %d %%, want none", target, got)
		}
		if o := r.x.Lookup("web", "", 80, true).Override; o != nil {
			t.Errorf("%s: override %v", target, o)
		}
		r.waitFor("the line in the log", func(_ []Change, log string) bool {
			return strings.Contains(log, "file in the spool directory is ignored")
		})
	}
	r := openSpool(t)
	if err := os.WriteFile(filepath.Join(r.d.Root(), weightPrefix+"web"), []byte("25"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.x.Weight("web", "", 80, true); got != 0 {
		t.Errorf("a plain file: %d %%, want none", got)
	}
}

// TestEndOfWeightIsFinal: a weight that a command has ended does not begin again when the clock is set back.
func TestEndOfWeightIsFinal(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	must(t, r.d.WriteWeight(Weight{Key: web, Percent: 25}))
	must(t, r.d.EndWeight(web))
	if got := r.x.Weight("web", "", 80, true); got != MaxWeight {
		t.Fatalf("%d %%, want %d", got, MaxWeight)
	}
	r.clock.set(-time.Hour)
	for which, x := range map[string]*Index{"the same daemon": r.x, "a new one": openSpoolOn(t, r.d).x} {
		if got := x.Weight("web", "", 80, true); got != MaxWeight {
			t.Errorf("%s: %d %% an hour before its end, want %d", which, got, MaxWeight)
		}
		if list := x.Weights(); len(list) > 0 {
			t.Errorf("%s: in force: %v", which, list)
		}
	}
	if list, err := r.d.ListWeights(); err != nil || len(list) > 0 {
		t.Errorf("in force: %v, %v", list, err)
	}
}

// TestWeightIsNeverTooShort: a record has whole seconds, and a weight is in force for its time at least.
func TestWeightIsNeverTooShort(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	for _, end := range []time.Time{time.Unix(4e9, 1), time.Unix(4e9+1, 0)} {
		must(t, r.d.WriteWeight(Weight{Key: web, Percent: 25, Expires: end}))
		if w, err := r.d.ReadWeight(web); err != nil || !w.Expires.Equal(time.Unix(4e9+1, 0)) {
			t.Errorf("%v: %+v, %v", end, w, err)
		}
	}
}

// TestDeletedWeightEnds: a weight ends when its link is removed by hand, and the agent says 100%.
func TestDeletedWeightEnds(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		if err := r.d.WriteWeight(Weight{Key: Key{Service: "web"}, Percent: 25}); err != nil {
			t.Fatal(err)
		}
		if got := r.x.Weight("web", "", 80, true); got != 25 {
			t.Fatalf("%d %%, want 25", got)
		}
		if err := os.Remove(filepath.Join(r.d.Root(), weightPrefix+"web")); err != nil {
			t.Fatal(err)
		}
		if got := r.x.Weight("web", "", 80, true); got != MaxWeight {
			t.Errorf("%d %%, want %d", got, MaxWeight)
		}
	})
}

// TestRemovedDirectoryEndsNoWeight: `rm -r` removes the links before the directory.
func TestRemovedDirectoryEndsNoWeight(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	must(t, r.d.WriteWeight(Weight{Key: Key{Service: "web"}, Percent: 25}))
	r.down("db", "x")
	r.want("db", "down x")
	must(t, os.Remove(r.path(weightPrefix+"web")))
	if got := r.x.Weight("web", "", 80, true); got != MaxWeight {
		t.Fatalf("%d %%, want %d while the directory is there", got, MaxWeight)
	}
	must(t, os.RemoveAll(r.d.Root()))
	for range 3 {
		if got := r.x.Weight("web", "", 80, true); got != 25 {
			t.Fatalf("%d %%, want 25; log:\n%s", got, r.log())
		}
	}
	must(t, os.Mkdir(r.d.Root(), 0o750))
	r.waitFor("the new directory", func([]Change, string) bool {
		r.signal() // keep asking
		return r.x.Weight("web", "", 80, true) == MaxWeight
	})
}

// TestWeightRecords: what is left of ended weights and of killed writers goes, and nothing else.
func TestWeightRecords(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	must(t, r.d.WriteWeight(Weight{Key: Key{Service: "old"}, Percent: 25}))
	must(t, r.d.EndWeight(Key{Service: "old"}))
	r.clock.set(WeightEndTime / 2)
	must(t, r.d.WriteWeight(Weight{Key: Key{Service: "recent"}, Percent: 25}))
	must(t, r.d.EndWeight(Key{Service: "recent"}))
	must(t, r.d.WriteWeight(Weight{Key: Key{Service: "web"}, Percent: 25}))
	stale, fresh := tempPrefix+"0000000000000001", tempPrefix+"0000000000000002"
	for _, name := range []string{stale, fresh} {
		must(t, os.Symlink(weightMark+"{}", r.path(name)))
	}
	long := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, r.path(stale), []unix.Timespec{long, long}, unix.AT_SYMLINK_NOFOLLOW))
	r.clock.set(WeightEndTime + time.Minute)
	if got := r.x.Weights(); len(got) != 1 {
		t.Errorf("in force: %v", got)
	}
	again := openSpoolOn(t, r.d)
	want := []string{fresh, weightPrefix + "recent", weightPrefix + "web"}
	if got := again.names(); !slices.Equal(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}
}

// TestOldRecordIsRenewed: a weight that is set while its old record is removed stays.
func TestOldRecordIsRenewed(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	must(t, r.d.WriteWeight(Weight{Key: web, Percent: 25}))
	h, err := openHandle(r.d.Root())
	must(t, err)
	defer h.close()
	h.removeOldWeight(web, r.clock.now()) // it was old when it was read
	if got := r.x.Weight("web", "", 80, true); got != 25 {
		t.Errorf("%d %%, want 25", got)
	}
}

// TestWeightChanges: each beginning, change and end is reported once, without a request.
func TestWeightChanges(t *testing.T) {
	t.Parallel()
	changes := make(chan WeightChange, 10)
	d, err := OpenDir(t.TempDir())
	must(t, err)
	x, err := OpenIndex(d, IndexOptions{OnWeight: func(c WeightChange) { changes <- c }})
	must(t, err)
	defer func() { must(t, x.Close()) }()
	next := func(oldPercent, newPercent int, expired bool) {
		t.Helper()
		percent := func(w *Weight) int {
			if w == nil {
				return 0
			}
			return w.Percent
		}
		select {
		case c := <-changes:
			if c.Key != web || percent(c.Old) != oldPercent || percent(c.New) != newPercent || c.Expired != expired {
				t.Errorf("%v -> %v, expired %v; want %d -> %d", c.Old, c.New, c.Expired, oldPercent, newPercent)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%d -> %d: waited in vain", oldPercent, newPercent)
		}
	}
	must(t, d.WriteWeight(Weight{Key: web, Percent: 25, By: "root"}))
	next(0, 25, false)
	must(t, d.WriteWeight(Weight{Key: web, Percent: 50}))
	next(25, 50, false)
	must(t, d.EndWeight(web))
	next(50, 0, false)
	must(t, d.WriteWeight(Weight{Key: web, Percent: 10, Expires: time.Now().Add(2 * time.Second)}))
	next(0, 10, false)
	next(10, 0, true)
}
