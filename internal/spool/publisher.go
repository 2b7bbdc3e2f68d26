//go:build unix

package spool

import (
	"sync/atomic"
	"time"
)

// publisher holds the snapshot that lookups read, and builds the next one. Index.mu guards all but snapshot and maints.
type publisher struct {
	snapshot atomic.Pointer[snapshot]
	next     *builder // nil: nothing has changed since snapshot
	changes  []Change // of next, to be delivered once it is published
	loading  bool     // OpenIndex is reading the directory: nothing is a change yet
	maints   maintEnds
	notify   notifier

	weightChanges []WeightChange // as changes
	weightExpiry  time.Time      // not later than the next time at which a weight changes by itself; zero: none does
}

// nextBuilder returns the builder of the next snapshot.
func (p *publisher) nextBuilder() *builder {
	if p.next == nil {
		p.next = newBuilder(p.snapshot.Load())
	}
	return p.next
}

// slot returns k's slot in the next snapshot.
func (p *publisher) slot(k Key) keyRecord {
	if p.next != nil {
		return p.next.slot(k)
	}
	return p.snapshot.Load().slot(k)
}

// set puts s into the next snapshot as k's slot and reports whether that is a change. s.endedAt is ignored.
func (p *publisher) set(k Key, s keyRecord, now time.Time) bool {
	old := p.slot(k)
	s.endedAt = old.endedAt
	if s.equal(&old) {
		return false
	}
	if old.entry != nil && old.entry.State == Maint && (s.entry == nil || s.entry.State != Maint) {
		p.maints.record(k, time.Now())
	}
	p.nextBuilder().set(k, s)
	if old.entry != nil && s.entry == nil {
		p.next.end(k)
	}
	if old.entry != s.entry && !p.loading {
		p.changes = append(p.changes, Change{
			Key: k, Old: old.entry, New: s.entry,
			Expired: old.entry != nil && old.entry.Expired(now),
		})
	}
	return true
}

// publish makes the next snapshot the one that lookups read.
func (p *publisher) publish() {
	if p.next != nil {
		p.snapshot.Store(&p.next.snapshot)
		p.next = nil
	}
}

// notifyChanges queues the changes of the snapshot that was published last.
func (p *publisher) notifyChanges() {
	for _, c := range p.changes {
		p.notify.change(c)
	}
	p.changes = nil
	for _, c := range p.weightChanges {
		p.notify.weightChange(c)
	}
	p.weightChanges = nil
}
