//go:build unix

package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/loglimit"
)

// The times and bounds of an Index.
const (
	verifyEvery        = 4 * time.Second         // how long a lookup trusts that root still is the watched directory
	lostRetry          = time.Second             // between two searches for a lost directory
	remoteScan         = 2 * time.Second         // between two listings of a directory that other machines write to
	inotifyRetry       = 3 * time.Second         // between two attempts to get inotify
	maxTimer           = 10 * time.Minute        // a longer timer would miss clock steps and a suspended machine
	asideGrace         = time.Second             // from setting an expired file aside to removing it: see expire.go
	mtimeTick          = 25 * time.Millisecond   // above the resolution of the kernel's time stamps
	secondTick         = 2100 * time.Millisecond // the same on file systems with whole seconds (FAT: two)
	deletionGap        = time.Second             // deletions closer together are one `rm -r`
	deletionCheckDelay = 100 * time.Millisecond  // from a deletion to the check whether the directory was removed too
	deletionWindow     = 5 * time.Second         // how long after the last deletion a removed directory still counts as `rm -r`
	maxFiles           = 100_000                 // held in memory; for others, requests read the disk
	maxIgnored         = 1024                    // ignored names in the log
	maxRounds          = 200                     // of reading events before a lookup answers all the same
	maxUpdateTime      = 500 * time.Millisecond  // how long an update reads events before the lookup answers all the same
)

// The attention flags: why a lookup takes the slow path although no event is pending.
const (
	attDirty        uint32 = 1 << iota // events were read and are not yet in the snapshot
	attVerify                          // the directory was not verified for verifyEvery
	attExpiry                          // an override expires, or a file that was set aside is due
	attPoll                            // there is no inotify
	attReload                          // no event tells of changes in some of the files
	attTooManyFiles                    // there are more than maxFiles files
	attScan                            // the whole directory has to be listed
	attClosed                          // Close was called
)

// IndexOptions are the options of OpenIndex; the zero value is usable.
type IndexOptions struct {
	Log *slog.Logger // nil discards. Changes of overrides are not logged here: see OnChange.
	// LogLimit limits the lines of Log; nil: they are not limited.
	LogLimit *loglimit.Limiter

	// OnChange is called for every change after OpenIndex, in order and from one goroutine, whether or not there are
	// lookups. It may call the Index, except for Close. A change that is undone before the Index has seen it is left
	// out. nil: no call.
	OnChange func(Change)
	// OnWeight is called for every change of a weight, under the same conditions. nil: no call.
	OnWeight func(WeightChange)
}

// Change is a change of the override of a key.
type Change struct {
	Key      Key
	Old, New *Entry // nil: no override. Read-only.
	Expired  bool   // Old has expired; New is nil, or a weaker override takes its place
}

// View is what the overrides say about one target at one instant.
type View struct {
	// Override is the strongest override that covers the target, of equals the one of the widest key; nil without.
	// Read-only.
	Override      *Entry
	Generation    uint64 // counts the overrides that have ended on the host so far; store it with a result
	MinGeneration uint64 // a result stored with a lower Generation is outdated: an override of the target has ended since
}

// Index is the live view of a directory in memory. It is safe for concurrent use.
type Index struct {
	system system

	// Every lookup reads these two and then pub.snapshot, in this order: see the package comment.
	fd        atomic.Int32 // of watch, -1 without
	attention atomic.Uint32
	pub       publisher

	statsView  atomic.Pointer[Stats] // as of the last update
	statusView atomic.Pointer[DirectoryStatus]

	mu       sync.Mutex
	closed   bool
	watch    *rawWatch // nil: no inotify
	dir      watchedDir
	files    fileTable
	fleet    fleetTable
	aside    asideFiles
	needScan bool            // the whole directory has to be listed
	ignored  map[string]bool // names in the log as ignored
	stats    Stats

	expiryTimer *time.Timer   // updates what expires without a lookup
	verifyTimer *time.Timer   // sets attVerify; only a verification starts it again, so that an idle daemon sleeps
	wake        chan struct{} // the background goroutine shall look at the state again
	done        chan struct{}
	wg          sync.WaitGroup
}

// system is what an Index uses of the operating system; tests replace it.
type system struct {
	now          func() time.Time // wall clock, for expirations
	openRawWatch func() (*rawWatch, error)
	remoteFSName func(root string) string
	isOnlyOpener func(fd int) bool
	verifyEvery  time.Duration
	maxFiles     int
}

func realSystem() system {
	return system{time.Now, openRawWatch, remoteFSName, isOnlyOpener, verifyEvery, maxFiles}
}

// OpenIndex reads d and follows it until Close. The Index owns three goroutines and two inotify descriptors. Without
// inotify every lookup reads the directory.
//
// The Index holds 100,000 files in memory. If there are more it logs that, lookups read the others from the disk, and
// no result may be used twice.
func OpenIndex(d *Dir, o IndexOptions) (*Index, error) { return openIndex(d, o, realSystem()) }

func openIndex(d *Dir, o IndexOptions, sys system) (*Index, error) {
	x := &Index{
		system: sys,
		dir:    watchedDir{root: d.root}, files: newFileTable(sys.maxFiles), aside: asideFiles{}, ignored: map[string]bool{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	notify := &x.pub.notify
	notify.onWeight = o.OnWeight
	notify.onChange, notify.logger, notify.logLimit, notify.wake = o.OnChange, o.Log, o.LogLimit, make(chan struct{}, 1)
	if notify.logger == nil {
		notify.logger = slog.New(slog.DiscardHandler)
	}
	x.fd.Store(-1)
	x.pub.snapshot.Store(&snapshot{})
	x.statsView.Store(&Stats{})
	x.statusView.Store(&DirectoryStatus{Directory: d.root})
	x.expiryTimer = time.AfterFunc(maxTimer, x.onExpiry)
	x.verifyTimer = time.AfterFunc(sys.verifyEvery, func() { x.attention.Or(attVerify) })

	x.mu.Lock()
	err := x.load()
	x.mu.Unlock()
	if err != nil {
		x.expiryTimer.Stop()
		x.verifyTimer.Stop()
		return nil, fmt.Errorf("read spool directory: %w", err)
	}
	x.wg.Go((&background{index: x}).run)
	x.wg.Go(func() { notify.run(x.done) })
	return x, nil
}

// load reads the directory for the first time. x.mu is held.
func (x *Index) load() error {
	x.openWatch()
	x.pub.loading = true
	u := x.newUpdate()
	u.removeAbandoned = true
	ok := u.openDir()
	if ok {
		u.run(nil, 0)
	}
	u.finish()
	x.pub.loading = false
	if !ok || x.dir.lost || x.needScan {
		if x.watch != nil {
			x.watch.close()
		}
		if u.err == nil {
			u.err = errors.New("it could not be listed")
		}
		return u.err
	}
	return nil
}

// openWatch sets x.watch, unless the kernel refuses an inotify instance.
func (x *Index) openWatch() {
	watch, err := x.system.openRawWatch()
	if err != nil {
		if x.pub.loading || x.files.listing == 0 { // once, and not at every retry
			x.pub.notify.log(slog.LevelWarn, "no inotify: every request looks at the spool directory instead",
				slog.String("directory", x.dir.root), slog.String("error", err.Error()))
		}
		return
	}
	x.watch = watch
	x.fd.Store(int32(watch.fd))
}

// Lookup returns what the overrides say about service and, when port is not 0, about its instance at host and port.
// local says that host is an address of this machine: then `service:port` covers it too. An empty host is 127.0.0.1.
// host must be as CanonicalHost returns it. Lookup does not keep service and host.
//
// A Lookup that begins after a write has returned sees that write: see the package comment.
func (x *Index) Lookup(service, host string, port uint16, local bool) View {
	q := newQuery(service, host, port, local)
	if fd := x.fd.Load(); (fd < 0 || !hasUnreadEvents(fd)) && x.attention.Load() == 0 {
		v, outdated := x.pub.snapshot.Load().view(q, x.system.now)
		if !outdated {
			return v
		}
		// v is already correct; only the expired file is left to be removed. Do not wait for the lock: its holder may
		// be stuck on a dead file server.
		if !x.mu.TryLock() {
			v.MinGeneration = v.Generation + 1 // the end of the override is not counted yet
			x.recordMaintEnds(q)
			return v
		}
		return x.lookupAndUnlock(q)
	}
	x.mu.Lock()
	return x.lookupAndUnlock(q)
}

// recordMaintEnds records the expired maint overrides that cover q.
func (x *Index) recordMaintEnds(q query) {
	s := x.pub.snapshot.Load()
	for _, k := range q.keys() {
		slot := s.slot(k)
		e := slot.entry
		if e == nil || e.State != Maint || !e.Expired(x.system.now()) {
			continue
		}
		if left, _ := slot.at(x.system.now); left == nil || left.State != Maint {
			x.pub.maints.record(e.Key, time.Now()) // not k: its strings belong to the caller of Lookup
		}
	}
}

// lookupAndUnlock updates x for q and answers. x.mu is held; lookupLocked releases it.
func (x *Index) lookupAndUnlock(q query) View {
	defer x.mu.Unlock()
	q.key.Service, q.key.Host = strings.Clone(q.key.Service), strings.Clone(q.key.Host) // the file table keeps them
	x.update(&q, 0)
	now := x.system.now()
	v, _ := x.pub.snapshot.Load().view(q, func() time.Time { return now })
	if x.files.tooMany && !x.closed {
		x.addUnloaded(q, &v, now)
	}
	return v
}

// addUnloaded adds to v the overrides that the file table has no room for. Their ends are not known, so that v lets no
// result be used twice.
func (x *Index) addUnloaded(q query, v *View, now time.Time) {
	v.MinGeneration = v.Generation + 1
	h, err := openHandle(x.dir.root)
	if err != nil {
		if h, err = openByPath(x.dir.root); err != nil {
			return // lost: the last known overrides stand
		}
	}
	defer h.close()
	for _, k := range q.keys() {
		if x.files.byName[k.Name()] != nil {
			continue
		}
		r := h.read(k.Name(), typeUnknown)
		e, ok := r.entry(k)
		if !ok || e.Expired(now) {
			continue
		}
		// Of two overrides of the same state the one of the wider key answers.
		if v.Override == nil || e.State > v.Override.State || e.State == v.Override.State && !v.Override.Key.Covers(k, q.local) {
			v.Override = &e
		}
	}
}

// List returns every override in force now, sorted by name: of each key the file and one override for each scope of the
// fleet. The first one of a key decides for that key.
func (x *Index) List() []Entry {
	x.refresh()
	s, now := x.pub.snapshot.Load(), x.system.now()
	var list []Entry
	add := func(sl *keyRecord) {
		for e := range sl.inForce(now) {
			list = append(list, *e)
		}
	}
	add(&s.all)
	for i := range s.shards {
		for _, sl := range s.shards[i].slots {
			add(&sl)
		}
	}
	SortByName(list)
	return list
}

// refresh brings the snapshot up to date as a whole.
func (x *Index) refresh() {
	locked := x.mu.TryLock()
	if fd := x.fd.Load(); !locked && (fd < 0 || hasUnreadEvents(fd) || x.attention.Load() != 0) {
		x.mu.Lock()
		locked = true
	}
	if locked { // otherwise the holder of the lock may be stuck on a dead file server: see Lookup
		x.update(nil, attVerify|attExpiry)
		x.mu.Unlock()
	}
}

// Close delivers the changes so far, ends the goroutines of x and closes its descriptors. Later lookups answer from the
// last known overrides.
func (x *Index) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	x.attention.Or(attClosed) // before the descriptor is closed: its number may be reused
	x.fd.Store(-1)
	x.expiryTimer.Stop()
	x.verifyTimer.Stop()
	if x.watch != nil {
		x.watch.close()
		x.watch = nil
	}
	x.mu.Unlock()
	close(x.done)
	x.wg.Wait()
	return nil
}

// onExpiry runs when expiryTimer fires.
func (x *Index) onExpiry() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.update(nil, attExpiry)
}

// wakeBackground has the background goroutine look at the state again.
func (x *Index) wakeBackground() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}
