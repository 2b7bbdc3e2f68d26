package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacheck/test/servertest"
)

// must fails the test if err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inMountNamespace runs the test again in a process with a mount namespace of its own. It returns true in that process;
// where it returns false the test is over.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	const env = "FLEET_TEST_NAMESPACE"
	if os.Getenv(env) == t.Name() {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
	}
	return false
}

// fill fills the file system of a directory.
func fill(dir string) error {
	f, err := os.Create(filepath.Join(dir, "filler"))
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// eachCopy changes both generations of the copy.
func eachCopy(change func(path string) error) func(string) error {
	return func(dir string) error {
		var errs []error
		for i := range 2 {
			errs = append(errs, change(filepath.Join(dir, copyPrefix+fmt.Sprint(i))))
		}
		return errors.Join(errs...)
	}
}

// writeEmptyCopies writes two generations without an override from a generation on, as a backup that is put back does.
func writeEmptyCopies(dir string, generation uint64) error {
	elsewhere, err := os.MkdirTemp("", "fleet-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(elsewhere) }()
	d := &stateDir{path: elsewhere, generation: generation}
	for range 2 {
		if err := d.save(&localCopy{}); err != nil {
			return err
		}
	}
	d.close()
	return eachCopy(func(path string) error {
		content, err := os.ReadFile(filepath.Join(elsewhere, filepath.Base(path)))
		return errors.Join(err, os.WriteFile(path, content, 0o600))
	})(dir)
}

// stateDirFault is something that happens to the state directory, a file system of its own, while the daemon runs.
type stateDirFault struct {
	name    string
	cause   func(dir string) error
	mend    func(dir string) error // nil: the daemon can write
	damages bool                   // what is on disk is damaged or hidden
}

var stateDirFaults = []stateDirFault{
	{
		"read-only",
		func(dir string) error { // as after an error of the disk; an administrator cannot do it while the lock is open
			err := unix.Mount(dir, dir, "", unix.MS_BIND, "")
			return errors.Join(err, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		},
		func(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) },
		false,
	},
	{"full", fill, func(dir string) error { return os.Remove(filepath.Join(dir, "filler")) }, false},
	{
		"hidden by a mount that is read-only",
		func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=64k") },
		func(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) },
		true,
	},
	{"hidden by an empty mount", func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k") }, nil, true},
	{"unmounted", func(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }, nil, true},
	{"copies removed", eachCopy(os.Remove), nil, true},
	{"copies cut off", eachCopy(func(path string) error { return os.Truncate(path, 20) }), nil, true},
	{
		"garbage in the copies",
		eachCopy(func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 500), 0o600) }), nil, true,
	},
	{
		"directories in place of the copies",
		eachCopy(func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }),
		eachCopy(os.RemoveAll), true,
	},
	{
		"a copy of long ago, with a larger generation",
		func(dir string) error {
			return writeEmptyCopies(dir, 1000)
		},
		nil, true,
	},
}

// TestStateDirFaults: whatever happens to the state directory while the daemon runs, no override ends by it, the log says
// what is wrong, nothing is acknowledged that is not on disk, and the copy is whole again when the directory is writable.
func TestStateDirFaults(t *testing.T) {
	t.Parallel()
	if !inMountNamespace(t) {
		return
	}
	etcd := servertest.Etcd(t)
	for i, f := range stateDirFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			must(t, os.Mkdir(dir, 0o700))
			must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
			t.Cleanup(func() {
				for unix.Unmount(dir, unix.MNT_DETACH) == nil {
				}
			})
			h := newHost(t, etcd, "a", func(o *Options) { o.Prefix, o.StateDir = fmt.Sprintf("/%d/", i), dir })
			waitRegistered(t, h)
			h.set(webDown("all", "first", "jane"))
			h.index.neverWithout(t, 1)
			defer h.index.mayBeWithout()
			f.test(t, h)
		})
	}
}

// test causes the fault, sets another override, and mends what has to be mended.
func (f stateDirFault) test(t *testing.T, h *testHost) {
	must(t, f.cause(h.o.StateDir))
	if f.damages {
		waitFor(t, "a warning that the copy is damaged", func() bool {
			return h.log.count("level=WARN msg=\"fleet: the copy of the overrides on disk was removed or damaged") > 0
		})
	}
	if f.mend != nil {
		out, err := h.SetOverride(within(t, time.Second), webDown("host:a", "second", "jane"), nil)
		if err != nil || len(out.Missing) != 1 || h.index.has("host:a", "web") == nil {
			t.Fatalf("got %+v, %v; the override has to be in force and not acknowledged", out, err)
		}
		waitFor(t, "the host says why it does not acknowledge", func() bool {
			return strings.Contains(appliedBy(t, h).Error, "copy") && strings.Contains(h.Status().Error, "copy")
		})
		must(t, f.mend(h.o.StateDir))
		waitFor(t, "the host acknowledges", func() bool {
			return appliedBy(t, h).Revision >= h.Status().Revision && appliedBy(t, h).Error == "" && h.Status().Error == ""
		})
		if bad, good := h.log.count("level=ERROR msg=\"fleet: the copy of the overrides cannot be written"), h.log.count("is on disk again"); bad == 0 || good == 0 {
			t.Errorf("%d errors and %d ends of them are in the log", bad, good)
		}
	} else {
		h.set(webDown("host:a", "second", "jane"))
	}
	waitFor(t, "both overrides are in the copy", func() bool {
		c, err := (&stateDir{path: h.o.StateDir}).load()
		return err == nil && c.Records["all/web"] != nil && c.Records["host:a/web"] != nil
	})
}

// TestCopyIsWrittenWithoutEtcd: a daemon that has started with its copy writes it again when it is removed, also if it
// cannot read etcd.
func TestCopyIsWrittenWithoutEtcd(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a", startWait(50*time.Millisecond))
	waitRegistered(t, h)
	h.set(webDown("all", "first", "jane"))
	etcd.Kill()
	h.close()
	h.open()
	must(t, os.RemoveAll(h.o.StateDir))
	waitFor(t, "the copy is there again", func() bool {
		c, err := (&stateDir{path: h.o.StateDir}).load()
		return err == nil && c.Records["all/web"] != nil
	})
}

// TestCopyOfAnotherCluster: while etcd answers with another cluster id, the operator may remove the copy.
func TestCopyOfAnotherCluster(t *testing.T) {
	t.Parallel()
	f := closedFleet(t)
	f.applier.isRead = true
	f.applier.checkCopy()
	path := f.dir.copyPath(f.dir.generation)
	must(t, os.Remove(path))
	f.conn.problem = &errOtherCluster{1, 2}
	f.applier.checkCopy()
	if fileExists(path) {
		t.Error("the copy was written again")
	}
	f.conn.problem = nil
	f.applier.checkCopy()
	if !fileExists(f.dir.copyPath(f.dir.generation)) {
		t.Error("the copy was not written again")
	}
}

// TestLeftIsWrittenAgain: a host that could not keep the mark of Leave, or has lost it, writes it as soon as it can.
func TestLeftIsWrittenAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a", func(o *Options) { o.StateDir = filepath.Join(t.TempDir(), "state") })
	waitRegistered(t, h)
	must(t, os.RemoveAll(h.o.StateDir))
	must(t, os.WriteFile(h.o.StateDir, nil, 0o600))
	if err := h.Leave("jane"); err == nil {
		t.Error("Leave reports no error without a directory")
	}
	must(t, os.Remove(h.o.StateDir))
	waitFor(t, "the mark is written", func() bool {
		l := (&stateDir{path: h.o.StateDir}).readLeft()
		return l != nil && l.By == "jane"
	})
	must(t, h.Join("jane"))
	h.applier.checkLeft()
	if h.dir.readLeft() != nil {
		t.Error("the mark is back after Join")
	}
}

// TestRemembersAgain: the services of a host are written to the file as soon as that is possible.
func TestRemembersAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t, servertest.Etcd(t), "a", func(o *Options) { o.StateDir = filepath.Join(t.TempDir(), "state") })
	now := time.Now()
	u := &publisher{p: &permits{f: h.Fleet, now: func() time.Time { return now }}, published: map[string]string{"web": "{}"}}
	path := filepath.Join(h.o.StateDir, membersFile)
	must(t, os.Mkdir(path, 0o700))
	for range 3 {
		u.remember()
		now = now.Add(dirEvery)
	}
	must(t, os.Remove(path))
	u.remember()
	if text, err := os.ReadFile(path); string(text) != `["web"]` {
		t.Errorf("the file has %q (%v)", text, err)
	}
	if bad, good := h.log.count("cannot be remembered"), h.log.count("are remembered again"); bad != 1 || good != 1 {
		t.Errorf("%d warnings and %d ends of them in the log, want one of each", bad, good)
	}
}
