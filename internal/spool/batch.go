//go:build unix

package spool

import (
	"errors"
	"fmt"
	"sync"
)

// Batch makes many calls of a Dir with one listing of the directory and one sync of it at the end. A key may have files
// of several names, so that each call of Dir.Remove lists the directory: 10,000 of them in a directory of 10,000 files
// took 26 s.
//
// A Batch does not know a file that another process creates meanwhile under an unusual name of a key, such as an IPv6
// address in brackets. Use it for one pass over the targets, not for the time of a wait. It is not safe for concurrent
// use.
type Batch struct {
	dir     *Dir
	handle  *dirHandle
	changed bool
}

// NewBatch opens the directory. The first call that needs a listing makes it. The caller must call Close.
func (d *Dir) NewBatch() (*Batch, error) {
	h, err := openHandle(d.root)
	if err != nil {
		return nil, dirError(err)
	}
	h.listOnce = true
	return &Batch{dir: d, handle: h}, nil
}

// Read is Dir.Read.
func (b *Batch) Read(k Key) (Entry, error) { return b.dir.lookup(b.handle, k.canonical(), true) }

// WriteAll is Dir.Write for each entry, and returns the error of each. Only Close makes the changes survive a power cut. It
// syncs maxSyncs files at the same time, so that the file system waits for the disk once for many of them.
func (b *Batch) WriteAll(entries []Entry) []error {
	errs := make([]error, len(entries))
	for start := 0; start < len(entries); start += maxSyncs {
		end := min(start+maxSyncs, len(entries))
		b.writeTogether(entries[start:end], errs[start:end])
	}
	return errs
}

// maxSyncs is how many files WriteAll syncs at the same time. Each of them is an open file and a thread that waits.
const maxSyncs = 64

// writeTogether is WriteAll for up to maxSyncs entries. It sets the error of each.
func (b *Batch) writeTogether(entries []Entry, errs []error) {
	prepared := make([]*preparedWrite, len(entries))
	var syncs sync.WaitGroup
	for i := range entries {
		prepared[i], errs[i] = b.dir.prepare(b.handle, entries[i])
	}
	for i, p := range prepared {
		if p != nil {
			syncs.Go(func() { errs[i] = p.file.Sync() })
		}
	}
	syncs.Wait()
	for i, e := range entries {
		switch p := prepared[i]; {
		case p == nil:
		case errs[i] != nil:
			p.discard()
		default:
			b.changed = true
			errs[i] = p.putInForce()
		}
		errs[i] = writeError(e.Key, errs[i])
	}
}

// Remove is Dir.Remove, but only Close makes the change survive a power cut.
func (b *Batch) Remove(k Key) error {
	removed, err := b.handle.remove(k)
	b.changed = b.changed || removed
	return removeError(k, err)
}

// EndWeight is Dir.EndWeight, but only Close makes the change survive a power cut.
func (b *Batch) EndWeight(k Key) error {
	ended, err := b.handle.endWeight(k, b.dir.now())
	b.changed = b.changed || ended
	return endWeightError(k, err)
}

// Close syncs the directory if the batch has changed it. The error wraps ErrNotDurable if the changes are done but a
// power cut may undo them. It does not if the path now leads to another directory, which has none of the changes.
func (b *Batch) Close() error {
	defer b.handle.close()
	if !b.changed {
		return nil
	}
	err := b.handle.sync()
	if id, rootErr := statRoot(b.dir.root); rootErr != nil || id != b.handle.id {
		return errors.Join(fmt.Errorf("%s was replaced during the change", b.dir.root), rootErr)
	}
	return err
}
