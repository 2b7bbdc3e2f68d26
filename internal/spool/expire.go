//go:build unix

package spool

import "time"

// expire ends the overrides that have expired, and brings back those that no longer have because the clock was set
// back: those about q, and all of them if todo has attExpiry.
func (u *update) expire(q *query, todo uint32) {
	var changed []*spoolFile
	consider := func(f *spoolFile) {
		if f.entry != nil && f.entry.Expired(u.now) != f.expired {
			changed = append(changed, f)
		}
	}
	if q != nil {
		for _, k := range q.keys() {
			if s := u.pub.slot(k); (s.entry == nil || s.entry.Expires.IsZero()) && s.expired == nil {
				continue
			}
			for _, f := range u.files.of(k) {
				consider(f)
			}
		}
	}
	if todo&attExpiry != 0 {
		u.files.nextExpiry = time.Time{}
		for _, f := range u.files.byName {
			consider(f)
			if f.isInForce() && !f.entry.Expired(u.now) {
				u.files.noteExpiry(f.entry.Expires)
			}
		}
	}
	for _, f := range changed {
		u.files.remove(f)
		if f.carriedFrom == nil { // otherwise there is no file here
			f.expired = !f.expired
			u.files.add(f)
		}
		u.resolve(f.key)
		if f.carriedFrom == nil && f.expired && !f.removeFailed {
			u.setAside(f)
		}
	}
}
