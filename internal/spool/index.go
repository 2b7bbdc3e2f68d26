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
	verifyEvery = 4 * time.Second         // how old the knowledge that root still names our directory may be at a lookup
	lostEvery   = time.Second             // how often a directory that is lost is looked for
	remoteEvery = 2 * time.Second         // how often a directory that others write to behind our back is read
	retryEvery  = 3 * time.Second         // how often inotify is tried again where there was none
	longestWait = 10 * time.Minute        // of a timer: it does not know of clock steps and suspended machines
	parkGrace   = time.Second             // how long an expired file that was moved aside is kept: see expire.go
	mtimeTick   = 25 * time.Millisecond   // the coarsest kernel clock behind a time stamp, and some
	secondTick  = 2100 * time.Millisecond // the same on file systems that keep whole seconds (FAT: two)
	goneGap     = time.Second             // deletions closer together than this are one `rm -r`
	goneDelay   = 100 * time.Millisecond  // after a deletion, until it is asked whether the directory went with it
	goneWindow  = 5 * time.Second         // how long after the last of them the directory's own end is noticed
	maxFiles    = 100_000                 // held in memory; beyond, requests look at the disk
	maxIgnored  = 1024                    // names told to be ignored
	maxRounds   = 200                     // of reading events before an answer is given all the same
	longestRun  = 500 * time.Millisecond  // of such rounds together
)

// What makes a lookup take the slow path, besides unread events.
const (
	attDirty   uint32 = 1 << iota // events have been read and are not yet in the snapshot
	attDue                        // the directory was not verified for verifyEvery
	attExpiry                     // an override expires, or something moved aside is to be looked at
	attPoll                       // there is no inotify: look at the directory
	attAgain                      // there are files that no event tells about
	attCrowded                    // there are more than maxFiles files
	attScan                       // the directory has to be read as a whole
	attClosed                     // Close was called
)

// IndexOptions are the options of OpenIndex; the zero value is usable.
type IndexOptions struct {
	Log *slog.Logger // nil discards; what overrides say is not logged here, see OnChange
	// LogLimit limits the lines of Log; nil: they are not limited.
	LogLimit *loglimit.Limiter

	// OnChange is told of every change after OpenIndex, in order and from one goroutine, with or without
	// a request in between. It may call the Index, Close excepted. A change that is undone before it was
	// noticed is not told. nil for nobody.
	OnChange func(Change)
}

// Change is one change of what is said about a key.
type Change struct {
	Key      Key
	Old, New *Entry // nil: no override. Read-only.
	Expired  bool   // it ended by itself; New is nil, unless a weaker one took its place
}

// View is what the overrides say about one target at one instant.
type View struct {
	Override      *Entry // the strongest one that covers the target (widest among equals); nil when nothing was said. Read-only.
	Generation    uint64 // counts ended overrides on the whole host at this instant; store it with a result
	MinGeneration uint64 // a result stored with Epoch < Ended is from before an override of this target ended: never use it
}

// Stats are counters since OpenIndex, and what is there now.
type Stats struct {
	Overrides int    // files in force, as last seen
	Events    uint64 // inotify events read
	Reloads   uint64 // files read
	Rescans   uint64 // readings of the whole directory
	Overflows uint64 // times the kernel dropped events
	Errors    uint64 // files or directories that could not be read
	Ignored   uint64 // names that are not overrides, each counted once, up to a bound
	Watching  bool   // inotify is in use
	Lost      bool   // the directory is not where it was, or another one is there that was mounted; the last known overrides stand
}

// Index is the live view of a directory in memory. It is safe for concurrent use.
type Index struct {
	root   string
	log    *slog.Logger
	now    func() time.Time
	system system

	// Read by every lookup, in this order; the package comment says why.
	fd        atomic.Int32 // of watch, -1 without
	attention atomic.Uint32
	snap      atomic.Pointer[snapshot]

	shown atomic.Pointer[Stats]           // as of the last round of work
	home  atomic.Pointer[DirectoryStatus] // the same

	mu        sync.Mutex
	closed    bool
	quiet     bool      // while opening: what is found is no change
	watch     *rawWatch // nil: no inotify
	dir       dirID     // the directory that is watched
	homes     uint64    // how many there have been: a new one can have the number of the old
	mount     mount     // the mount that dir is on, as the kernel's table has it; the zero value when not known
	unmounted bool      // the kernel has said that the file system of dir is gone
	below     bool      // dir lies below a mount that was the spool, and that is gone
	carried   int       // overrides in force that come from a directory of another mount: see home.go
	problem   error     // why the directory is lost
	// loggedLost and loggedAstray say that the log has it that the directory is lost, and that it is astray.
	loggedLost, loggedAstray bool
	remote                   string // its file system, when others write to it behind our back
	lost                     bool
	stamp                    dirStamp // without inotify: the directory when it was last listed
	trusted                  bool     // and whether a later change must show in the stamp
	files                    map[string]*file
	aliases                  map[Key][]string           // file names about a key other than Key.Name
	links                    map[string]map[string]bool // file name to the names of symbolic links that lead there
	restless                 map[string]bool            // names of files with again or deep
	parked                   map[string]*parked
	recent                   []*file // deleted in a row just now: to be taken back if their directory goes too
	recentAt                 time.Time
	goneCheck                time.Time // when to ask whether the directory went with them, zero for no need
	ignored                  map[string]bool
	crowded                  bool
	crowdSaid                bool
	needScan                 bool
	gen                      uint64 // of the last full reading
	inForce                  int
	draft                    *draft // the next snapshot, nil while nothing has changed
	expiry                   time.Time
	stats                    Stats

	timer  *time.Timer // sets attExpiry and updates
	due    *time.Timer // sets attDue; armed again by the verification, so that an idle daemon sleeps
	maints maints
	told   courier
	wake   chan struct{} // the background goroutine shall look at the state again
	done   chan struct{}
	wg     sync.WaitGroup
}

// system is what the index asks of the world, replaced by tests.
type system struct {
	now          func() time.Time
	openRawWatch func() (*rawWatch, error)
	remoteFS     func(root string) string
	alone        func(fd int) bool
	verifyEvery  time.Duration
	maxFiles     int
}

func realSystem() system {
	return system{time.Now, openRawWatch, remoteFS, alone, verifyEvery, maxFiles}
}

// OpenIndex reads d and follows it from then on. It owns three goroutines and two inotify descriptors until
// Close. It does not need inotify: without, every lookup looks at the directory. It holds 100,000 files in
// memory; when there are more it says so in the log, lookups read the others from the disk, and their View
// lets no result be used twice.
func OpenIndex(d *Dir, o IndexOptions) (*Index, error) { return openIndex(d, o, realSystem()) }

func openIndex(d *Dir, o IndexOptions, sys system) (*Index, error) {
	x := &Index{
		root: d.root, log: o.Log, now: sys.now, system: sys,
		files: map[string]*file{}, aliases: map[Key][]string{}, links: map[string]map[string]bool{},
		restless: map[string]bool{}, parked: map[string]*parked{}, ignored: map[string]bool{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	x.told.onChange = o.OnChange
	x.told.lines = o.LogLimit
	x.told.wake = make(chan struct{}, 1)
	x.fd.Store(-1)
	x.snap.Store(&snapshot{})
	x.shown.Store(&Stats{})
	x.home.Store(&DirectoryStatus{Directory: d.root})
	x.timer = time.AfterFunc(longestWait, x.onTimer)
	x.due = time.AfterFunc(sys.verifyEvery, func() { x.attention.Or(attDue) })

	x.mu.Lock()
	err := x.start()
	x.mu.Unlock()
	if err != nil {
		x.timer.Stop()
		x.due.Stop()
		return nil, fmt.Errorf("read spool directory: %w", err)
	}
	x.wg.Go(x.follow)
	x.wg.Go(func() { x.told.run(x.done) })
	return x, nil
}

// start reads the directory for the first time.
func (x *Index) start() error {
	x.openWatch()
	x.quiet = true
	w := x.begin()
	w.sweep = true
	ok := w.open()
	if ok {
		w.run(nil, 0)
	}
	w.finish()
	x.quiet = false
	if !ok || x.lost || x.needScan {
		if x.watch != nil {
			x.watch.close()
		}
		if w.err == nil {
			w.err = errors.New("it could not be listed")
		}
		return w.err
	}
	return nil
}

// openWatch makes x.watch, if the kernel has an inotify instance left for us.
func (x *Index) openWatch() {
	watch, err := x.system.openRawWatch()
	if err != nil {
		if x.quiet || x.gen == 0 { // once, and not at every retry
			x.told.log(x.log, slog.LevelWarn, "no inotify: every request looks at the spool directory instead",
				slog.String("directory", x.root), slog.String("error", err.Error()))
		}
		return
	}
	x.watch = watch
	x.fd.Store(int32(watch.fd))
}

// Lookup returns what the overrides say about service, and about its instance at host and port when port
// is not 0. here says that host is an address of this machine: then `service:port` covers it too, and an
// empty host is 127.0.0.1. host must be as CanonicalHost gives it. The memory of both is the caller's again
// when Lookup returns.
//
// It never answers from before a write that has returned: see the package comment.
func (x *Index) Lookup(service, host string, port uint16, here bool) View {
	t := newQuery(service, host, port, here)
	if fd := x.fd.Load(); (fd < 0 || !pending(fd)) && x.attention.Load() == 0 {
		v, turned := x.snap.Load().view(t, x.now)
		if !turned {
			return v
		}
		// The answer is right; what is left to do is the file's end. Whoever has the lock may be waiting for a
		// file server that hangs, and nobody needs to wait with him.
		if !x.mu.TryLock() {
			v.MinGeneration = v.Generation + 1 // that the override has ended is not yet counted
			x.noteMaints(t)
			return v
		}
		return x.lookupLocked(t)
	}
	x.mu.Lock()
	return x.lookupLocked(t)
}

// noteMaints remembers which overrides that cover t said maint and have expired, for MaintEnded.
func (x *Index) noteMaints(t query) {
	s := x.snap.Load()
	for _, k := range t.keys() {
		if e := s.slot(k).entry; e != nil && e.State == Maint && e.Expired(x.now()) {
			x.maints.end(e.Key, time.Now()) // not k, whose memory is the caller's
		}
	}
}

// lookupLocked is Lookup when there may be news. x.mu is held, and released.
func (x *Index) lookupLocked(t query) View {
	defer x.mu.Unlock()
	t.key.Service, t.key.Host = strings.Clone(t.key.Service), strings.Clone(t.key.Host) // entries that are read now are kept
	x.update(&t, 0)
	now := x.now()
	v, _ := x.snap.Load().view(t, func() time.Time { return now })
	if x.crowded && !x.closed {
		x.viewCrowded(t, &v, now)
	}
	return v
}

// viewCrowded adds to v what the files say for which there was no room. Nothing is known of how those
// end, so that no result may be used twice.
func (x *Index) viewCrowded(t query, v *View, now time.Time) {
	v.MinGeneration = v.Generation + 1
	h, err := openHandle(x.root)
	if err != nil {
		if h, err = pathHandle(x.root); err != nil {
			return // lost: the last known overrides stand
		}
	}
	defer h.close()
	for _, k := range t.keys() {
		if x.files[k.Name()] != nil {
			continue
		}
		r := h.read(k.Name(), typeUnknown)
		e, ok := r.entry(k)
		if !ok || e.Expired(now) {
			continue
		}
		// Of two overrides of the same state the one of the wider key answers.
		if v.Override == nil || e.State > v.Override.State || e.State == v.Override.State && !v.Override.Key.Covers(k, t.local) {
			v.Override = &e
		}
	}
}

// List returns every override in force now, sorted by name.
func (x *Index) List() []Entry {
	locked := x.mu.TryLock()
	if fd := x.fd.Load(); !locked && (fd < 0 || pending(fd) || x.attention.Load() != 0) {
		x.mu.Lock()
		locked = true
	}
	if locked { // if not, who has it may wait for a file server that hangs: as in Lookup
		x.update(nil, attDue|attExpiry)
		x.mu.Unlock()
	}
	s := x.snap.Load()
	var list []Entry
	add := func(sl *slot) {
		if e, _ := sl.at(x.now); e != nil {
			list = append(list, *e)
		}
	}
	add(&s.all)
	for i := range s.shards {
		for _, sl := range s.shards[i].slots {
			add(&sl)
		}
	}
	sortByName(list)
	return list
}

// Stats returns the counters. It does not look at the disk, nor wait for who does.
func (x *Index) Stats() Stats { return *x.shown.Load() }

// Close ends the goroutines of x, after the changes so far were told, and closes its descriptors. Lookup
// answers from the last known overrides after it.
func (x *Index) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	x.attention.Or(attClosed) // before the descriptor goes: its number may be used for something else
	x.fd.Store(-1)
	x.timer.Stop()
	x.due.Stop()
	if x.watch != nil {
		x.watch.close()
		x.watch = nil
	}
	x.mu.Unlock()
	close(x.done)
	x.wg.Wait()
	return nil
}

// onTimer is when something ends without anybody asking.
func (x *Index) onTimer() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.update(nil, attExpiry)
}

// poke tells the background goroutine to look at the state again.
func (x *Index) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}
