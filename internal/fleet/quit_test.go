package fleet

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// TestQuit: a host does not quit the fleet while overrides of it are in force, and not by an override that arrives
// meanwhile.
func TestQuit(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	a := newHost(t, etcd, "a")
	waitRegistered(t, a)
	a.set(webDown("all", "new kernel", "jane"))
	var inForce *InForceError
	if err := a.Quit(); !errors.As(err, &inForce) || !strings.Contains(err.Error(), "web for all (down by jane: new kernel)") {
		t.Fatalf("with an override in force: %v", err)
	}
	a.set(webDown("host:a", "disk", "jane")) // it still follows etcd
	a.lift(webDown("host:a", "", "jane"))
	a.lift(webDown("all", "", "jane"))
	if err := a.Quit(); err != nil {
		t.Fatalf("without an override: %v", err)
	}
	if n := len(a.index.List()); n != 0 {
		t.Errorf("%d overrides are in force", n)
	}
}

// TestReopenKeepsOverrides: whatever changes in the options, the overrides in force stay in force until they are lifted.
// No lookup misses one, also not for a moment.
func TestReopenKeepsOverrides(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a", func(o *Options) { o.Groups = []string{"rack7"} })
	other := newHost(t, etcd, "b")
	waitRegistered(t, h, other)
	for _, scope := range []string{"all", "group:rack7", "host:a"} {
		h.set(webDown(scope, "", "jane"))
	}
	h.index.neverWithout(t, 3)
	for name, change := range map[string]func(*Options){
		"no groups":   func(o *Options) { o.Groups = nil },
		"other name":  func(o *Options) { o.Host = "c" },
		"other fleet": func(o *Options) { o.Prefix = "/other/" },
		"empty directory": func(o *Options) {
			o.StateDir = filepath.Join(t.TempDir(), "state")
		},
		"empty directory without etcd": func(o *Options) {
			o.StateDir, o.Endpoints, o.StartWait = filepath.Join(t.TempDir(), "state"), []string{"http://127.0.0.1:1"}, 0
		},
	} {
		o := h.o
		change(&o)
		f, err := h.Reopen(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := f.Close(); err != nil { // and after a restart
			t.Fatal(err)
		}
		o.StartWait = time.Second
		if f, err = Open(o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.Fleet = f
	}
	o := h.o
	o.Groups = nil
	f, err := h.Reopen(o)
	if err != nil {
		t.Fatal(err)
	}
	h.Fleet = f
	waitRegistered(t, h)
	h.index.mayBeWithout()
	if o, err := other.LiftOverride(within(t, 10*time.Second), webDown("group:rack7", "", "jane"), nil); err != nil {
		t.Fatalf("lift: %v, %+v", err, o)
	}
	waitFor(t, "the override of a group that the host has left is lifted", func() bool { return h.index.has("group:rack7", "web") == nil })
	if _, err := other.SetOverride(within(t, 10*time.Second), webDown("group:rack7", "", "jane"), nil); err != nil {
		t.Fatal(err)
	}
	h.set(webDown("all", "again", "jane")) // a later revision: the one before has been applied
	if h.index.has("group:rack7", "web") != nil {
		t.Error("a new override of a group that the host has left is obeyed")
	}
	if h.index.has("host:a", "web") == nil {
		t.Error("the override of the host has ended")
	}
}

// TestOpenCopy: a host without a section obeys what its copy has, until it is over.
func TestOpenCopy(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	openCopy := func(what string, want bool) {
		t.Helper()
		f, err := OpenCopy(Options{Prefix: "/", Host: "a", Lease: time.Minute, StateDir: h.o.StateDir, Overrides: h.index, Log: h.o.Log})
		if err != nil || (f != nil) != want {
			t.Fatalf("%s: %v, %v", what, f, err)
		}
		if f == nil {
			return
		}
		defer func() { _ = f.Close() }()
		var unavailable *UnavailableError
		if _, err := f.SetOverride(t.Context(), webDown("all", "", "jane"), nil); !errors.As(err, &unavailable) || unavailable.Unknown {
			t.Errorf("set: %v", err)
		}
		if err := f.TakeDown(t.Context(), webTakedown("jane", 0), nil); !errors.As(err, &unavailable) || unavailable.Unknown {
			t.Errorf("take down: %v", err)
		}
		if s := f.Status(); s.Connected || !strings.Contains(s.Error, "no section fleet") {
			t.Errorf("status: %+v", s)
		}
		if r, err := f.Report(t.Context()); err != nil || r.Connected || len(r.Overrides) != 1 {
			t.Errorf("report: %+v, %v", r, err)
		}
	}
	openCopy("the directory is in use", false)
	h.set(webDown("all", "", "jane"))
	h.close()
	h.index.SetFleet(nil)
	openCopy("an override is in force", true)
	if h.index.has("all", "web") == nil {
		t.Error("the override is not in force")
	}
	openCopy("the directory is free again", true)
	h.open()
	waitRegistered(t, h)
	h.lift(webDown("all", "", "jane"))
	h.close()
	openCopy("it is lifted", false)
	h.o.StateDir = filepath.Join(t.TempDir(), "none")
	openCopy("there is no directory", false)
	if fileExists(h.o.StateDir) {
		t.Error("a directory was made")
	}
}
