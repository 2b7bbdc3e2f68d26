package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/test/servertest"
)

// TestRestartWithoutEtcd: a daemon that starts while etcd is down obeys its copy, also a lift, and an override of the
// copy still ends by its time.
func TestRestartWithoutEtcd(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	h.set(webDown("all", "kept", "jane"))
	short := webDown("host:a", "short", "jane")
	short.Override.Expires = time.Now().Add(4 * time.Second)
	h.set(short)
	lifted := webDown("all", "", "jane")
	lifted.Keys[0].Service = "db"
	h.set(lifted)
	h.lift(lifted)
	etcd.Kill()
	h.close()

	h.o.StartWait = 50 * time.Millisecond
	h.open()
	if h.index.has("all", "web") == nil {
		t.Fatal("the copy is not obeyed")
	}
	if h.index.has("all", "db") != nil {
		t.Fatal("a lifted override is obeyed")
	}
	waitFor(t, "the override has expired", func() bool { return h.index.has("host:a", "web") == nil })
	if s := h.Status(); s.Connected || s.Error == "" {
		t.Errorf("status without etcd: %+v", s)
	}
	_, err := h.SetOverride(within(t, time.Second), webDown("all", "", "jane"), nil)
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Unknown {
		t.Errorf("SetOverride without etcd: %v", err)
	}
	etcd.Start()
	waitRegistered(t, h)
	h.lift(webDown("all", "", "jane"))
}

// TestLostInEtcd: an override stays in force when etcd loses it, in whatever way, until an operator lifts its scope.
func TestLostInEtcd(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, h *testHost, etcd *servertest.EtcdServer){
		"key deleted": func(_ *testing.T, _ *testHost, etcd *servertest.EtcdServer) {
			etcd.Ctl("del", "/hacheck/overrides/all/web")
		},
		"prefix deleted": func(_ *testing.T, _ *testHost, etcd *servertest.EtcdServer) {
			etcd.Ctl("del", "--prefix", "/hacheck/")
		},
		"etcd emptied": func(_ *testing.T, _ *testHost, etcd *servertest.EtcdServer) {
			etcd.Wipe()
			etcd.Start()
		},
		"etcd emptied while the daemon is down": func(_ *testing.T, h *testHost, etcd *servertest.EtcdServer) {
			h.close()
			etcd.Wipe()
			etcd.Start()
			h.open()
		},
		"snapshot restored": func(t *testing.T, h *testHost, etcd *servertest.EtcdServer) {
			restoreSnapshot(t, etcd, filepath.Join(h.o.StateDir, "snapshot"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := servertest.Etcd(t)
			h := newHost(t, etcd, "a")
			waitRegistered(t, h)
			h.set(webDown("all", "old", "jane"))
			h.lift(webDown("all", "old", "jane"))
			etcd.Ctl("snapshot", "save", filepath.Join(h.o.StateDir, "snapshot"))
			h.set(webDown("all", "kept", "jane"))

			lose(t, h, etcd)
			waitFor(t, "the override counts as lost", func() bool { return h.Status().Lost == 1 })
			if e := h.index.has("all", "web"); e == nil || e.Reason != "kept" {
				t.Fatalf("after the loss: %+v", e)
			}
			if why, held := h.applier.permitsHeld(); !held || why == "" {
				t.Error("permits are granted after a loss")
			}
			waitRegistered(t, h)
			h.lift(webDown("all", "", "joe"))
			if e := h.index.has("all", "web"); e != nil || h.Status().Lost != 0 {
				t.Fatalf("after the lift: %+v", e)
			}
		})
	}
}

// restoreSnapshot replaces the data of etcd with those of a snapshot. The cluster keeps its id.
func restoreSnapshot(t *testing.T, etcd *servertest.EtcdServer, snapshot string) {
	t.Helper()
	etcd.Wipe()
	etcd.Ctl(append([]string{"snapshot", "restore", snapshot, "--data-dir", filepath.Join(etcd.Dir, "data")}, etcd.ClusterFlags()...)...)
	etcd.Start()
}

// TestLiftedNeverComesBack: a restored etcd in which a lifted override is in force has no effect.
func TestLiftedNeverComesBack(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	h.set(webDown("all", "over", "jane"))
	snapshot := filepath.Join(h.o.StateDir, "snapshot")
	etcd.Ctl("snapshot", "save", snapshot)
	h.lift(webDown("all", "over", "jane"))
	h.close()
	restoreSnapshot(t, etcd, snapshot)
	h.open()
	waitRegistered(t, h)
	if e := h.index.has("all", "web"); e != nil {
		t.Fatalf("a lifted override is obeyed: %+v", e)
	}
}

// TestUnreadableValues: a value that cannot be read leaves the last one in force, has no effect in a new key, is not
// acknowledged, and is logged once.
func TestUnreadableValues(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	for name, value := range map[string]string{
		"garbage":         "\x00\xff{",
		"empty":           "",
		"no object":       `"down"`,
		"other JSON":      `{"hello":"world"}`,
		"newer version":   `{"v":2,"id":{"new":"type"}}`,
		"unknown state":   `{"v":1,"id":"x","state":"sideways","created":"2026-01-01T00:00:00Z"}`,
		"huge":            raw("x", `,"reason":"`+strings.Repeat("x", 200<<10)+`"`),
		"lift without id": `{"v":1,"lifted":{"at":"2026-01-01T00:00:00Z"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, etcd, "a", func(o *Options) { o.Prefix = "/" + strings.ReplaceAll(name, " ", "-") + "/" })
			waitRegistered(t, h)
			h.set(webDown("all", "kept", "jane"))
			before := h.Status().Revision
			for _, key := range []string{"overrides/all/web", "overrides/all/new", "overrides/group:other/web", "overrides/host:a/..%2f"} {
				put(t, h, key, value)
			}
			waitFor(t, "the values were read", func() bool { return strings.Contains(h.Status().Error, "and 2 more") })
			h.close()
			h.open()
			waitRegistered(t, h)
			waitFor(t, "the values were read again", func() bool { return strings.Contains(h.Status().Error, "and 2 more") })
			if list := h.index.List(); len(list) != 1 || list[0].Reason != "kept" {
				t.Fatalf("in force: %+v", list)
			}
			// applied/<host> is written after the status has changed.
			waitFor(t, "the host says why it does not acknowledge", func() bool { return strings.Contains(appliedBy(t, h).Error, "all") })
			if r := appliedBy(t, h); r.Revision != before {
				t.Errorf("applied %+v, want revision %d", r, before)
			}
			if n := h.log.count(`\"web\" [all] cannot be read`); n != 2 { // one for each start
				t.Errorf("%d warnings in two runs", n)
			}
			for _, key := range []string{"all/new", "host:a/..%2f"} {
				etcdDelete(t, h, "overrides/"+key)
			}
			h.lift(webDown("all", "", "jane"))
			if list := h.index.List(); len(list) != 0 || h.Status().Error != "" {
				t.Fatalf("after the lift: %+v, %q", list, h.Status().Error)
			}
		})
	}
}

func etcdDelete(t *testing.T, h *testHost, key string) {
	t.Helper()
	client, err := h.conn.etcd()
	if err == nil {
		_, err = client.Delete(within(t, 5*time.Second), h.o.Prefix+key)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatchCompacted: a host whose watch begins at a compacted revision reads everything again.
func TestWatchCompacted(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	a, b := newHost(t, etcd, "a"), newHost(t, etcd, "b")
	waitRegistered(t, a, b)
	for i := range 20 {
		o := webDown("all", fmt.Sprint(i), "jane")
		a.set(o)
		etcd.Ctl("compact", fmt.Sprint(a.Status().Revision))
	}
	waitFor(t, "b obeys", func() bool { e := b.index.has("all", "web"); return e != nil && e.Reason == "19" })
}

// TestCutAndPause: after a cut, and after etcd stood still, the host obeys within a second of reaching etcd.
func TestCutAndPause(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)

	etcd.Kill()
	waitFor(t, "the host notices", func() bool { return !h.Status().Connected })
	etcd.Start()
	etcd.Ctl("put", "/hacheck/overrides/all/web", raw("one", ""))
	waitFor(t, "the host is connected", func() bool { return h.Status().Connected })
	reached := time.Now()
	waitFor(t, "the host obeys", func() bool { return h.index.has("all", "web") != nil })
	if d := time.Since(reached); d > time.Second {
		t.Errorf("obeys %v after reaching etcd", d)
	}

	etcd.Pause()
	waitFor(t, "the host notices", func() bool { return !h.Status().Connected && h.Status().Error != "" })
	if _, err := h.conn.registration(); err == nil {
		t.Error("registered without etcd")
	}
	if h.index.has("all", "web") == nil {
		t.Error("the override is gone while etcd stands still")
	}
	etcd.Resume()
	waitRegistered(t, h)
	h.set(webDown("all", "two", "op"))
}

// TestLeaseLost: a host whose lease has ended registers again.
func TestLeaseLost(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a")
	waitRegistered(t, h)
	before, _ := h.conn.registration()
	client, err := h.conn.etcd()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Revoke(t.Context(), before.lease); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is registered with another lease", func() bool {
		now, err := h.conn.registration()
		return err == nil && now.lease != before.lease && now.created > before.created
	})
	h.set(webDown("all", "", "jane"))
}

// TestTwoDaemonsWithOneName: the second is refused while the first lives, and the error names the first. It obeys
// overrides for all and its groups, but not those of the name. It takes the name when the first has ended.
func TestTwoDaemonsWithOneName(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	first := newHost(t, etcd, "a")
	waitRegistered(t, first)
	second := newHost(t, etcd, "a", func(o *Options) { o.Groups = []string{"eu"} })
	waitFor(t, "the second is refused", func() bool { return strings.Contains(second.Status().Error, first.conn.identity.Instance) })
	if s := second.Status(); !strings.Contains(s.Error, bootID()) || !strings.Contains(s.Error, "1.2.3") || !s.Connected {
		t.Errorf("status: %+v", s)
	}
	if _, err := second.conn.registration(); err == nil {
		t.Error("both are registered")
	}
	for _, scope := range []string{"host:a", "all", "group:eu"} {
		first.set(webDown(scope, "", "jane"))
	}
	waitFor(t, "the second obeys", func() bool {
		return second.index.has("all", "web") != nil && second.index.has("group:eu", "web") != nil
	})
	if second.index.has("host:a", "web") != nil {
		t.Error("a refused host obeys an override of the name")
	}
	if a := appliedBy(t, first); a.Instance != first.conn.identity.Instance {
		t.Error("the refused daemon acknowledges under the name")
	}
	first.close()
	waitFor(t, "the second is registered", func() bool { _, err := second.conn.registration(); return err == nil })
	waitFor(t, "the second obeys", func() bool { return second.index.has("host:a", "web") != nil })
}

// TestSameInstanceTakesOver: after kill -9 and a restart, the daemon registers without waiting for its old lease.
func TestSameInstanceTakesOver(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a", func(o *Options) { o.Lease = 5 * time.Minute })
	waitRegistered(t, h)
	r, err := h.conn.get(t.Context(), "/hacheck/present/a")
	if err != nil {
		t.Fatal(err)
	}
	value := string(r.Kvs[0].Value)
	h.close()
	etcd.Ctl("put", "/hacheck/present/a", value) // as if the daemon had not been able to give it back
	h.open()
	waitRegistered(t, h)
	s, _ := h.conn.registration()
	if r, err := h.conn.get(t.Context(), "/hacheck/present/a"); err != nil || clientv3.LeaseID(r.Kvs[0].Lease) != s.lease {
		t.Errorf("the present key has another lease (%v)", err)
	}
	waitFor(t, "the status is without error", func() bool { return h.Status().Error == "" })
}

// TestCopiedStateDir: two machines with copies of one state directory do not take the name from each other.
func TestCopiedStateDir(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	first := newHost(t, etcd, "a")
	waitRegistered(t, first)
	dir := t.TempDir()
	b, err := os.ReadFile(filepath.Join(first.o.StateDir, instanceFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, instanceFile), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	second := newHost(t, etcd, "a", func(o *Options) { o.StateDir = dir })
	waitRegistered(t, second)
	waitFor(t, "the first is refused", func() bool { return strings.Contains(first.Status().Error, "copied") })
	if _, err := second.conn.registration(); err != nil {
		t.Errorf("the second: %v", err)
	}
}

// TestStateDirInUse: a second daemon with the same directory does not start.
func TestStateDirInUse(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a")
	if f, err := Open(h.o); !errors.Is(err, errLocked) || !strings.Contains(err.Error(), h.o.StateDir) {
		if f != nil {
			_ = f.Close()
		}
		t.Fatalf("got %v", err)
	}
}

// TestStateDirUnusable: without a usable directory a host obeys from memory, does not acknowledge and says so; it
// acknowledges when the directory is usable again.
func TestStateDirUnusable(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	for name, breakIt := range map[string]struct{ broken, mended func(dir string) error }{
		"full": {
			func(dir string) error {
				return errors.Join(os.Symlink("/dev/full", filepath.Join(dir, "overrides.0.new")), os.Symlink("/dev/full", filepath.Join(dir, "overrides.1.new")))
			},
			func(string) error { return nil }, // a failed write removes the file
		},
		"removed": {
			func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
			os.Remove,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, etcd, "a", func(o *Options) {
				o.Prefix = "/" + name + "/"
				o.StateDir = filepath.Join(t.TempDir(), "state")
			})
			waitRegistered(t, h)
			if err := breakIt.broken(h.o.StateDir); err != nil {
				t.Fatal(err)
			}
			out, err := h.SetOverride(within(t, time.Second), webDown("all", "", "jane"), nil)
			if err != nil || len(out.Missing) != 1 {
				t.Fatalf("got %+v, %v", out, err)
			}
			if h.index.has("all", "web") == nil {
				t.Error("the override is not obeyed")
			}
			waitFor(t, "the host says why it does not acknowledge", func() bool {
				return strings.Contains(appliedBy(t, h).Error, "copy") && strings.Contains(h.Status().Error, "copy")
			})
			if err := breakIt.mended(h.o.StateDir); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the host acknowledges", func() bool { return appliedBy(t, h).Revision >= h.Status().Revision && h.Status().Error == "" })
		})
	}
}

// TestUnwritableStateDirAtStart: the daemon starts, obeys from memory and says so.
func TestUnwritableStateDirAtStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	etcd := servertest.Etcd(t)
	etcd.Ctl("put", "/hacheck/overrides/all/web", raw("one", ""))
	h := newHost(t, etcd, "a", func(o *Options) { o.StateDir = dir })
	if h.index.has("all", "web") == nil {
		t.Error("the override is not obeyed")
	}
	waitRegistered(t, h)
	waitFor(t, "the host says why it does not acknowledge", func() bool {
		return appliedBy(t, h).Error != "" && h.Status().Error != ""
	})
	if a := appliedBy(t, h); a.Revision != 0 {
		t.Errorf("applied %+v", a)
	}
}

// TestHalfWrittenCopy: a daemon uses the whole generation; without one it says so and waits longer for etcd.
func TestHalfWrittenCopy(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	h.set(webDown("all", "first", "jane"))
	h.set(webDown("host:a", "second", "jane"))
	newest := func() string {
		h.dir.mu.Lock()
		defer h.dir.mu.Unlock()
		return filepath.Join(h.o.StateDir, copyPrefix+fmt.Sprint(h.dir.generation%2))
	}()
	h.close()
	etcd.Stop()
	h.o.StartWait = 50 * time.Millisecond
	if err := os.Truncate(newest, 100); err != nil {
		t.Fatal(err)
	}
	h.open()
	if h.index.has("all", "web") == nil {
		t.Fatal("the whole generation is not used")
	}
	h.close()
	for i := range 2 {
		if err := os.Truncate(filepath.Join(h.o.StateDir, copyPrefix+fmt.Sprint(i)), 100); err != nil {
			t.Fatal(err)
		}
	}
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		h.open()
	}()
	waitFor(t, "a warning", func() bool {
		return h.log.count("level=WARN msg=\"fleet: the copy of the overrides cannot be read") == 1
	})
	etcd.Start() // within noCopyWait
	<-opened
	if h.index.has("all", "web") == nil || h.index.has("host:a", "web") == nil {
		t.Error("the daemon did not wait for etcd")
	}
}

// TestClusterReplaced: nothing is taken from an etcd with another cluster id, and the status says so.
func TestClusterReplaced(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	h.set(webDown("all", "kept", "jane"))
	etcd.Replace()
	etcd.Start()
	etcd.Ctl("put", "/hacheck/overrides/all/db", raw("other", ""))
	waitFor(t, "the status names the clusters", func() bool { return strings.Contains(h.Status().Error, "cluster id") })
	h.close()
	h.o.StartWait = time.Second
	h.open()
	waitFor(t, "the status names the clusters", func() bool { return strings.Contains(h.Status().Error, "cluster id") })
	if list := h.index.List(); len(list) != 1 || list[0].Reason != "kept" {
		t.Fatalf("in force: %+v", list)
	}
}

// TestTwoClustersInOneList: nothing is taken from endpoints of two clusters.
func TestTwoClustersInOneList(t *testing.T) {
	t.Parallel()
	one, two := servertest.Etcd(t), servertest.Etcd(t)
	one.Ctl("put", "/hacheck/overrides/all/web", raw("one", ""))
	two.Ctl("put", "/hacheck/overrides/all/web", raw("two", ""))
	h := newHost(t, one, "a", startWait(100*time.Millisecond), func(o *Options) {
		o.Endpoints = []string{one.URL, two.URL}
		o.StartWait = 100 * time.Millisecond
		writeCopyFor(t, o.StateDir)
	})
	waitFor(t, "the status names both", func() bool {
		s := h.Status().Error
		return strings.Contains(s, one.URL) && strings.Contains(s, two.URL)
	})
	if list := h.index.List(); len(list) != 0 {
		t.Fatalf("in force: %+v", list)
	}
}

// writeCopyFor writes an empty copy, so that a host does not wait for etcd at its start.
func writeCopyFor(t *testing.T, dir string) {
	t.Helper()
	d := &stateDir{path: dir}
	if err := errors.Join(d.open(), d.save(&localCopy{})); err != nil {
		t.Fatal(err)
	}
	d.close()
}

// TestClocksDiffer: an override that arrives with another clock's time is in force for its whole length.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a")
	waitRegistered(t, h)
	at := time.Now().Add(-time.Hour).UTC()
	put(t, h, "overrides/all/web", fmt.Sprintf(`{"v":1,"id":"x","state":"down","by":"op","created":%q,"expires":%q}`,
		at.Format(time.RFC3339Nano), at.Add(time.Minute).Format(time.RFC3339Nano)))
	waitFor(t, "the host obeys", func() bool { return h.index.has("all", "web") != nil })
	if left := time.Until(h.index.has("all", "web").Expires); left < 50*time.Second || left > time.Minute {
		t.Errorf("it ends in %v, want a minute", left)
	}
	if h.log.count("clock of this host") != 1 {
		t.Error("no warning about the clocks")
	}
	end := h.index.has("all", "web").Expires
	h.close()
	h.open()
	if e := h.index.has("all", "web"); e == nil || !e.Expires.Equal(end) {
		t.Errorf("after a restart: %+v, want the end %v", e, end)
	}
}

// TestFullEtcd: overrides stand; a change is refused as a definite error with what to do.
func TestFullEtcd(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t, servertest.EtcdArgs("--quota-backend-bytes", "1000000"))
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	h.set(webDown("all", "kept", "jane"))
	client, err := h.conn.etcd()
	for i := 0; err == nil; i++ {
		_, err = client.Put(within(t, 5*time.Second), fmt.Sprintf("/other/%d", i), strings.Repeat("x", 100<<10))
	}
	_, err = h.SetOverride(within(t, 5*time.Second), webDown("all", "more", "jane"), nil)
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Unknown || !strings.Contains(err.Error(), "NOSPACE") {
		t.Fatalf("got %v", err)
	}
	if e := h.index.has("all", "web"); e == nil || e.Reason != "kept" {
		t.Fatalf("in force: %+v", e)
	}
	h.close()
	h.open()
	waitFor(t, "the status says why", func() bool { s := h.Status(); return s.Connected && strings.Contains(s.Error, "NOSPACE") })
	if err := h.Leave("joe"); err != nil {
		t.Errorf("leave: %v", err)
	}
	if err := h.Join("joe"); err == nil || !strings.Contains(err.Error(), "NOSPACE") {
		t.Errorf("join: %v", err)
	}
	if h.index.has("all", "web") == nil {
		t.Error("the override is gone")
	}
}

// TestMemberDown: with several endpoints, a host goes on with another member.
func TestMemberDown(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t, servertest.EtcdMembers(3))
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	for i, m := range etcd.Members() {
		switch i {
		case 0:
			m.Kill()
		case 1:
			etcd.Start()
			m.Pause()
		case 2:
			etcd.Others[0].Resume()
			m.Stop()
		}
		waitFor(t, "an override is applied", func() bool {
			out, err := h.SetOverride(within(t, 3*time.Second), webDown("all", fmt.Sprint(i), "jane"), nil)
			return err == nil && len(out.Missing) == 0
		})
	}
}

// TestLearner: a host leaves a learner among the endpoints alone.
func TestLearner(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	learner := etcd.AddLearner()
	for i := range 4 { // the order of the endpoints is random
		h := newHost(t, etcd, fmt.Sprintf("h%d", i), func(o *Options) { o.Endpoints = []string{learner.URL, etcd.URL} })
		waitRegistered(t, h)
		h.set(webDown("host:"+h.o.Host, "", "jane"))
	}
}

// appliedBy reads applied/<host>.
func appliedBy(t *testing.T, h *testHost) applied {
	t.Helper()
	var a applied
	r, err := h.conn.get(context.WithoutCancel(t.Context()), h.o.Prefix+"applied/"+h.o.Host)
	if err == nil && len(r.Kvs) == 1 {
		err = json.Unmarshal(r.Kvs[0].Value, &a)
	}
	if err != nil {
		t.Logf("read applied/: %v", err)
	}
	return a
}
