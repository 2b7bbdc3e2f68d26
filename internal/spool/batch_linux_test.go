package spool

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"
)

// dirEvents returns the masks of the kernel's events of a directory since it was last called.
func dirEvents(t *testing.T, root string, mask uint32) func() []uint32 {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, root, mask); err != nil {
		t.Fatal(err)
	}
	return func() (masks []uint32) {
		t.Helper()
		for buf := make([]byte, 64<<10); ; {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EAGAIN) {
				return masks
			}
			if err != nil {
				t.Fatal(err)
			}
			for rest := buf[:n]; len(rest) > 0; rest = rest[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(rest[12:]):] {
				mask := binary.NativeEndian.Uint32(rest[4:])
				if mask&unix.IN_Q_OVERFLOW != 0 {
					t.Fatal("the kernel has dropped events")
				}
				masks = append(masks, mask)
			}
		}
	}
}

// manyEntries returns an entry for each of n keys. Files of several names may be about such a key.
func manyEntries(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = Entry{Key: Key{Service: "web", Port: uint16(1 + i)}, State: Down, Reason: "many"}
	}
	return entries
}

// TestBatchListsOnce: a batch lists the directory once, however many keys it has.
func TestBatchListsOnce(t *testing.T) {
	t.Parallel()
	const n = 1000
	dir, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// The kernel merges equal events in a row. Between two listings are the moves of a change.
	events := dirEvents(t, dir.Root(), unix.IN_ACCESS|unix.IN_MOVED_FROM|unix.IN_MOVED_TO)
	wantFewListings := func(of string) {
		t.Helper()
		listings := 0
		for _, mask := range events() {
			if mask&unix.IN_ACCESS != 0 && mask&unix.IN_ISDIR != 0 {
				listings++
			}
		}
		if listings == 0 || listings > 10 { // a listing has several reads
			t.Errorf("%s %d keys: %d reads of the directory", of, n, listings)
		}
	}
	for _, step := range []struct {
		name string
		do   func(b *Batch)
	}{
		{"write", func(b *Batch) {
			if err := errors.Join(b.WriteAll(manyEntries(n))...); err != nil {
				t.Error(err)
			}
		}},
		{"remove", func(b *Batch) {
			for _, e := range manyEntries(n) {
				if err := b.Remove(e.Key); err != nil {
					t.Error(err)
				}
				if _, err := b.Read(e.Key); !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		}},
	} {
		b, err := dir.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		step.do(b)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		wantFewListings(step.name)
	}
}

// TestBatchWritesTogether: a batch prepares a group of files before it gives the first of them its name, so that it can
// sync all of them at the same time.
func TestBatchWritesTogether(t *testing.T) {
	t.Parallel()
	const n, maxGroups = 200, 4
	dir, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	events := dirEvents(t, dir.Root(), unix.IN_CREATE|unix.IN_MOVED_TO)
	b, err := dir.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(append(b.WriteAll(manyEntries(n)), b.Close())...); err != nil {
		t.Fatal(err)
	}
	groups, files := 0, 0
	last := uint32(unix.IN_MOVED_TO)
	for _, mask := range events() {
		if mask == unix.IN_CREATE {
			files++
			if last != unix.IN_CREATE {
				groups++
			}
		}
		last = mask
	}
	if files != n || groups > maxGroups {
		t.Errorf("%d files in %d groups, want %d in at most %d", files, groups, n, maxGroups)
	}
	if list, err := dir.List(); err != nil || len(list) != n {
		t.Errorf("%d overrides, %v; want %d", len(list), err, n)
	}
}
