//go:build unix

package spool

import (
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	scanChunk        = 1024 // files of a listing that are read together
	minFilesPerShare = 128  // fewer are not worth a goroutine
	maxReaders       = 4    // goroutines that read a chunk
)

// scanIfNeeded lists the directory and reads all files if Index.needScan is set, and reports whether it did.
func (u *update) scanIfNeeded() bool {
	if !u.index.needScan || !u.openDir() || !u.handle.hasDescriptor() {
		return false
	}
	u.index.stats.Rescans++
	u.files.tooMany = false
	if !u.scan(false) {
		return false // needScan stays set, and the known overrides stand
	}
	u.removeAbandoned = false
	u.index.needScan = false
	return true
}

// scan lists the directory and reads all files, or only the new ones. It reports whether the listing was complete.
func (u *update) scan(onlyNew bool) bool {
	u.files.listing++
	var chunk []loadedFile
	weights := map[Key]bool{}
	err := u.handle.eachFile(func(name string, typ fs.FileMode) {
		if f := u.files.byName[name]; f != nil {
			f.listing = u.files.listing
			if onlyNew {
				return
			}
		}
		if _, ok := originalName(name); ok {
			u.trackAside(name)
			return
		}
		if k, ok := weightKey(name); ok {
			weights[k] = true
			if !onlyNew || u.pub.weights()[k] == nil {
				u.loadWeight(k, false)
			}
			return
		}
		k, err := ParseKey(name)
		switch {
		case err == nil:
			chunk = append(chunk, loadedFile{name: name, typ: typ, key: k})
			if len(chunk) == scanChunk {
				u.applyListed(chunk)
				chunk = chunk[:0]
			}
		case !isOwnFile(name):
			u.logIgnored(name, err.Error())
		case u.removeAbandoned:
			u.handle.removeIfAbandoned(name)
		}
	})
	if err != nil {
		u.err = err
		u.index.stats.Errors++
		return false
	}
	u.applyListed(chunk)
	// A listing may miss a file that is replaced meanwhile, so each missing file is asked for by name.
	var missing []string
	for name, f := range u.files.byName {
		if f.listing != u.files.listing {
			missing = append(missing, name)
		}
	}
	for _, name := range missing {
		u.load(name, false)
	}
	u.reloadWeights(weights)
	return true
}

// applyListed reads the files of a listing and applies them. It reads many files on several processors.
func (u *update) applyListed(files []loadedFile) {
	read := func(h *dirHandle, files []loadedFile) {
		for i := range files {
			files[i].read(h)
		}
	}
	if share := len(files)/min(runtime.GOMAXPROCS(0), maxReaders) + 1; share >= minFilesPerShare {
		var wg sync.WaitGroup
		for part := range slices.Chunk(files, share) {
			h := &dirHandle{root: u.handle.root, fd: u.handle.fd, prefix: u.handle.prefix, id: u.handle.id} // with its own buffer
			wg.Go(func() { read(h, part) })
		}
		wg.Wait()
	} else {
		read(u.handle, files)
	}
	for i := range files {
		if files[i].result.status == notFound {
			u.changes++ // it was moved or replaced since it was listed: list again
		}
		u.apply(&files[i])
	}
}

// reloadUnwatched reads the files that no event tells about: those that could not be read, those behind links into
// subdirectories, and without inotify all that are about q. An update repeats it until nothing changes, so that all it
// has read was there at one instant.
func (u *update) reloadUnwatched(q *query, todo uint32) {
	if u.index.watch == nil {
		u.poll()
	}
	if todo&attVerify != 0 {
		for name := range u.files.alwaysReload {
			u.reload(name)
		}
	}
	// If the directory cannot be listed, because the process has no descriptor left, each key's file is asked for by name.
	cannotList := u.index.needScan || u.index.watch == nil && !u.dir.stampReliable
	if q == nil || !cannotList && u.index.watch != nil && len(u.files.alwaysReload) == 0 {
		return
	}
	for _, k := range q.keys() {
		if name := k.Name(); cannotList && u.files.byName[name] == nil {
			u.reload(name)
		}
		for _, f := range u.files.of(k) {
			if u.index.watch == nil || f.retry || f.unwatched {
				u.reload(f.name)
			}
		}
		known := u.pub.weights()[k] != nil
		if (cannotList || known && u.index.watch == nil) && u.openDir() {
			u.loadWeight(k, false)
		}
	}
}

// poll replaces events where there is no inotify: it lists the new names if the time stamps of the directory have
// changed, or if they are not reliable. Lookups read the files of their target.
func (u *update) poll() {
	began := time.Now() // the clock of the stamps, not system.now
	stamp, err := statDir(unix.AT_FDCWD, u.dir.root)
	switch {
	case err != nil || !stamp.id.sameOnMount(u.dir.id):
		u.closeDir()
		if u.openDir() {
			u.scanIfNeeded()
		}
		return
	case stamp == u.dir.stamp && u.dir.stampReliable:
		return
	}
	u.dir.stampReliable = false // until the directory is listed; without a descriptor it cannot be
	if !u.openDir() || !u.handle.hasDescriptor() {
		return
	}
	if stamp != u.dir.stamp {
		u.pub.nextBuilder().outdateAll() // an override may have come and gone
	}
	if u.scan(true) {
		u.dir.stamp, u.dir.stampReliable = stamp, stamp.isReliable(began)
	}
}

// dirStamp changes when a name is added to or removed from a directory.
type dirStamp struct {
	id           dirID
	mtime, ctime time.Time
}

// isReliable reports whether every change after began gives the directory another stamp. The kernel's clock for time
// stamps ticks, and two changes within a tick leave the same stamp. So a listing only counts when it began clearly
// after the last change it can have seen.
func (s dirStamp) isReliable(began time.Time) bool {
	for _, ts := range []time.Time{s.mtime, s.ctime} {
		tick := mtimeTick
		if ts.Nanosecond() == 0 {
			tick = secondTick
		}
		if began.Sub(ts) < tick {
			return false
		}
	}
	return true
}
