//go:build unix

package spool

import "path/filepath"

// Stats are counters since OpenIndex, and the present state.
type Stats struct {
	Overrides int    // files in force, as last seen
	Events    uint64 // inotify events read
	Reloads   uint64 // files read
	Rescans   uint64 // listings of the whole directory
	Overflows uint64 // times the kernel dropped events
	Errors    uint64 // files or directories that could not be read
	Ignored   uint64 // names that are not overrides, each counted once, up to a bound
	Watching  bool   // inotify is in use
	Lost      bool   // the directory is gone, unreadable, or replaced by a mount; the last known overrides stand
}

// Stats returns the counters as of the last update. It neither reads the disk nor blocks.
func (x *Index) Stats() Stats { return *x.statsView.Load() }

// publishStats makes the counters visible to Stats and DirectoryStatus. Updates call it before they log or notify.
func (x *Index) publishStats() {
	s := x.stats
	s.Overrides, s.Watching, s.Lost = x.files.inForce, x.watch != nil, x.dir.lost || x.isDisplaced()
	if s != *x.statsView.Load() {
		x.statsView.Store(&s)
	}
	x.publishStatus()
}

// DirectoryStatus is the state of the directory that an Index reads.
type DirectoryStatus struct {
	Directory string `json:"directory"` // its absolute path
	Device    uint64 `json:"device"`    // of the directory that was read last
	Inode     uint64 `json:"inode"`
	Read      bool   `json:"read"`            // false: it is gone or cannot be read, and the last known overrides stand
	Lost      bool   `json:"lost"`            // as Stats.Lost
	Error     string `json:"error,omitempty"` // why it is not read
}

// DirectoryStatus returns the directory that x reads now. It checks the disk, unless another goroutine is updating x:
// then it returns the last known state without blocking.
func (x *Index) DirectoryStatus() DirectoryStatus {
	if !x.mu.TryLock() {
		return *x.statusView.Load()
	}
	defer x.mu.Unlock()
	var todo uint32
	if x.dir.lost || !x.dir.isCurrent() {
		todo = attVerify
	}
	x.update(nil, todo)
	return *x.statusView.Load()
}

func (x *Index) publishStatus() {
	d := &x.dir
	s := DirectoryStatus{Directory: d.root, Device: d.id.dev, Inode: d.id.ino, Read: !d.lost, Lost: d.lost || x.isDisplaced()}
	if d.lost && d.lostReason != nil {
		s.Error = d.lostReason.Error()
	}
	if s != *x.statusView.Load() {
		x.statusView.Store(&s)
	}
}

// DirectoryID returns the device and the inode number of the directory root, as in DirectoryStatus.
func DirectoryID(root string) (device, inode uint64, err error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return 0, 0, err
	}
	id, err := statRoot(path)
	if err != nil {
		return 0, 0, err
	}
	return id.dev, id.ino, nil
}
