//go:build unix

package spool

import (
	"slices"
	"time"
)

// fleetOverride is an override of the fleet.
type fleetOverride struct {
	entry   *Entry
	expired bool // entry has expired
}

// fleetTable holds the overrides of the fleet. Index.mu guards it.
type fleetTable struct {
	byKey      map[Key][]fleetOverride
	nextExpiry time.Time // as in fileTable
}

// SetFleet replaces the overrides of the fleet. They act as if they were files of the directory: a Lookup finds them in
// the same snapshot, they expire by the clock, and their ends outdate results. When SetFleet returns, every Lookup that
// begins from then on sees them.
//
// The caller sets Scope in each entry and bounds the list. An entry without a known State is down. SetFleet does not
// keep list. It reads no file, but it waits for an update that does: while a file server hangs, SetFleet may block.
// After Close it has no effect.
func (x *Index) SetFleet(list []Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return
	}
	u := x.newUpdate()
	old := x.fleet.byKey
	x.fleet = newFleetTable(list, old, u.now)
	for k, entries := range x.fleet.byKey {
		if !slices.Equal(entries, old[k]) {
			u.resolve(k)
		}
	}
	for k := range old {
		if _, ok := x.fleet.byKey[k]; !ok {
			u.resolve(k)
		}
	}
	u.finish()
}

// newFleetTable returns the table of list. An entry that old has too keeps its pointer, so that it is no change.
func newFleetTable(list []Entry, old map[Key][]fleetOverride, now time.Time) fleetTable {
	t := fleetTable{byKey: make(map[Key][]fleetOverride, len(list))}
	for _, e := range list {
		e.Key = e.Key.canonical()
		if e.State == Ready || e.State > Maint {
			e.State = Down
		}
		e.Reason = truncateReason(e.Reason)
		if !isValidBy(e.By) {
			e.By = ""
		}
		o := fleetOverride{&e, e.Expired(now)}
		if i := slices.IndexFunc(old[e.Key], func(o fleetOverride) bool { return *o.entry == e }); i >= 0 {
			o.entry = old[e.Key][i].entry
		}
		t.byKey[e.Key] = append(t.byKey[e.Key], o)
		if !o.expired {
			t.nextExpiry = earlier(t.nextExpiry, e.Expires)
		}
	}
	return t
}

// expireFleet marks the overrides of the fleet about k that have expired, and those that no longer have because the
// clock was set back.
func (u *update) expireFleet(k Key) {
	changed := false
	for i := range u.fleet.byKey[k] {
		o := &u.fleet.byKey[k][i]
		if expired := o.entry.Expired(u.now); expired != o.expired {
			o.expired, changed = expired, true
		}
		if !o.expired {
			u.fleet.nextExpiry = earlier(u.fleet.nextExpiry, o.entry.Expires)
		}
	}
	if changed {
		u.resolve(k)
	}
}

// earlier returns the earlier one of two times; a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
