//go:build unix

package spool

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ofFleet returns an override of web with the reason "x".
func ofFleet(scope string, s State) Entry {
	return Entry{Key: web, Scope: scope, State: s, Reason: "x", By: "alice"}
}

// showScoped is show with the scope before the reason.
func showScoped(e *Entry) string {
	if e == nil {
		return ""
	}
	return strings.TrimSpace(e.State.String() + " " + e.ReasonText())
}

// lookScoped returns in short what a lookup of web at port 80 finds.
func (r *testSpool) lookScoped() string {
	return showScoped(r.x.Lookup("web", "", 80, true).Override)
}

func (r *testSpool) wantScoped(want string) {
	r.t.Helper()
	if got := r.lookScoped(); got != want {
		r.t.Fatalf("web is %q, want %q", got, want)
	}
}

// TestFleetActsLikeFiles: an override of the fleet has the strength of a file under its key, and among equals of a key
// the widest scope gives the text.
func TestFleetActsLikeFiles(t *testing.T) {
	group := ofFleet("group:rack7", Down)
	instance := ofFleet("all", Maint)
	instance.Key.Port = 80
	other := ofFleet("all", Maint)
	other.Key.Service = "db"
	ofAll := ofFleet("host:web17", Down)
	ofAll.Key.Service = All
	over := ofFleet("all", Down)
	over.Expires = time.Unix(5, 0)
	odd := ofFleet("all", Ready)
	for _, tt := range []struct {
		file  string // about web
		fleet []Entry
		want  string
		list  []string
	}{
		{"", []Entry{group}, "down [group rack7] x", []string{"down [group rack7] x"}},
		{"file", []Entry{group}, "down [group rack7] x", []string{"down [group rack7] x", "down file"}},
		{"file", []Entry{ofFleet("group:rack7", Drain)}, "down file", []string{"down file", "drain [group rack7] x"}},
		{`{"state": "maint"}`, []Entry{group}, "maint", []string{"maint", "down [group rack7] x"}},
		{"", []Entry{ofFleet("host:a", Down), ofFleet("group:b", Down), ofFleet("group:a", Down), ofFleet("all", Down)}, "down [fleet] x", []string{"down [fleet] x", "down [group a] x", "down [group b] x", "down [host a] x"}},
		{"", []Entry{ofFleet("group:b", Down), ofFleet("host:a", Maint)}, "maint [host a] x", []string{"maint [host a] x", "down [group b] x"}},
		{"", []Entry{instance, group}, "maint [fleet] x", []string{"down [group rack7] x", "maint [fleet] x"}},
		{"", []Entry{ofAll, group}, "down [host web17] x", []string{"down [host web17] x", "down [group rack7] x"}},
		{"", []Entry{other}, "", []string{"maint [fleet] x"}},
		{"file", []Entry{over}, "down file", []string{"down file"}},
		{"", []Entry{odd}, "down [fleet] x", []string{"down [fleet] x"}},
		{"", []Entry{ofFleet("all", ForceUp), group}, "down [group rack7] x", []string{"down [group rack7] x", "up [fleet] x"}},
	} {
		r := openSpool(t)
		if tt.file != "" {
			r.put("web", tt.file)
		}
		r.x.SetFleet(tt.fleet)
		if got := r.lookScoped(); got != tt.want {
			t.Errorf("%q with %+v is %q, want %q", tt.file, tt.fleet, got, tt.want)
		}
		var list []string
		for _, e := range r.x.List() {
			list = append(list, showScoped(&e))
		}
		if !slices.Equal(list, tt.list) {
			t.Errorf("%q with %+v lists %q, want %q", tt.file, tt.fleet, list, tt.list)
		}
		r.x.SetFleet(nil)
		if e := r.x.Lookup("web", "", 80, true).Override; e != nil && e.Scope != "" {
			t.Errorf("still %+v", e)
		}
		r.close()
	}
}

// TestFleetEndsOutdateResults: as with a file, a result from before or during the override is not used after it.
func TestFleetEndsOutdateResults(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		before := r.x.Lookup("web", "", 80, true)
		r.x.SetFleet([]Entry{ofFleet("all", Down)})
		during := r.x.Lookup("web", "", 80, true)
		r.x.SetFleet([]Entry{ofFleet("all", Down)})
		if same := r.x.Lookup("web", "", 80, true); same != during {
			t.Errorf("the same list again changes %+v into %+v", during, same)
		}
		r.x.SetFleet(nil)
		after := r.x.Lookup("web", "", 80, true)
		if after.Override != nil || after.MinGeneration <= before.Generation || after.MinGeneration <= during.Generation {
			t.Errorf("before %+v, during %+v, after %+v", before, during, after)
		}
		if other := r.x.Lookup("db", "", 80, true); r.x.Stats().Watching && other.MinGeneration > before.Generation {
			t.Errorf("results of db are outdated too: %+v", other)
		}
	})
}

// TestFleetExpires at its time by the clock, without and with a lookup, and the file of the key decides from then on.
func TestFleetExpires(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.put("web", `{"state": "drain", "reason": "file"}`)
		hour := ofFleet("all", Down)
		hour.Expires = r.clock.in(time.Hour)
		soon := ofFleet("group:a", Maint)
		soon.Key.Service, soon.Expires = "db", time.Now().Add(20*time.Millisecond)
		r.x.SetFleet([]Entry{hour, soon})
		r.waitFor("the end without a lookup", func(changes []Change, _ string) bool {
			return slices.ContainsFunc(changes, func(c Change) bool {
				return c.Key.Service == "db" && c.Expired && c.New == nil && c.Old.Scope == "group:a"
			})
		})
		if r.x.LastMaintEnd("db", "", 0, true).IsZero() {
			t.Error("the end of maint is not recorded")
		}
		r.wantScoped("down [fleet] x")
		r.clock.set(2 * time.Hour)
		r.wantScoped("drain file")
		hasEnded := func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.ContainsFunc(r.changes, func(c Change) bool {
				return c.Expired && c.Old.Scope == "all" && c.New != nil && c.New.Scope == ""
			})
		}
		tick, deadline := time.NewTicker(time.Millisecond), time.After(20*time.Second)
		defer tick.Stop()
		for !hasEnded() { // a lookup that finds the index locked leaves the change to the next one
			select {
			case <-tick.C:
				r.wantScoped("drain file")
			case <-deadline:
				t.Fatal("the end was not reported")
			}
		}
		r.clock.set(0)
		r.x.List()
		r.wantScoped("down [fleet] x")
		r.clock.set(2 * time.Hour)
		r.up("web")
		r.wantScoped("")
		if got := r.x.List(); len(got) != 0 {
			t.Errorf("listed: %+v", got)
		}
	})
}

// TestFleetExpiresWhileLockIsHeld: what is weaker decides at once, although the index cannot be updated.
func TestFleetExpiresWhileLockIsHeld(t *testing.T) {
	r := openSpool(t, func(s *system) { s.verifyEvery = time.Hour })
	r.put("web", `{"state": "drain", "reason": "file"}`)
	all, group := ofFleet("all", Down), ofFleet("group:a", Down)
	all.Expires, group.Expires = r.clock.in(time.Hour), r.clock.in(2*time.Hour)
	r.x.SetFleet([]Entry{all, group})
	r.wantScoped("down [fleet] x")
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{30 * time.Minute, "down [fleet] x"}, {90 * time.Minute, "down [group a] x"}, {150 * time.Minute, "drain file"}} {
		r.clock.set(step.after)
		r.wantScoped(step.want)
		if list := r.x.List(); showScoped(&list[0]) != step.want {
			t.Errorf("after %v the list is %+v", step.after, list)
		}
	}
}

func TestFleetChangesAreReported(t *testing.T) {
	r := openSpool(t)
	r.x.SetFleet([]Entry{ofFleet("group:a", Down)})
	r.x.SetFleet([]Entry{ofFleet("group:a", Down)})
	r.x.SetFleet([]Entry{ofFleet("group:a", Down), ofFleet("host:h", Down)}) // weaker than what holds: no change
	lost := ofFleet("host:h", Down)
	lost.Lost = true
	r.x.SetFleet([]Entry{lost})
	r.x.SetFleet(nil)
	want := []string{
		"\n  web:  -> down [group a] x",
		"\n  web: down [group a] x -> down [host h, lost in etcd] x",
		"\n  web: down [host h, lost in etcd] x -> ",
	}
	r.waitFor("changes", func(changes []Change, _ string) bool { return len(changes) >= len(want) })
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []string
	for _, c := range r.changes {
		got = append(got, fmt.Sprintf("\n  %s: %s -> %s", c.Key.Name(), showScoped(c.Old), showScoped(c.New)))
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

// TestFleetSurvivesTheDirectory: what happens to the directory changes nothing about the fleet, and the fleet writes no
// file.
func TestFleetSurvivesTheDirectory(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.x.SetFleet([]Entry{ofFleet("all", Down)})
		if got := r.names(); len(got) != 0 {
			t.Errorf("files: %q", got)
		}
		must(t, os.Remove(r.d.Root()))
		r.wantScoped("down [fleet] x")
		r.x.mu.Lock()
		r.x.update(nil, attVerify)
		r.x.mu.Unlock()
		if !r.x.Stats().Lost {
			t.Fatal("the directory is not lost")
		}
		r.wantScoped("down [fleet] x")
		r.x.SetFleet([]Entry{ofFleet("host:a", Drain)})
		r.wantScoped("drain [host a] x")
		must(t, os.Mkdir(r.d.Root(), 0o755))
		r.x.mu.Lock()
		r.x.update(nil, attVerify)
		r.x.mu.Unlock()
		r.wantScoped("drain [host a] x")
		r.x.SetFleet(nil)
		r.wantScoped("")
	})
}

// TestFleetIsSeenAtOnce: a lookup that begins after SetFleet has returned sees the list, and each lookup sees one whole
// list, with files changing at the same time.
func TestFleetIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		ofAll := ofFleet("all", Down)
		ofAll.Key.Service = All
		r.x.SetFleet([]Entry{ofFleet("group:a", Down)})
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if e := r.x.Lookup("web", "", 80, true).Override; e == nil || e.Scope == "" {
						t.Errorf("between two lists: %+v", e)
						return
					}
				}
			})
		}
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := r.d.Write(Entry{Key: Key{Service: "db"}, State: Down, Reason: fmt.Sprint(i)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for i := range tries(200, 5000) {
			list, want := []Entry{ofAll}, "all"
			if i%2 > 0 {
				list, want = []Entry{ofFleet(fmt.Sprintf("group:%d", i), Down)}, fmt.Sprintf("group:%d", i)
			}
			r.x.SetFleet(list)
			if e := r.x.Lookup("web", "", 80, true).Override; e == nil || e.Scope != want {
				t.Errorf("after the list of %s: %+v", want, e)
				break
			}
		}
		close(stop)
		readers.Wait()
	})
}

// TestFleetAfterClose has no effect: the last known overrides stand.
func TestFleetAfterClose(t *testing.T) {
	r := openSpool(t)
	r.x.SetFleet([]Entry{ofFleet("all", Down)})
	r.close()
	r.x.SetFleet(nil)
	r.wantScoped("down [fleet] x")
}
