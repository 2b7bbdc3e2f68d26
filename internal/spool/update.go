//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// typeUnknown asks handle.read to look first what kind of file it is.
const typeUnknown = fs.ModeIrregular

// file is one file of the directory that is an override, or a symbolic link that may become one.
type file struct {
	name  string
	key   Key
	entry *Entry   // nil when the link leads nowhere
	over  bool     // entry has expired
	again bool     // could not be read, or was not looked at to the end: read it at the next lookup
	deep  bool     // behind a subdirectory, which no event of ours tells about
	via   []string // the names in the directory that the link leads over
	kept  bool     // expired, and could not be removed, which has been said
	from  *dirID   // of a carried override: the directory where it was; nil for the one that is watched
	gen   uint64   // of the last full reading that saw it
}

// batch is what the kernel has told in one go.
type batch struct {
	names    map[string]bool // whether the last event of the name was a plain deletion
	overflow bool
	// unmounted says that the file system of the directory is gone.
	unmounted bool
	count     uint64 // also of those about the directory itself
}

func (b *batch) note(name string, deleted bool) {
	if b.names == nil {
		b.names = map[string]bool{}
	}
	b.names[name] = deleted
}

// work is one round of bringing an index up to date, under its lock.
type work struct {
	*Index
	h       *handle
	now     time.Time // wall clock, which expirations are about
	mono    time.Time
	changes int // of slots so far, and of what was no longer as it had just been
	changed []Change
	ended   bool  // an override has ended because its file is gone
	last    bool  // no more rounds after this one
	sweep   bool  // remove what killed writers have left behind
	err     error // of the last attempt to open or list the directory
}

func (x *Index) begin() *work { return &work{Index: x, now: x.now(), mono: time.Now()} }

// update brings the index up to date for t, or as a whole when t is nil. more is what to do besides what
// x.attention says. x.mu is held.
func (x *Index) update(t *query, more uint32) {
	if x.closed {
		return
	}
	w := x.begin()
	w.run(t, x.attention.Load()|more)
	w.finish()
}

// run repeats until there is nothing left to read. That matters: the files are read after the events, and
// may already say what later events, not yet read, would tell together with something else. With
// `hadown web; haup all`, having seen `all` go, the event of `web` must be read before anybody is answered.
func (w *work) run(t *query, todo uint32) {
	if !w.goneCheck.IsZero() && !w.goneCheck.After(w.mono) {
		w.goneCheck = time.Time{}
		todo |= attDue
	}
	for round := range maxRounds {
		w.last = round == maxRounds-1 || round > 0 && time.Since(w.mono) > longestRun
		before, home := w.changes, w.homes
		b := w.events()
		again := b.count > 0
		switch {
		case todo&(attDue|attScan) != 0:
			w.verify(todo)
			again = true
		case b.count > 0:
			w.open() // whether it is still our directory has to be asked before its files are believed
		}
		if !w.lost {
			if w.homes == home { // else they are about files of the directory before
				w.take(&b)
			}
			again = w.scanIfNeeded() || again
			w.lookAgain(t, todo)
		}
		w.expire(t, todo)
		w.settleParked()
		if !again && w.changes == before && w.stillThere() {
			return
		}
		if w.last {
			break
		}
		todo = 0
	}
	w.stillThere()
}

// events reads what the kernel has queued. Before an event leaves the queue, attDirty is set: whoever
// finds the queue empty from then on waits for us.
func (w *work) events() (b batch) {
	if w.watch == nil || !pending(w.fd.Load()) {
		return b
	}
	w.attention.Or(attDirty)
	if err := w.watch.drain(&b); err != nil {
		w.stats.Errors++
		w.unwatch(err)
		b.count++
		w.needScan = true
	}
	w.stats.Events += b.count
	w.unmounted = w.unmounted || b.unmounted
	if b.overflow {
		w.stats.Overflows++
		w.needScan = true
		w.edit().raiseFloor() // which overrides came and went is not known
	}
	return b
}

// unwatch does without inotify from now on; it is tried again with the next verification.
func (w *work) unwatch(err error) {
	w.told.log(w.log, slog.LevelWarn, "inotify fails: every request looks at the spool directory instead",
		slog.String("directory", w.root), slog.String("error", err.Error()))
	w.attention.Or(attPoll) // before lookups miss the descriptor
	w.fd.Store(-1)
	w.watch.close()
	w.watch = nil
	w.poke()
}

// edit returns the next snapshot.
func (x *Index) edit() *draft {
	if x.draft == nil {
		x.draft = newDraft(x.snap.Load())
	}
	return x.draft
}

// finish publishes, and says when to look again.
func (w *work) finish() {
	x := w.Index
	if w.h != nil {
		w.h.close()
	}
	if x.draft != nil {
		x.snap.Store(&x.draft.snapshot)
		x.draft = nil
	}
	w.logHome()
	x.show()
	for _, c := range w.changed { // now that whoever is told can see it
		x.told.changed(c)
	}
	var keep uint32
	if x.watch == nil {
		keep |= attPoll
	}
	if len(x.restless) > 0 {
		keep |= attAgain
	}
	if x.crowded {
		keep |= attCrowded
	}
	if x.needScan && !x.lost {
		keep |= attScan
	}
	// First set, then clear: at no instant may a lookup find less than it has to know. attDue is not ours
	// here, its timer may set it at any time.
	x.attention.Or(keep)
	x.attention.And(keep | attDue | attClosed)

	wait := longestWait
	if !x.expiry.IsZero() {
		wait = min(wait, x.expiry.Sub(w.now))
	}
	for _, p := range x.parked {
		if !x.lost { // nothing can be done for them until the directory is back
			wait = min(wait, p.next.Sub(w.mono))
		}
	}
	if !x.goneCheck.IsZero() {
		wait = min(wait, x.goneCheck.Sub(w.mono))
	}
	switch {
	case wait < longestWait || !x.expiry.IsZero():
		x.timer.Reset(max(wait, time.Millisecond))
	default:
		x.timer.Stop()
	}
}

// show publishes the counters. It comes before whoever may look at them is told.
func (x *Index) show() {
	s := x.stats
	s.Overrides, s.Watching, s.Lost = x.inForce, x.watch != nil, x.lost || x.astray()
	if s != *x.shown.Load() {
		x.shown.Store(&s)
	}
	x.showHome()
}

// open opens the directory unless it is open, and sees whether it is still the one that is watched.
func (w *work) open() bool {
	if w.h != nil {
		return true
	}
	h, err := openHandle(w.root)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		w.stats.Errors++
		h, err = pathHandle(w.root)
	}
	if err != nil {
		w.err = err
		w.lose(err)
		return false
	}
	w.h = h
	if !h.id.is(w.dir) || w.lost || w.watch != nil && w.watch.wd < 0 {
		return w.adopt()
	}
	return true
}

func (w *work) shut() {
	if w.h != nil {
		w.h.close()
		w.h = nil
	}
}

// adopt makes the directory that root names now the one that is watched.
func (w *work) adopt() bool {
	for range 8 {
		if w.watch != nil {
			if err := w.watch.add(w.root); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
				w.unwatch(err)
			} else if err != nil {
				w.err = err
				w.shut()
				w.lose(err)
				return false
			}
		}
		// The watch was added by path: only when the path still leads to what we have open, both are one.
		if id, err := statRoot(w.root); err == nil && id.is(w.h.id) {
			w.moveTo(w.h.id)
			w.place()
			w.lost, w.needScan, w.trusted = false, true, false
			w.homes++
			w.edit().raiseFloor() // what happened in between is not known
			w.poke()
			return true
		}
		w.shut()
		h, err := openHandle(w.root)
		if err != nil {
			w.err = err
			w.lose(err)
			return false
		}
		w.h = h
	}
	w.err = errors.New("it is replaced again and again")
	w.shut()
	w.lose(w.err)
	return false
}

// place looks what file system root is on now: one that belongs there may be mounted after we have begun.
func (w *work) place() {
	was := w.remote
	w.remote = w.system.remoteFS(w.root)
	if w.remote == "" {
		w.due.Reset(w.system.verifyEvery)
		return
	}
	w.due.Stop() // the background reads it often enough, and not while a request waits
	if w.remote != was {
		w.told.log(w.log, slog.LevelWarn, "spool directory is on a file system that others can write to unseen: their changes show within 5 s",
			slog.String("directory", w.root), slog.String("file_system", w.remote))
	}
}

// lose is when the directory is gone, or may not be read any more. What it said last stands: that a
// directory is missing is no word of an operator.
func (w *work) lose(err error) {
	w.problem = err
	if w.lost || w.quiet {
		w.lost = true
		return
	}
	w.lost, w.loggedLost = true, true
	w.stats.Errors++
	if errors.Is(err, unix.ENOENT) && w.mono.Sub(w.recentAt) <= goneWindow {
		// `rm -r` removes the files first. Those it took go back with the rest.
		for _, f := range w.recent {
			if w.files[f.name] == nil {
				w.store(f)
				w.resolve(f.key)
			}
		}
	}
	w.recent = nil
	w.show()
	w.told.log(w.log, slog.LevelError, "spool directory is lost: the last known overrides stand until it is back; mount it or make it again, readable for hacheck's user",
		slog.String("directory", w.root), slog.String("error", err.Error()), slog.Int("overrides", w.inForce))
	w.poke()
}

// stillThere is asked before an override counts as ended because its file is gone: if the directory went
// with it, nobody has said so.
func (w *work) stillThere() bool {
	if !w.ended || w.lost {
		return true
	}
	w.ended = false
	if id, err := statRoot(w.root); err == nil && id.is(w.dir) {
		return true
	}
	w.shut()
	w.open()
	return false
}

// verify looks whether root still names the directory that is watched, and at what no event tells.
func (w *work) verify(todo uint32) {
	if w.mono.Sub(w.recentAt) > goneWindow {
		w.recent = nil
	}
	if w.watch == nil {
		if w.openWatch(); w.watch != nil {
			w.show() // to be watched from now on: it has no directory yet
			w.told.log(w.log, slog.LevelInfo, "inotify is back", slog.String("directory", w.root))
		}
	}
	w.shut()
	w.open()
	if todo&attDue != 0 {
		w.attention.And(^attDue)
		if w.remote == "" { // the background looks after those, off the path of requests
			w.due.Reset(w.system.verifyEvery)
		}
	}
	roomAgain := w.crowded && len(w.files) < w.system.maxFiles/10*9
	if w.watch == nil || w.remote != "" || roomAgain || todo&attScan != 0 {
		w.needScan = true
	}
	for _, p := range w.parked {
		p.next = w.mono
	}
}

// take takes up what the events of b are about. Plain deletions come last: when there are no others, they
// may be the beginning of the directory's own end.
func (w *work) take(b *batch) {
	for _, deletions := range []bool{false, true} {
		for name, deleted := range b.names {
			if deleted == deletions {
				w.event(name)
				if !deleted {
					w.recent = nil
				}
			}
		}
	}
}

// event takes up that something has happened to the file name.
func (w *work) event(name string) {
	for link := range w.links[name] {
		w.load(link, false)
	}
	if _, ok := parkedName(name); ok {
		w.park(name)
		if p := w.parked[name]; p != nil {
			p.next = w.mono
		}
		return
	}
	if lifted, ok := strings.CutPrefix(name, endPrefix); ok {
		w.lift(lifted)
		return
	}
	before := w.files[name]
	w.load(name, true)
	if f := w.files[name]; f != nil && f.kept && before != nil && before.kept {
		w.bury(f) // perhaps it may be removed by now
	}
}

// load reads the file name and takes up what it says. told means that an event has named it.
func (w *work) load(name string, told bool) {
	k, err := ParseKey(name)
	if err != nil {
		if !isOwn(name) {
			var st unix.Stat_t
			if unix.Fstatat(w.h.fd, w.h.at(name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				w.ignore(name, err.Error())
			}
		}
		return
	}
	r := w.h.read(name, typeUnknown)
	e, ok := r.entry(k)
	w.put(name, k, &r, e, ok, told)
}

// put takes up that r was found under name, which is the override e if ok.
func (w *work) put(name string, k Key, r *reading, e Entry, ok, told bool) {
	w.stats.Reloads++
	old := w.files[name]
	if r.found == noFile {
		w.ignore(name, r.why)
	}
	if old != nil && old.from != nil && !ok && (!told || r.found != absent) {
		return // carried: that another directory has no such file is no word of an operator
	}
	if !ok && len(r.via) == 0 && !r.deep { // nothing there that could become an override without an event
		if old == nil {
			if told && w.slotOf(k).entry == nil {
				w.edit().end(k) // something was there since the last event
			}
			return
		}
		if w.last && old.entry != nil {
			w.later(old)
			return
		}
		if r.found == absent && old.entry != nil && !old.over {
			w.ended = true
			w.bereave(old)
		}
		w.drop(old)
		w.resolve(k)
		return
	}
	if old == nil {
		w.recent = nil // no `rm -r` makes files
	}
	f := &file{name: name, key: k, via: r.via, deep: r.deep, gen: w.gen}
	switch {
	case r.found == failed:
		w.stats.Errors++
		f.again = true
		if old != nil && old.entry != nil { // it was known before it could not be read
			f.entry, f.from = old.entry, old.from
		} else {
			f.entry = &e
		}
		if old == nil || !old.again {
			w.told.log(w.log, slog.LevelError, "spool file cannot be read for now, and counts as down unless it was known",
				slog.String("name", name), slog.String("error", r.err.Error()))
		}
	case ok:
		f.entry = &e
	}
	if old != nil {
		if w.last && old.entry != nil && (f.entry == nil || f.entry.State < old.entry.State) {
			w.later(old)
			return
		}
		if old.entry != nil && f.entry != nil && *old.entry == *f.entry {
			f.entry, f.kept = old.entry, old.kept // unchanged
		}
		if old.entry != nil && f.entry == nil && !old.over { // a link whose file is gone
			w.ended = true
			w.bereave(old)
		}
	} else if len(w.files) >= w.system.maxFiles {
		w.crowded = true
		if !w.crowdSaid {
			w.crowdSaid = true
			w.told.log(w.log, slog.LevelError, "too many spool files: for those beyond the limit every request looks at the disk, and no result is reused",
				slog.String("directory", w.root), slog.Int("limit", w.system.maxFiles))
		}
		return
	}
	f.over = f.entry != nil && f.entry.Expired(w.now)
	if old != nil {
		w.drop(old)
	}
	w.store(f)
	w.resolve(k)
	if f.over && !f.kept {
		w.bury(f)
	}
}

// later leaves f as it is for now and has it read at the next lookup. The last round may only add to what
// is said: what ended in it might belong to something that was not read.
func (w *work) later(f *file) {
	f.again = true
	w.restless[f.name] = true
}

// bereave remembers a deleted file in case its directory goes next.
func (w *work) bereave(f *file) {
	if w.mono.Sub(w.recentAt) > goneGap {
		w.recent = nil
	}
	w.recent, w.recentAt = append(w.recent, f), w.mono
	if w.goneCheck.IsZero() {
		w.goneCheck = w.mono.Add(goneDelay)
	}
}

// store and drop keep the tables by file name; resolve has to follow.
func (w *work) store(f *file) {
	w.files[f.name] = f
	if f.name != f.key.Name() {
		w.aliases[f.key] = append(w.aliases[f.key], f.name)
	}
	for _, name := range f.via {
		if w.links[name] == nil {
			w.links[name] = map[string]bool{}
		}
		w.links[name][f.name] = true
	}
	if f.again || f.deep {
		w.restless[f.name] = true
	}
	if f.from != nil {
		w.carried++
	}
	if f.entry != nil && !f.over {
		w.inForce++
		if e := f.entry.Expires; !e.IsZero() && (w.expiry.IsZero() || e.Before(w.expiry)) {
			w.expiry = e
		}
	}
}

func (w *work) drop(f *file) {
	delete(w.files, f.name)
	delete(w.restless, f.name)
	if f.from != nil {
		w.carried--
	}
	if f.name != f.key.Name() {
		names := slices.DeleteFunc(w.aliases[f.key], func(name string) bool { return name == f.name })
		if w.aliases[f.key] = names; len(names) == 0 {
			delete(w.aliases, f.key)
		}
	}
	for _, name := range f.via {
		if delete(w.links[name], f.name); len(w.links[name]) == 0 {
			delete(w.links, name)
		}
	}
	if f.entry != nil && !f.over {
		w.inForce--
	}
}

// filesOf returns the files that are about k.
func (x *Index) filesOf(k Key) []*file {
	var list []*file
	if f := x.files[k.Name()]; f != nil {
		list = append(list, f)
	}
	for _, name := range x.aliases[k] {
		list = append(list, x.files[name])
	}
	return list
}

// slotOf returns k's slot as it will be published.
func (x *Index) slotOf(k Key) slot {
	if x.draft != nil {
		return x.draft.slot(k)
	}
	return x.snap.Load().slot(k)
}

// resolve makes k's slot say what its files do.
func (w *work) resolve(k Key) {
	var s slot
	for _, f := range w.filesOf(k) {
		switch {
		case f.entry == nil:
		case f.over:
			if s.late == nil || f.entry.Expires.After(s.late.Expires) {
				s.late = f.entry
			}
		case s.entry == nil || outlasts(f.entry, s.entry):
			s.entry = f.entry
		}
	}
	old := w.slotOf(k)
	s.ended = old.ended
	if s == old {
		return
	}
	w.changes++
	if old.entry != nil && old.entry.State == Maint && (s.entry == nil || s.entry.State != Maint) {
		w.maints.end(k, time.Now())
	}
	d := w.edit()
	d.set(k, s)
	if old.entry != nil && s.entry == nil {
		d.end(k)
	}
	if old.entry != s.entry && !w.quiet {
		w.changed = append(w.changed, Change{
			Key: k, Old: old.entry, New: s.entry,
			Expired: old.entry != nil && old.entry.Expired(w.now),
		})
	}
}

// isOwn reports whether name is one of our own files that are no override.
func isOwn(name string) bool { return len(name) > len(ownPrefix) && name[:len(ownPrefix)] == ownPrefix }

// ignore logs once that the file name does not count.
func (w *work) ignore(name, why string) {
	if w.ignored[name] || len(w.ignored) > maxIgnored {
		return
	}
	w.ignored[name] = true
	w.stats.Ignored++
	if len(w.ignored) > maxIgnored {
		w.told.write(w.log, slog.LevelWarn, "more files in the spool directory are no overrides; no more is said of them", slog.String("directory", w.root))
		return
	}
	w.told.write(w.log, slog.LevelWarn, "file in the spool directory is ignored", slog.String("name", name), slog.String("why", why))
}

// scanIfNeeded reads the whole directory when that is due, and reports whether it did.
func (w *work) scanIfNeeded() bool {
	if !w.needScan || !w.open() || w.h.dir != "" { // without a descriptor there is no listing
		return false
	}
	w.stats.Rescans++
	w.crowded = false
	if !w.list(false) {
		return false // needScan stands, and so does what was known
	}
	w.sweep = false
	w.needScan = false
	return true
}

// list goes through the names of the directory and reads the files: all of them, or only the new ones.
// It reports whether it came to the end.
func (w *work) list(onlyNew bool) bool {
	w.gen++
	var portion []listed
	err := w.h.each(func(name string, typ fs.FileMode) {
		f := w.files[name]
		if f != nil {
			f.gen = w.gen
			if onlyNew {
				return
			}
		}
		if _, ok := parkedName(name); ok {
			w.park(name)
			return
		}
		k, err := ParseKey(name)
		switch {
		case err == nil:
			portion = append(portion, listed{name: name, typ: typ, key: k})
			if len(portion) == 1024 {
				w.takeListed(portion)
				portion = portion[:0]
			}
		case !isOwn(name):
			w.ignore(name, err.Error())
		case w.sweep:
			w.h.sweep(name)
		}
	})
	if err != nil {
		w.err = err
		w.stats.Errors++
		return false
	}
	w.takeListed(portion)
	// A listing may miss a file that is replaced meanwhile. That one is gone has to be seen by name.
	var unseen []string
	for name, f := range w.files {
		if f.gen != w.gen {
			unseen = append(unseen, name)
		}
	}
	for _, name := range unseen {
		w.load(name, false)
	}
	return true
}

// listed is a file that a listing has named.
type listed struct {
	name  string
	typ   fs.FileMode
	key   Key
	r     reading
	entry Entry
	ok    bool
}

// takeListed reads the files of a listing, many of them on all processors, and takes them up.
func (w *work) takeListed(files []listed) {
	read := func(h *handle, files []listed) {
		for i := range files {
			f := &files[i]
			f.r = h.read(f.name, f.typ)
			f.entry, f.ok = f.r.entry(f.key)
			f.r.content = nil // the next one reads into the same memory
		}
	}
	const worthIt = 128
	if share := len(files)/min(runtime.GOMAXPROCS(0), 4) + 1; share >= worthIt {
		var wg sync.WaitGroup
		for part := range slices.Chunk(files, share) {
			wg.Go(func() { read(&handle{root: w.h.root, fd: w.h.fd, dir: w.h.dir, id: w.h.id}, part) })
		}
		wg.Wait()
	} else {
		read(w.h, files)
	}
	for i := range files {
		f := &files[i]
		if f.r.found == absent {
			w.changes++ // it was moved or replaced since it was listed, and what took its place was not seen
		}
		w.put(f.name, f.key, &f.r, f.entry, f.ok, false)
	}
}

// lookAgain reads the files that no event tells about: those that could not be read, those behind
// subdirectories, and without inotify all that are about t. Rounds go on until nothing changes any more, so
// that what it has seen was all there at once.
func (w *work) lookAgain(t *query, todo uint32) {
	if w.watch == nil {
		w.poll()
	}
	if len(w.restless) > 0 && todo&attDue != 0 {
		for name := range w.restless {
			w.reload(name)
		}
	}
	// Where the names cannot be listed, for want of descriptors, each is asked for by itself.
	blind := w.needScan || w.watch == nil && !w.trusted
	if t != nil && (blind || w.watch == nil || len(w.restless) > 0) {
		for _, k := range t.keys() {
			if name := k.Name(); blind && w.files[name] == nil {
				w.reload(name)
			}
			for _, f := range w.filesOf(k) {
				if w.watch == nil || f.again || f.deep {
					w.reload(f.name)
				}
			}
		}
	}
}

func (w *work) reload(name string) {
	if w.open() {
		w.load(name, false)
	}
}
