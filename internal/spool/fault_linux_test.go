package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// namespaces returns the attributes of a process in namespaces of its own, for any user.
func namespaces(flags uintptr) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: flags}
	if os.Getuid() != 0 || flags&syscall.CLONE_NEWUSER != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// TestKilledWriter: whenever a writer is killed, a reader finds the old override or the new one, whole.
func TestKilledWriter(t *testing.T) {
	r := openSpool(t)
	r.write(Entry{Key: web, State: Down, Reason: wholeReason(0)})
	var torn atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if v := r.x.Lookup("web", "", 80, true); v.Override == nil || !whole(v.Override.Reason) || v.Override.Created.IsZero() {
				torn.Add(1)
			}
			runtime.Gosched()
		}
	})
	for n := range tries(60, 10_000) {
		cmd := helper("writer", r.d.Root())
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		// Not a wait for anything: the instant of the kill is what is tried.
		timer := time.NewTimer(time.Duration(rand.IntN(3000)) * time.Microsecond)
		<-timer.C
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		e, err := r.d.Read(web)
		if err != nil || !whole(e.Reason) || e.Created.IsZero() {
			t.Fatalf("kill %d: %.60q, %v", n, e.Reason, err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if n := torn.Load(); n > 0 {
		t.Errorf("%d lookups saw half an override", n)
	}
	r.close()
	left := len(r.names())
	for _, name := range r.names() {
		if name != "web" {
			old := time.Now().Add(-time.Hour)
			must(t, os.Chtimes(r.path(name), old, old))
		}
	}
	openSpoolOn(t, r.d).close()
	if got := r.names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("of %d files %d are left", left, len(got))
	}
}

// TestFullDisk: what cannot be written leaves the old override, and can be removed all the same.
func TestFullDisk(t *testing.T) {
	if !inSubprocess(t, namespaces(syscall.CLONE_NEWNS)) {
		return
	}
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	d, err := OpenDir(filepath.Join(dir, "spool"))
	must(t, err)
	r := openSpoolOn(t, d)
	defer r.close()
	r.down("web", "old")
	f, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	err = d.Write(Entry{Key: web, State: Maint, Reason: "new"})
	if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrNotDurable) {
		t.Errorf("Write on a full disk: %v", err)
	}
	r.want("web", "down old")
	if got := r.names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("files are %q", got)
	}
	r.up("web")
	r.want("web", "")
	must(t, os.Remove(filepath.Join(dir, "filler")))
	r.down("web", "new")
	r.want("web", "down new")
}

// TestEndOfWeightOnFullDisk: a weight can be ended without room for two records.
func TestEndOfWeightOnFullDisk(t *testing.T) {
	if !inSubprocess(t, namespaces(syscall.CLONE_NEWNS)) {
		return
	}
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,nr_inodes=10"))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	d, err := OpenDir(filepath.Join(dir, "spool"))
	must(t, err)
	r := openSpoolOn(t, d)
	defer r.close()
	must(t, d.WriteWeight(Weight{Key: web, Percent: 25, Created: time.Now()}))
	if got := r.x.Weight("web", "", 80, true); got != 25 {
		t.Fatalf("the weight is %d%%, want 25%%", got)
	}
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprint("filler", n)), nil, 0o600)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := d.WriteWeight(Weight{Key: web, Percent: 50, Created: time.Now()}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("another weight on a full disk: %v", err)
	}
	must(t, d.EndWeight(web))
	if got := r.x.Weight("web", "", 80, true); got != MaxWeight {
		t.Errorf("after its end the weight is %d%%", got)
	}
	if got := openSpoolOn(t, d).x.Weight("web", "", 80, true); got != MaxWeight {
		t.Errorf("after its end and a restart the weight is %d%%", got)
	}
}

// TestMountedOver: a directory that is hidden by another mount is noticed, and so is its return.
func TestMountedOver(t *testing.T) {
	t.Parallel()
	if !inSubprocess(t, namespaces(syscall.CLONE_NEWNS)) {
		return
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	r := openSpool(t)
	defer r.close()
	r.down("web", "below")
	r.want("web", "down below")
	must(t, unix.Mount("tmpfs", r.d.Root(), "tmpfs", 0, "size=64k"))
	r.put("web", "above")
	r.wantSoon("web", "down above")
	r.put("web", "edited")
	r.want("web", "down edited")
	r.x.mu.Lock() // while the index has the directory open it is busy
	err := unix.Unmount(r.d.Root(), 0)
	r.x.mu.Unlock()
	must(t, err)
	r.wantSoon("web", "down below")
	r.put("web", "edited below")
	r.want("web", "down edited below")
}

// TestReadOnly: what has expired and may not be removed is over all the same, and said so once.
func TestReadOnly(t *testing.T) {
	if !inSubprocess(t, namespaces(syscall.CLONE_NEWNS)) {
		return
	}
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	must(t, os.Mkdir(filepath.Join(dir, "spool"), 0o755))
	put(t, filepath.Join(dir, "spool", "web"), expiring("x", time.Now().Add(time.Hour)))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	d, err := OpenDir(filepath.Join(dir, "spool"))
	must(t, err)
	r := openSpoolOn(t, d)
	defer r.close()
	for range 3 {
		r.clock.set(0)
		r.want("web", "down x")
		r.clock.set(2 * time.Hour)
		r.wantExpired("web")
		r.want("web", "")
	}
	v := r.x.Lookup("web", "", 0, true)
	if w := r.x.Lookup("web", "", 0, true); w.Generation != v.Generation {
		t.Errorf("the generation goes from %d to %d without anything ending", v.Generation, w.Generation)
	}
	if err := d.Write(Entry{Key: web, State: Down}); err == nil || errors.Is(err, ErrNotDurable) {
		t.Errorf("Write: %v", err)
	}
	if err := d.Remove(web); err == nil {
		t.Error("Remove succeeded")
	}
	r.waitFor("cannot be removed", func(_ []Change, log string) bool { return strings.Contains(log, "cannot be removed") })
	if n := strings.Count(r.log(), "cannot be removed"); n > 3 { // once each time it expired
		t.Errorf("said %d times:\n%s", n, r.log())
	}
}

// TestUnreadable: a file that only another user may read is down.
func TestUnreadable(t *testing.T) {
	if !inSubprocess(t, nil) {
		return
	}
	dir, err := os.MkdirTemp("", "spool")
	must(t, err)
	put(t, filepath.Join(dir, "web"), "secret")
	put(t, filepath.Join(dir, "known"), "readable")
	must(t, os.Chmod(filepath.Join(dir, "web"), 0))
	if os.Getuid() == 0 {
		must(t, os.Chown(dir, 65534, -1))
		must(t, os.Chown(filepath.Join(dir, "known"), 65534, -1))
		must(t, syscall.Setgroups(nil))
		must(t, syscall.Setgid(65534))
		must(t, syscall.Setuid(65534))
	}
	defer func() { must(t, os.RemoveAll(dir)) }()
	d, err := OpenDir(dir)
	must(t, err)
	r := openSpoolOn(t, d)
	defer r.close()
	const why = "down spool file cannot be read: permission denied"
	r.want("web", why)
	r.want("known", "down readable")
	if e, err := d.Read(web); err != nil || show(&e) != why {
		t.Errorf("Read: %q, %v", show(&e), err)
	}
	if list, err := d.List(); err != nil || len(list) != 2 {
		t.Errorf("List: %+v, %v", list, err)
	}
	must(t, os.Chmod(r.path("known"), 0))
	r.want("known", why)
	must(t, os.Chmod(r.path("known"), 0o644))
	r.want("known", "down readable")

	must(t, os.Chmod(dir, 0)) // the whole directory: what was known stands
	r.want("known", "down readable")
	r.waitFor("lost", func(_ []Change, log string) bool { return strings.Contains(log, "is lost") })
	if _, err := OpenDir(dir); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("OpenDir: %v", err)
	}
	must(t, os.Chmod(dir, 0o400)) // it may be listed, not looked into
	if _, err := OpenDir(dir); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("OpenDir: %v", err)
	}
	must(t, os.Chmod(dir, 0o755))
	r.put("known", "edited")
	r.wantSoon("known", "down edited")
}

// poll calls ok until it returns true, for 10 s.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: waited in vain", what)
		}
	}
}

// countInotify returns how many inotify descriptors this process has.
func countInotify(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, f := range list {
		if target, _ := os.Readlink("/proc/self/fd/" + f.Name()); target == "anon_inode:inotify" {
			n++
		}
	}
	return n
}

// TestNoDescriptors: a process that can open nothing keeps what it knows, and what is new counts as down.
func TestNoDescriptors(t *testing.T) {
	for _, mode := range []string{"inotify", "poll"} {
		t.Run(mode, func(t *testing.T) {
			if !inSubprocess(t, nil) {
				return
			}
			var sys []func(*system)
			if mode == "poll" {
				sys = append(sys, noInotify)
			}
			r := openSpool(t, sys...)
			defer r.close()
			// The background goroutine would take the descriptor that the test frees, and keep it.
			poll(t, "the background goroutine's watcher", func() bool {
				return countInotify(t) == map[string]int{"inotify": 2, "poll": 1}[mode]
			})
			r.put("known", `{"state": "drain", "reason": "known"}`)
			r.want("known", "drain known")
			r.put("ends", "")
			r.want("ends", "down")
			if mode == "poll" { // then the next change has to show in the time stamp alone
				poll(t, "a listing whose time stamp is reliable", func() bool {
					r.look("known")
					r.x.mu.Lock()
					defer r.x.mu.Unlock()
					return r.x.dir.stampReliable
				})
			}
			var limit unix.Rlimit
			must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
			spare, err := os.Open("/")
			must(t, err)
			low := limit
			low.Cur = uint64(spare.Fd()) + 1
			must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
			// Every descriptor below is taken too.
			var taken []*os.File
			for {
				f, err := os.Open("/")
				if err != nil {
					break
				}
				taken = append(taken, f)
			}
			// A real writer has descriptors of its own; this one borrows a descriptor of the test.
			write := func(name, text string) {
				t.Helper()
				must(t, spare.Close())
				// The index may borrow the free descriptor for a moment, to look at the directory, while we want it.
				borrowed := func(f func() error) {
					t.Helper()
					for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
						if err := f(); err == nil {
							return
						} else if !errors.Is(err, unix.EMFILE) || time.Now().After(end) {
							t.Errorf("%s: %v", name, err)
							return
						}
					}
				}
				borrowed(func() error { return os.WriteFile(r.path(name), []byte(text), 0o644) })
				borrowed(func() (err error) { spare, err = os.Open("/"); return err })
			}
			if mode == "inotify" {
				r.x.mu.Lock() // so that nothing is read while there is one
				write("known", "edited")
				write("new", "new")
				write("never", expiring("already over", r.clock.in(-time.Hour)))
				r.x.mu.Unlock()
				r.want("known", "drain known")
				r.x.mu.Lock() // and as when the queue was full: nothing tells of this one
				write("unseen", "unseen")
				must(t, r.x.watch.drain(&eventBatch{}))
				r.x.needScan = true
				r.x.attention.Or(attScan)
				r.x.mu.Unlock()
				if got := r.look("unseen"); !strings.HasPrefix(got, "down spool file cannot be read") {
					t.Errorf("unseen is %q", got)
				}
				if got := r.look("new"); !strings.HasPrefix(got, "down spool file cannot be read: too many open files") {
					t.Errorf("new is %q", got)
				}
				if got := r.look("never"); !strings.HasPrefix(got, "down spool file cannot be read") {
					t.Errorf("never is %q", got)
				}
			} else {
				write("new", "new")
				r.want("known", "drain known")
				if got := r.look("new"); !strings.HasPrefix(got, "down spool file cannot be read: too many open files") {
					t.Errorf("new is %q", got)
				}
			}
			r.remove("ends")
			r.want("ends", "")
			must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
			if mode == "inotify" {
				r.want("known", "down edited")
				r.want("never", "")
			}
			r.want("new", "down new")
			r.want("ends", "")
			r.put("after", "all well")
			r.want("after", "down all well")
			for _, f := range append(taken, spare) {
				must(t, f.Close())
			}
		})
	}
}

// TestNoInotifyInstance: with the kernel's limit used up every lookup looks at the directory, and inotify
// is taken up again when there is one.
func TestNoInotifyInstance(t *testing.T) {
	t.Parallel()
	if !inSubprocess(t, namespaces(syscall.CLONE_NEWUSER)) {
		return
	}
	const limit = "/proc/sys/user/max_inotify_instances"
	must(t, os.WriteFile(limit, []byte("0"), 0))
	r := openSpool(t)
	defer r.close()
	if r.x.Stats().Watching {
		t.Fatal("there is inotify")
	}
	r.waitFor("no inotify", func(_ []Change, log string) bool { return strings.Contains(log, "no inotify") })
	for n := range 200 {
		r.put("web", fmt.Sprint(n))
		r.want("web", fmt.Sprint("down ", n))
		r.remove("web")
		r.want("web", "")
	}
	must(t, os.WriteFile(limit, []byte("128"), 0))
	r.waitFor("inotify is back", func(_ []Change, log string) bool { return strings.Contains(log, "inotify is back") })
	if !r.x.Stats().Watching {
		t.Error("inotify is not in use")
	}
	r.put("web", "x")
	r.want("web", "down x")
}

// TestNoWatchLeft: the instance is there, and the kernel has no watch for it.
func TestNoWatchLeft(t *testing.T) {
	if !inSubprocess(t, namespaces(syscall.CLONE_NEWUSER)) {
		return
	}
	must(t, os.WriteFile("/proc/sys/user/max_inotify_watches", []byte("0"), 0))
	r := openSpool(t)
	defer r.close()
	if r.x.Stats().Watching {
		t.Fatal("there is a watch")
	}
	r.put("web", "x")
	r.want("web", "down x")
	r.remove("web")
	r.want("web", "")
}

// TestOverflow: when the kernel's queue is full the whole directory is read before anybody is answered.
func TestOverflow(t *testing.T) {
	r := openSpool(t)
	r.down("ends", "x")
	r.want("ends", "down x")
	r.x.mu.Lock() // no goroutine reads events
	for i := range 12_000 {
		r.put(fmt.Sprintf("svc%d", i%3000), fmt.Sprint(i))
	}
	r.remove("ends")
	r.put("web", "after the queue was full")
	before := r.x.pub.snapshot.Load()
	r.x.mu.Unlock()
	r.want("web", "down after the queue was full")
	r.want("ends", "")
	for i := range 3000 {
		r.want(fmt.Sprintf("svc%d", i), fmt.Sprintf("down %d", i+9000))
	}
	s := r.x.Stats()
	if s.Overflows == 0 || s.Rescans < 2 {
		t.Errorf("no overflow: %+v", s)
	}
	if v := r.x.Lookup("bystander", "", 0, true); before.generation >= v.MinGeneration {
		t.Error("overrides may have come and gone unseen, and results from before are used")
	}
}

// TestDirectoryRemoved: what was said stands while the directory is gone, and its return is noticed.
func TestDirectoryRemoved(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.down("web", "a")
		r.put("all:80", "b")
		r.want("web", "down a")
		must(t, os.RemoveAll(r.d.Root()))
		if r.x.Stats().Watching {
			r.want("web", "down a")
		} else {
			r.wantSoon("web", "down a")
		}
		r.waitFor("lost", func(_ []Change, log string) bool { return strings.Contains(log, "is lost") })
		r.want("web", "down a")
		if s := r.x.Stats(); !s.Lost {
			t.Errorf("stats %+v", s)
		}
		must(t, os.Mkdir(r.d.Root(), 0o750))
		r.put("other", "after")
		r.wantSoon("other", "down after")
		r.want("web", "")
		r.down("web", "again")
		r.want("web", "down again")
		r.waitFor("back", func(_ []Change, log string) bool { return strings.Contains(log, "is back") })
		if n := strings.Count(r.log(), "is lost"); n != 1 {
			t.Errorf("lost %d times:\n%s", n, r.log())
		}
	})
}

// TestRemovedWithManyFiles: while `rm -r` is at work the files go before the directory does.
func TestRemovedWithManyFiles(t *testing.T) {
	r := openSpool(t)
	for i := range 500 {
		r.put(fmt.Sprintf("svc%d", i), fmt.Sprint(i))
	}
	r.down("up", "x")
	r.want("up", "down x")
	r.up("up") // an operator's word just before
	r.want("up", "")
	must(t, os.RemoveAll(r.d.Root()))
	for i := range 500 {
		r.want(fmt.Sprintf("svc%d", i), fmt.Sprintf("down %d", i))
	}
	r.want("up", "")
}

// TestLiftedOverrideStaysLifted: what an operator has lifted before the directory goes does not come back with it,
// however lively it was there.
func TestLiftedOverrideStaysLifted(t *testing.T) {
	t.Parallel()
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		for n := range 3 {
			r.down("web", fmt.Sprint(n))
			r.want("web", fmt.Sprint("down ", n))
			r.up("web")
			r.want("web", "")
		}
		r.down("stays", "x")
		r.want("stays", "down x")
		must(t, os.Rename(r.d.Root(), r.d.Root()+".moved"))
		r.waitFor("lost", func(_ []Change, log string) bool {
			r.x.Lookup("web", "", 0, true)
			r.signal() // keep asking
			return strings.Contains(log, "is lost")
		})
		r.want("web", "")
		r.want("stays", "down x")
	})
}

// TestNewDirectoryIsFollowed: also when it was made at once, and has the inode number of the old one, and
// without a request.
func TestNewDirectoryIsFollowed(t *testing.T) {
	r := openSpool(t)
	for n := range 5 {
		r.x.mu.Lock() // no update sees it missing
		must(t, os.RemoveAll(r.d.Root()))
		must(t, os.Mkdir(r.d.Root(), 0o750))
		r.x.mu.Unlock()
		r.want("other", "")
		reason := fmt.Sprint(n)
		r.put("web", reason)
		r.waitFor("write into the new directory", func(c []Change, _ string) bool {
			return slices.ContainsFunc(c, func(c Change) bool { return show(c.New) == "down "+reason })
		})
	}
}

// TestInotifyFails: reading events fails, as it should never do. Nothing is missed by that.
func TestInotifyFails(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	r.down("web", "a")
	r.want("web", "down a")
	r.x.mu.Lock()
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Dup3(null, r.x.watch.fd, unix.O_CLOEXEC)) // under the number of the inotify descriptor
	must(t, unix.Close(null))
	r.x.mu.Unlock()
	r.down("web", "b")
	r.want("web", "down b")
	r.waitFor("it fails", func(_ []Change, log string) bool { return strings.Contains(log, "inotify fails") })
	r.waitFor("it is back", func(_ []Change, log string) bool { return strings.Contains(log, "inotify is back") })
	r.down("web", "c")
	r.want("web", "down c")
	if !r.x.Stats().Watching {
		t.Error("inotify is not in use")
	}
}

// TestLease: while the index looks whether a process has a file open, an opener waits and nothing worse happens; the
// kernel sends a signal then that ends a process that does not expect it.
func TestLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, "x")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	if !isOnlyOpener(fd) {
		t.Fatal("somebody has it open")
	}
	opened := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	for { // until the kernel has asked us to let go
		lease, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
		must(t, err)
		if lease != unix.F_WRLCK {
			break
		}
		runtime.Gosched()
	}
	must(t, unix.Close(fd))
	must(t, <-opened)
}

// TestRemovedWhileReading: the directory goes while the index has it open to read events, and so is not
// told. No override ends by that.
func TestRemovedWhileReading(t *testing.T) {
	r := openSpool(t)
	r.put("web", "a")
	r.want("web", "down a")
	r.x.mu.Lock()
	u := r.x.newUpdate()
	u.openDir()
	must(t, os.RemoveAll(r.d.Root()))
	u.run(nil, 0)
	u.finish()
	if got := show(r.x.pub.snapshot.Load().slot(web).entry); got != "down a" || !r.x.dir.lost {
		t.Errorf("published is %q, lost is %v", got, r.x.dir.lost)
	}
	r.x.mu.Unlock()
	r.want("web", "down a")
}

// TestDirectoryHeldOpen: a process works in the directory that is removed, and keeps the kernel from
// telling that it is gone.
func TestDirectoryHeldOpen(t *testing.T) {
	t.Parallel()
	r := openSpool(t)
	r.down("web", "a")
	r.want("web", "down a")
	shell, err := os.Open(r.d.Root())
	must(t, err)
	defer func() { must(t, shell.Close()) }()
	must(t, os.RemoveAll(r.d.Root()))
	r.wantSoon("web", "down a")
	must(t, os.Mkdir(r.d.Root(), 0o750))
	r.put("web", "b")
	r.wantSoon("web", "down b")
}

// TestDirectoryMoved: changes in a directory that was moved away do not count, until it is moved back.
func TestDirectoryMoved(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"directory", "parent"} {
		t.Run(what, func(t *testing.T) {
			withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
				r.down("web", "a")
				r.want("web", "down a")
				from := r.d.Root()
				if what == "parent" {
					from = filepath.Dir(from)
				}
				moved := from + ".moved"
				must(t, os.Rename(from, moved))
				defer func() { _ = os.Rename(moved, from) }()
				spool := moved
				if what == "parent" {
					spool = filepath.Join(moved, "spool")
				}
				if what == "directory" && r.x.Stats().Watching {
					must(t, os.Remove(filepath.Join(spool, "web")))
					r.want("web", "down a")
				} else {
					r.waitFor("lost", func(_ []Change, log string) bool {
						r.x.Lookup("web", "", 0, true)
						r.signal() // keep asking
						return strings.Contains(log, "is lost")
					})
					must(t, os.Remove(filepath.Join(spool, "web")))
					r.want("web", "down a")
				}
				put(t, filepath.Join(spool, "web"), "changed meanwhile")
				must(t, os.Rename(moved, from))
				r.wantSoon("web", "down changed meanwhile")
				r.put("web", "b")
				r.want("web", "down b")
			})
		})
	}
}

// TestDirectoryReplaced by another one in a single step.
func TestDirectoryReplaced(t *testing.T) {
	withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
		r.down("web", "a")
		r.want("web", "down a")
		other := r.d.Root() + ".new"
		must(t, os.Mkdir(other, 0o750))
		put(t, filepath.Join(other, "web"), "b")
		must(t, unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, r.d.Root(), unix.RENAME_EXCHANGE))
		r.want("web", "down b")
		r.put("web", "c")
		r.want("web", "down c")
		put(t, filepath.Join(other, "web"), "the old one is nothing to us")
		r.want("web", "down c")
	})
}

// TestRemoteFileSystem: changes without an event show within 5 s, with and without lookups, and the log names the file
// system.
func TestRemoteFileSystem(t *testing.T) {
	t.Parallel()
	r := openSpool(t, func(s *system) { s.remoteFSName = func(string) string { return "nfs" } })
	r.waitFor("said", func(_ []Change, log string) bool { return strings.Contains(log, "file_system=nfs") })
	r.put("web", "a")
	r.want("web", "down a")
	// Another machine's write raises no event here; nor does one through a link in another directory.
	elsewhere := filepath.Join(t.TempDir(), "web")
	must(t, os.Link(r.path("web"), elsewhere))
	r.want("web", "down a")
	start := time.Now()
	put(t, elsewhere, "b")
	r.waitFor("unseen write", func(c []Change, _ string) bool { return len(c) > 0 && show(c[len(c)-1].New) == "down b" })
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	r.want("web", "down b")
	if strings.Count(r.log(), "file_system") != 1 {
		t.Errorf("said more than once:\n%s", r.log())
	}
}

// TestRemoteFileSystemComesLater: mounted after the daemon has begun, as happens at boot.
func TestRemoteFileSystemComesLater(t *testing.T) {
	t.Parallel()
	var remote atomic.Value
	remote.Store("")
	r := openSpool(t, func(s *system) { s.remoteFSName = func(string) string { return remote.Load().(string) } })
	r.want("web", "")
	other := r.d.Root() + ".new"
	must(t, os.Mkdir(other, 0o750))
	put(t, filepath.Join(other, "web"), "a")
	behind := filepath.Join(t.TempDir(), "web") // no event tells of what is written through another link
	must(t, os.Link(filepath.Join(other, "web"), behind))
	remote.Store("nfs")
	must(t, unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, r.d.Root(), unix.RENAME_EXCHANGE))
	r.want("web", "down a")
	r.waitFor("said", func(_ []Change, log string) bool { return strings.Contains(log, "file_system=nfs") })
	put(t, behind, "b")
	r.wantSoon("web", "down b")
	if n := strings.Count(r.log(), "file_system=nfs"); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log())
	}
}

// TestIdleSleeps: without lookups and events the index does nothing at all.
func TestIdleSleeps(t *testing.T) {
	t.Parallel() // as all that mostly wait
	const period = 50 * time.Millisecond
	var looks atomic.Int64
	r := openSpool(t, func(s *system) {
		s.verifyEvery = period
		now := s.now
		s.now = func() time.Time { // every piece of work begins with it
			looks.Add(1)
			return now()
		}
	})
	r.down("web", "x")
	r.up("web")
	r.write(Entry{Key: web, State: Down, Reason: "x", Expires: r.clock.in(time.Hour)})
	r.want("web", "down x")
	// What the last writes have set going, the look after a deletion among it, ends meanwhile.
	timer := time.NewTimer(20 * period)
	<-timer.C
	before := looks.Load()
	timer.Reset(20 * period)
	<-timer.C
	if n := looks.Load() - before; n > 0 {
		t.Errorf("the index went to work %d times in %v", n, 20*period)
	}
	r.want("web", "down x")
}

// TestLostSleeps: with the directory gone it is looked for once a second, and nothing else is tried.
func TestLostSleeps(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	r := openSpool(t, func(s *system) {
		now := s.now
		s.now = func() time.Time {
			looks.Add(1)
			return now()
		}
	})
	r.put("web", expiring("x", r.clock.in(time.Hour)))
	r.put("stays", "y")
	r.want("web", "down x")
	r.clock.set(2 * time.Hour)
	r.wantExpired("web") // and its file is moved aside, to be looked at in a second
	must(t, os.Rename(r.d.Root(), r.d.Root()+".moved"))
	r.want("stays", "down y")
	r.waitFor("lost", func(_ []Change, log string) bool { return strings.Contains(log, "is lost") })
	before := looks.Load()
	timer := time.NewTimer(3 * time.Second)
	<-timer.C
	if n := looks.Load() - before; n > 6 {
		t.Errorf("the index went to work %d times in 3 s", n)
	}
	must(t, os.Rename(r.d.Root()+".moved", r.d.Root()))
	r.wantSoon("web", "")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !slices.Equal(r.names(), []string{"stays"}); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("files are %q", r.names())
		}
	}
}
