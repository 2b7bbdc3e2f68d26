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

// spoolFile is one file of the directory that is an override, or a symbolic link that may become one.
type spoolFile struct {
	name  string
	key   Key
	entry *Entry   // nil when the link leads nowhere
	expired  bool     // entry has expired
	retry bool     // could not be read, or was not looked at to the end: read it at the next lookup
	unwatched  bool     // behind a subdirectory, which no event of ours tells about
	via   []string // the names in the directory that the link leads over
	removeFailed  bool     // expired, and could not be removed, which has been said
	carriedFrom  *dirID   // of a carried override: the directory where it was; nil for the one that is watched
	listing   uint64   // of the last full reading that saw it
}

// eventBatch is what the kernel has told in one go.
type eventBatch struct {
	names    map[string]bool // whether the last event of the name was a plain deletion
	overflow bool
	// unmounted says that the file system of the directory is gone.
	unmounted bool
	count     uint64 // also of those about the directory itself
}

func (b *eventBatch) add(name string, deleted bool) {
	if b.names == nil {
		b.names = map[string]bool{}
	}
	b.names[name] = deleted
}

// update is one round of bringing an index up to date, under its lock.
type update struct {
	*Index
	handle       *dirHandle
	now     time.Time // wall clock, which expirations are about
	mono    time.Time
	changes int // of slots so far, and of what was no longer as it had just been
	notifications []Change
	deletions   bool  // an override has ended because its file is gone
	lastRound    bool  // no more rounds after this one
	removeAbandoned   bool  // remove what killed writers have left behind
	err     error // of the last attempt to open or list the directory
}

func (x *Index) newUpdate() *update { return &update{Index: x, now: x.now(), mono: time.Now()} }

// update brings the index up to date for t, or as a whole when t is nil. more is what to do besides what
// x.attention says. x.mu is held.
func (x *Index) update(t *query, more uint32) {
	if x.closed {
		return
	}
	w := x.newUpdate()
	w.run(t, x.attention.Load()|more)
	w.finish()
}

// run repeats until there is nothing left to read. That matters: the files are read after the events, and
// may already say what later events, not yet read, would tell together with something else. With
// `hadown web; haup all`, having seen `all` go, the event of `web` must be read before anybody is answered.
func (w *update) run(t *query, todo uint32) {
	if !w.deletionCheck.IsZero() && !w.deletionCheck.After(w.mono) {
		w.deletionCheck = time.Time{}
		todo |= attVerify
	}
	for round := range maxRounds {
		w.lastRound = round == maxRounds-1 || round > 0 && time.Since(w.mono) > maxRun
		before, home := w.changes, w.generation
		b := w.events()
		again := b.count > 0
		switch {
		case todo&(attVerify|attScan) != 0:
			w.verify(todo)
			again = true
		case b.count > 0:
			w.openDir() // whether it is still our directory has to be asked before its files are believed
		}
		if !w.lost {
			if w.generation == home { // else they are about files of the directory before
				w.applyEvents(&b)
			}
			again = w.scanIfNeeded() || again
			w.reloadUnwatched(t, todo)
		}
		w.expire(t, todo)
		w.checkAsideFiles()
		if !again && w.changes == before && w.confirmDeletions() {
			return
		}
		if w.lastRound {
			break
		}
		todo = 0
	}
	w.confirmDeletions()
}

// events reads what the kernel has queued. Before an event leaves the queue, attDirty is set: whoever
// finds the queue empty from then on waits for us.
func (w *update) events() (b eventBatch) {
	if w.watch == nil || !pending(w.fd.Load()) {
		return b
	}
	w.attention.Or(attDirty)
	if err := w.watch.drain(&b); err != nil {
		w.stats.Errors++
		w.dropWatch(err)
		b.count++
		w.needScan = true
	}
	w.stats.Events += b.count
	w.unmounted = w.unmounted || b.unmounted
	if b.overflow {
		w.stats.Overflows++
		w.needScan = true
		w.edit().outdateAll() // which overrides came and went is not known
	}
	return b
}

// dropWatch does without inotify from now on; it is tried again with the next verification.
func (w *update) dropWatch(err error) {
	w.notify.log(w.log, slog.LevelWarn, "inotify fails: every request looks at the spool directory instead",
		slog.String("directory", w.root), slog.String("error", err.Error()))
	w.attention.Or(attPoll) // before lookups miss the descriptor
	w.fd.Store(-1)
	w.watch.close()
	w.watch = nil
	w.wakeFollower()
}

// edit returns the next snapshot.
func (x *Index) edit() *builder {
	if x.draft == nil {
		x.draft = newBuilder(x.snapshot.Load())
	}
	return x.draft
}

// finish publishes, and says when to look again.
func (w *update) finish() {
	x := w.Index
	if w.handle != nil {
		w.handle.close()
	}
	if x.draft != nil {
		x.snapshot.Store(&x.draft.snapshot)
		x.draft = nil
	}
	w.logDirectory()
	x.publishStats()
	for _, c := range w.notifications { // now that whoever is told can see it
		x.notify.change(c)
	}
	var keep uint32
	if x.watch == nil {
		keep |= attPoll
	}
	if len(x.alwaysReload) > 0 {
		keep |= attReload
	}
	if x.tooMany {
		keep |= attTooManyFiles
	}
	if x.needScan && !x.lost {
		keep |= attScan
	}
	// First set, then clear: at no instant may a lookup find less than it has to know. attDue is not ours
	// here, its timer may set it at any time.
	x.attention.Or(keep)
	x.attention.And(keep | attVerify | attClosed)

	wait := maxTimer
	if !x.nextExpiry.IsZero() {
		wait = min(wait, x.nextExpiry.Sub(w.now))
	}
	for _, p := range x.parked {
		if !x.lost { // nothing can be done for them until the directory is back
			wait = min(wait, p.checkAt.Sub(w.mono))
		}
	}
	if !x.deletionCheck.IsZero() {
		wait = min(wait, x.deletionCheck.Sub(w.mono))
	}
	switch {
	case wait < maxTimer || !x.nextExpiry.IsZero():
		x.expiryTimer.Reset(max(wait, time.Millisecond))
	default:
		x.expiryTimer.Stop()
	}
}

// publishStats publishes the counters. It comes before whoever may look at them is told.
func (x *Index) publishStats() {
	s := x.stats
	s.Overrides, s.Watching, s.Lost = x.inForce, x.watch != nil, x.lost || x.displaced()
	if s != *x.statsView.Load() {
		x.statsView.Store(&s)
	}
	x.publishStatus()
}

// openDir opens the directory unless it is open, and sees whether it is still the one that is watched.
func (w *update) openDir() bool {
	if w.handle != nil {
		return true
	}
	h, err := openHandle(w.root)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		w.stats.Errors++
		h, err = openByPath(w.root)
	}
	if err != nil {
		w.err = err
		w.markLost(err)
		return false
	}
	w.handle = h
	if !h.id.sameOnMount(w.id) || w.lost || w.watch != nil && w.watch.wd < 0 {
		return w.rewatch()
	}
	return true
}

func (w *update) closeDir() {
	if w.handle != nil {
		w.handle.close()
		w.handle = nil
	}
}

// rewatch makes the directory that root names now the one that is watched.
func (w *update) rewatch() bool {
	for range 8 {
		if w.watch != nil {
			if err := w.watch.add(w.root); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
				w.dropWatch(err)
			} else if err != nil {
				w.err = err
				w.closeDir()
				w.markLost(err)
				return false
			}
		}
		// The watch was added by path: only when the path still leads to what we have open, both are one.
		if id, err := statRoot(w.root); err == nil && id.sameOnMount(w.handle.id) {
			w.setDir(w.handle.id)
			w.detectFileSystem()
			w.lost, w.needScan, w.stampReliable = false, true, false
			w.generation++
			w.edit().outdateAll() // what happened in between is not known
			w.wakeFollower()
			return true
		}
		w.closeDir()
		h, err := openHandle(w.root)
		if err != nil {
			w.err = err
			w.markLost(err)
			return false
		}
		w.handle = h
	}
	w.err = errors.New("it is replaced again and again")
	w.closeDir()
	w.markLost(w.err)
	return false
}

// detectFileSystem looks what file system root is on now: one that belongs there may be mounted after we have begun.
func (w *update) detectFileSystem() {
	was := w.remoteFS
	w.remoteFS = w.system.remoteFS(w.root)
	if w.remoteFS == "" {
		w.verifyTimer.Reset(w.system.verifyEvery)
		return
	}
	w.verifyTimer.Stop() // the background reads it often enough, and not while a request waits
	if w.remoteFS != was {
		w.notify.log(w.log, slog.LevelWarn, "spool directory is on a file system that others can write to unseen: their changes show within 5 s",
			slog.String("directory", w.root), slog.String("file_system", w.remoteFS))
	}
}

// markLost is when the directory is gone, or may not be read any more. What it said last stands: that a
// directory is missing is no word of an operator.
func (w *update) markLost(err error) {
	w.lostReason = err
	if w.lost || w.loading {
		w.lost = true
		return
	}
	w.lost, w.loggedLost = true, true
	w.stats.Errors++
	if errors.Is(err, unix.ENOENT) && w.mono.Sub(w.deletedAt) <= deletionWindow {
		// `rm -r` removes the files first. Those it took go back with the rest.
		for _, f := range w.deleted {
			if w.byName[f.name] == nil {
				w.store(f)
				w.resolve(f.key)
			}
		}
	}
	w.deleted = nil
	w.publishStats()
	w.notify.log(w.log, slog.LevelError, "spool directory is lost: the last known overrides stand until it is back; mount it or make it again, readable for hacheck's user",
		slog.String("directory", w.root), slog.String("error", err.Error()), slog.Int("overrides", w.inForce))
	w.wakeFollower()
}

// confirmDeletions is asked before an override counts as ended because its file is gone: if the directory went
// with it, nobody has said so.
func (w *update) confirmDeletions() bool {
	if !w.deletions || w.lost {
		return true
	}
	w.deletions = false
	if id, err := statRoot(w.root); err == nil && id.sameOnMount(w.id) {
		return true
	}
	w.closeDir()
	w.openDir()
	return false
}

// verify looks whether root still names the directory that is watched, and at what no event tells.
func (w *update) verify(todo uint32) {
	if w.mono.Sub(w.deletedAt) > deletionWindow {
		w.deleted = nil
	}
	if w.watch == nil {
		if w.openWatch(); w.watch != nil {
			w.publishStats() // to be watched from now on: it has no directory yet
			w.notify.log(w.log, slog.LevelInfo, "inotify is back", slog.String("directory", w.root))
		}
	}
	w.closeDir()
	w.openDir()
	if todo&attVerify != 0 {
		w.attention.And(^attVerify)
		if w.remoteFS == "" { // the background looks after those, off the path of requests
			w.verifyTimer.Reset(w.system.verifyEvery)
		}
	}
	roomAgain := w.tooMany && len(w.byName) < w.system.maxFiles/10*9
	if w.watch == nil || w.remoteFS != "" || roomAgain || todo&attScan != 0 {
		w.needScan = true
	}
	for _, p := range w.parked {
		p.checkAt = w.mono
	}
}

// applyEvents takes up what the events of b are about. Plain deletions come last: when there are no others, they
// may be the beginning of the directory's own end.
func (w *update) applyEvents(b *eventBatch) {
	for _, deletions := range []bool{false, true} {
		for name, deleted := range b.names {
			if deleted == deletions {
				w.applyEvent(name)
				if !deleted {
					w.deleted = nil
				}
			}
		}
	}
}

// applyEvent takes up that something has happened to the file name.
func (w *update) applyEvent(name string) {
	for link := range w.linksTo[name] {
		w.reload(link, false)
	}
	if _, ok := originalName(name); ok {
		w.trackAside(name)
		if p := w.parked[name]; p != nil {
			p.checkAt = w.mono
		}
		return
	}
	if lifted, ok := strings.CutPrefix(name, liftPrefix); ok {
		w.liftCarried(lifted)
		return
	}
	before := w.byName[name]
	w.reload(name, true)
	if f := w.byName[name]; f != nil && f.removeFailed && before != nil && before.removeFailed {
		w.setAside(f) // perhaps it may be removed by now
	}
}

// reload reads the file name and takes up what it says. told means that an event has named it.
func (w *update) reload(name string, told bool) {
	k, err := ParseKey(name)
	if err != nil {
		if !isOwnFile(name) {
			var st unix.Stat_t
			if unix.Fstatat(w.handle.fd, w.handle.path(name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				w.logIgnored(name, err.Error())
			}
		}
		return
	}
	r := w.handle.read(name, typeUnknown)
	e, ok := r.entry(k)
	w.apply(name, k, &r, e, ok, told)
}

// apply takes up that r was found under name, which is the override e if ok.
func (w *update) apply(name string, k Key, r *readResult, e Entry, ok, told bool) {
	w.stats.Reloads++
	old := w.byName[name]
	if r.status == notRegular {
		w.logIgnored(name, r.reason)
	}
	if old != nil && old.carriedFrom != nil && !ok && (!told || r.status != notFound) {
		return // carried: that another directory has no such file is no word of an operator
	}
	if !ok && len(r.via) == 0 && !r.unwatched { // nothing there that could become an override without an event
		if old == nil {
			if told && w.slotOf(k).entry == nil {
				w.edit().end(k) // something was there since the last event
			}
			return
		}
		if w.lastRound && old.entry != nil {
			w.postpone(old)
			return
		}
		if r.status == notFound && old.entry != nil && !old.expired {
			w.deletions = true
			w.recordDeletion(old)
		}
		w.drop(old)
		w.resolve(k)
		return
	}
	if old == nil {
		w.deleted = nil // no `rm -r` makes files
	}
	f := &spoolFile{name: name, key: k, via: r.via, unwatched: r.unwatched, listing: w.listing}
	switch {
	case r.status == readFailed:
		w.stats.Errors++
		f.retry = true
		if old != nil && old.entry != nil { // it was known before it could not be read
			f.entry, f.carriedFrom = old.entry, old.carriedFrom
		} else {
			f.entry = &e
		}
		if old == nil || !old.retry {
			w.notify.log(w.log, slog.LevelError, "spool file cannot be read for now, and counts as down unless it was known",
				slog.String("name", name), slog.String("error", r.err.Error()))
		}
	case ok:
		f.entry = &e
	}
	if old != nil {
		if w.lastRound && old.entry != nil && (f.entry == nil || f.entry.State < old.entry.State) {
			w.postpone(old)
			return
		}
		if old.entry != nil && f.entry != nil && *old.entry == *f.entry {
			f.entry, f.removeFailed = old.entry, old.removeFailed // unchanged
		}
		if old.entry != nil && f.entry == nil && !old.expired { // a link whose file is gone
			w.deletions = true
			w.recordDeletion(old)
		}
	} else if len(w.byName) >= w.system.maxFiles {
		w.tooMany = true
		if !w.loggedTooMany {
			w.loggedTooMany = true
			w.notify.log(w.log, slog.LevelError, "too many spool files: for those beyond the limit every request looks at the disk, and no result is reused",
				slog.String("directory", w.root), slog.Int("limit", w.system.maxFiles))
		}
		return
	}
	f.expired = f.entry != nil && f.entry.Expired(w.now)
	if old != nil {
		w.drop(old)
	}
	w.store(f)
	w.resolve(k)
	if f.expired && !f.removeFailed {
		w.setAside(f)
	}
}

// postpone leaves f as it is for now and has it read at the next lookup. The last round may only add to what
// is said: what ended in it might belong to something that was not read.
func (w *update) postpone(f *spoolFile) {
	f.retry = true
	w.alwaysReload[f.name] = true
}

// recordDeletion remembers a deleted file in case its directory goes next.
func (w *update) recordDeletion(f *spoolFile) {
	if w.mono.Sub(w.deletedAt) > deletionGap {
		w.deleted = nil
	}
	w.deleted, w.deletedAt = append(w.deleted, f), w.mono
	if w.deletionCheck.IsZero() {
		w.deletionCheck = w.mono.Add(deletionCheckDelay)
	}
}

// store and drop keep the tables by file name; resolve has to follow.
func (w *update) store(f *spoolFile) {
	w.byName[f.name] = f
	if f.name != f.key.Name() {
		w.aliases[f.key] = append(w.aliases[f.key], f.name)
	}
	for _, name := range f.via {
		if w.linksTo[name] == nil {
			w.linksTo[name] = map[string]bool{}
		}
		w.linksTo[name][f.name] = true
	}
	if f.retry || f.unwatched {
		w.alwaysReload[f.name] = true
	}
	if f.carriedFrom != nil {
		w.carried++
	}
	if f.entry != nil && !f.expired {
		w.inForce++
		if e := f.entry.Expires; !e.IsZero() && (w.nextExpiry.IsZero() || e.Before(w.nextExpiry)) {
			w.nextExpiry = e
		}
	}
}

func (w *update) drop(f *spoolFile) {
	delete(w.byName, f.name)
	delete(w.alwaysReload, f.name)
	if f.carriedFrom != nil {
		w.carried--
	}
	if f.name != f.key.Name() {
		names := slices.DeleteFunc(w.aliases[f.key], func(name string) bool { return name == f.name })
		if w.aliases[f.key] = names; len(names) == 0 {
			delete(w.aliases, f.key)
		}
	}
	for _, name := range f.via {
		if delete(w.linksTo[name], f.name); len(w.linksTo[name]) == 0 {
			delete(w.linksTo, name)
		}
	}
	if f.entry != nil && !f.expired {
		w.inForce--
	}
}

// filesOf returns the files that are about k.
func (x *Index) filesOf(k Key) []*spoolFile {
	var list []*spoolFile
	if f := x.byName[k.Name()]; f != nil {
		list = append(list, f)
	}
	for _, name := range x.aliases[k] {
		list = append(list, x.byName[name])
	}
	return list
}

// slotOf returns k's slot as it will be published.
func (x *Index) slotOf(k Key) slot {
	if x.draft != nil {
		return x.draft.slot(k)
	}
	return x.snapshot.Load().slot(k)
}

// resolve makes k's slot say what its files do.
func (w *update) resolve(k Key) {
	var s slot
	for _, f := range w.filesOf(k) {
		switch {
		case f.entry == nil:
		case f.expired:
			if s.expired == nil || f.entry.Expires.After(s.expired.Expires) {
				s.expired = f.entry
			}
		case s.entry == nil || isStronger(f.entry, s.entry):
			s.entry = f.entry
		}
	}
	old := w.slotOf(k)
	s.endedAt = old.endedAt
	if s == old {
		return
	}
	w.changes++
	if old.entry != nil && old.entry.State == Maint && (s.entry == nil || s.entry.State != Maint) {
		w.maints.record(k, time.Now())
	}
	d := w.edit()
	d.set(k, s)
	if old.entry != nil && s.entry == nil {
		d.end(k)
	}
	if old.entry != s.entry && !w.loading {
		w.notifications = append(w.notifications, Change{
			Key: k, Old: old.entry, New: s.entry,
			Expired: old.entry != nil && old.entry.Expired(w.now),
		})
	}
}

// isOwnFile reports whether name is one of our own files that are no override.
func isOwnFile(name string) bool { return len(name) > len(ownPrefix) && name[:len(ownPrefix)] == ownPrefix }

// logIgnored logs once that the file name does not count.
func (w *update) logIgnored(name, why string) {
	if w.ignored[name] || len(w.ignored) > maxIgnored {
		return
	}
	w.ignored[name] = true
	w.stats.Ignored++
	if len(w.ignored) > maxIgnored {
		w.notify.logUnlimited(w.log, slog.LevelWarn, "more files in the spool directory are no overrides; no more is said of them", slog.String("directory", w.root))
		return
	}
	w.notify.logUnlimited(w.log, slog.LevelWarn, "file in the spool directory is ignored", slog.String("name", name), slog.String("why", why))
}

// scanIfNeeded reads the whole directory when that is due, and reports whether it did.
func (w *update) scanIfNeeded() bool {
	if !w.needScan || !w.openDir() || w.handle.prefix != "" { // without a descriptor there is no listing
		return false
	}
	w.stats.Rescans++
	w.tooMany = false
	if !w.scan(false) {
		return false // needScan stands, and so does what was known
	}
	w.removeAbandoned = false
	w.needScan = false
	return true
}

// scan goes through the names of the directory and reads the files: all of them, or only the new ones.
// It reports whether it came to the end.
func (w *update) scan(onlyNew bool) bool {
	w.listing++
	var portion []listedFile
	err := w.handle.eachFile(func(name string, typ fs.FileMode) {
		f := w.byName[name]
		if f != nil {
			f.listing = w.listing
			if onlyNew {
				return
			}
		}
		if _, ok := originalName(name); ok {
			w.trackAside(name)
			return
		}
		k, err := ParseKey(name)
		switch {
		case err == nil:
			portion = append(portion, listedFile{name: name, typ: typ, key: k})
			if len(portion) == 1024 {
				w.applyListed(portion)
				portion = portion[:0]
			}
		case !isOwnFile(name):
			w.logIgnored(name, err.Error())
		case w.removeAbandoned:
			w.handle.removeIfAbandoned(name)
		}
	})
	if err != nil {
		w.err = err
		w.stats.Errors++
		return false
	}
	w.applyListed(portion)
	// A listing may miss a file that is replaced meanwhile. That one is gone has to be seen by name.
	var unseen []string
	for name, f := range w.byName {
		if f.listing != w.listing {
			unseen = append(unseen, name)
		}
	}
	for _, name := range unseen {
		w.reload(name, false)
	}
	return true
}

// listedFile is a file that a listing has named.
type listedFile struct {
	name  string
	typ   fs.FileMode
	key   Key
	r     readResult
	entry Entry
	ok    bool
}

// applyListed reads the files of a listing, many of them on all processors, and takes them up.
func (w *update) applyListed(files []listedFile) {
	read := func(h *dirHandle, files []listedFile) {
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
			wg.Go(func() { read(&dirHandle{root: w.handle.root, fd: w.handle.fd, prefix: w.handle.prefix, id: w.handle.id}, part) })
		}
		wg.Wait()
	} else {
		read(w.handle, files)
	}
	for i := range files {
		f := &files[i]
		if f.r.status == notFound {
			w.changes++ // it was moved or replaced since it was listed, and what took its place was not seen
		}
		w.apply(f.name, f.key, &f.r, f.entry, f.ok, false)
	}
}

// reloadUnwatched reads the files that no event tells about: those that could not be read, those behind
// subdirectories, and without inotify all that are about t. Rounds go on until nothing changes any more, so
// that what it has seen was all there at once.
func (w *update) reloadUnwatched(t *query, todo uint32) {
	if w.watch == nil {
		w.poll()
	}
	if len(w.alwaysReload) > 0 && todo&attVerify != 0 {
		for name := range w.alwaysReload {
			w.reloadOpen(name)
		}
	}
	// Where the names cannot be listed, for want of descriptors, each is asked for by itself.
	blind := w.needScan || w.watch == nil && !w.stampReliable
	if t != nil && (blind || w.watch == nil || len(w.alwaysReload) > 0) {
		for _, k := range t.keys() {
			if name := k.Name(); blind && w.byName[name] == nil {
				w.reloadOpen(name)
			}
			for _, f := range w.filesOf(k) {
				if w.watch == nil || f.retry || f.unwatched {
					w.reloadOpen(f.name)
				}
			}
		}
	}
}

func (w *update) reloadOpen(name string) {
	if w.openDir() {
		w.reload(name, false)
	}
}
