//go:build unix

package spool

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
)

// fill makes a directory with n overrides of services, as the original tools write them.
func fill(b *testing.B, n int) *Dir {
	b.Helper()
	d, err := OpenDir(filepath.Join(b.TempDir(), "spool"))
	if err != nil {
		b.Fatal(err)
	}
	h, err := openHandle(d.Root())
	if err != nil {
		b.Fatal(err)
	}
	defer h.close()
	for i := range n {
		e := Entry{Key: Key{Service: fmt.Sprintf("svc%d", i)}, State: Down, Reason: "kernel upgrade", Created: at(1795215735.7852721)}
		writeUnsynced(b, d, h, e)
	}
	return d
}

// writeUnsynced writes e and does not wait for the disk.
func writeUnsynced(b *testing.B, d *Dir, h *dirHandle, e Entry) {
	b.Helper()
	p, err := d.prepare(h, e)
	if err == nil {
		err = p.putInForce()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLookup is what every request pays: of it, FIONREAD is the largest part.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{0, 10, 10_000} {
		b.Run(fmt.Sprintf("overrides=%d", n), func(b *testing.B) {
			x, err := OpenIndex(fill(b, n), IndexOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = x.Close() }()
			b.ReportAllocs()
			for b.Loop() {
				x.Lookup("web", "127.0.0.1", 8080, true)
			}
		})
	}
}

// BenchmarkLookupParallel shows that lookups do not wait for each other.
func BenchmarkLookupParallel(b *testing.B) {
	x, err := OpenIndex(fill(b, 10), IndexOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			x.Lookup("web", "127.0.0.1", 8080, true)
		}
	})
}

// BenchmarkFIONREAD is the part of BenchmarkLookup that belongs to the kernel.
func BenchmarkFIONREAD(b *testing.B) {
	x, err := OpenIndex(fill(b, 0), IndexOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	fd := x.fd.Load()
	for b.Loop() {
		hasUnreadEvents(fd)
	}
}

// BenchmarkOpenIndex is what the start of the daemon takes with that many files.
func BenchmarkOpenIndex(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("overrides=%d", n), func(b *testing.B) {
			d := fill(b, n)
			b.ReportAllocs()
			for b.Loop() {
				x, err := OpenIndex(d, IndexOptions{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_ = x.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkChange is a write and the lookup that sees it, with that many other overrides.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("overrides=%d", n), func(b *testing.B) {
			d := fill(b, n)
			x, err := OpenIndex(d, IndexOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = x.Close() }()
			h, err := openHandle(d.Root())
			if err != nil {
				b.Fatal(err)
			}
			defer h.close()
			for i := 0; b.Loop(); i++ {
				reason := strconv.Itoa(i)
				writeUnsynced(b, d, h, Entry{Key: Key{Service: "web"}, State: Down, Reason: reason, Created: at(1795215735.7852721)})
				if v := x.Lookup("web", "", 80, true); v.Override == nil || v.Override.Reason != reason {
					b.Fatal("stale")
				}
			}
		})
	}
}
