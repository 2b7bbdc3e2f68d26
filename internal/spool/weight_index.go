//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// heldWeight is a weight in a snapshot. It does not change.
type heldWeight struct {
	Weight
	ended       bool   // as of the last update
	carriedFrom *dirID // as spoolFile.carriedFrom
}

// isInForce reports whether w was in force at the last update. w may be nil.
func (w *heldWeight) isInForce() bool { return w != nil && !w.ended }

// WeightChange is a change of the weight of a key.
type WeightChange struct {
	Key      Key
	Old, New *Weight // nil: none in force. Read-only.
	Expired  bool    // Old has reached its end; New is nil
}

// Weight returns the percentage that the agent has to say of a target without an override: that of the narrowest
// weight in force; else MaxWeight if one has ended within WeightEndTime; else 0, for nothing. The parameters are those
// of Lookup. A call that begins after WriteWeight or EndWeight has returned sees that change.
func (x *Index) Weight(service, host string, port uint16, local bool) int {
	x.Lookup(service, host, port, local) // it reads the events of weights too: see the package comment
	s := x.pub.snapshot.Load()
	if len(s.weights) == 0 {
		return 0
	}
	percent, _ := s.weight(newQuery(service, host, port, local), x.system.now())
	return percent
}

// WeightEnd returns when the last weight of a target has ended, if that is why Weight returns MaxWeight; otherwise the
// zero time. It knows every end that a Weight has seen before.
func (x *Index) WeightEnd(service, host string, port uint16, local bool) time.Time {
	_, ended := x.pub.snapshot.Load().weight(newQuery(service, host, port, local), x.system.now())
	return ended
}

// weight returns the percentage for q at now and, without a weight in force, when the last one has ended.
func (s *snapshot) weight(q query, now time.Time) (percent int, ended time.Time) {
	if len(s.weights) == 0 {
		return 0, time.Time{}
	}
	for _, k := range slices.Backward(q.keys()) {
		w := s.weights[k]
		switch {
		case w == nil:
		case !w.HasEnded(now):
			return w.Percent, time.Time{}
		case w.At(now) != 0:
			if percent = MaxWeight; w.Expires.After(ended) {
				ended = w.Expires
			}
		}
	}
	return percent, ended
}

// Weights returns the weights that are in force now, sorted by name.
func (x *Index) Weights() []Weight {
	x.refresh()
	now := x.system.now()
	list := []Weight{}
	for _, w := range x.pub.snapshot.Load().weights {
		if !w.HasEnded(now) {
			list = append(list, w.Weight)
		}
	}
	sortWeights(list)
	return list
}

// loadWeight brings the weight of k up to date with its file. fromEvent says that an event has named the file.
func (u *update) loadWeight(k Key, fromEvent bool) {
	k = k.canonical()
	old := u.pub.weights()[k]
	w, err := u.handle.readWeight(k)
	switch {
	case err == nil && w.At(u.now) == 0:
		u.removeOldWeight(k)
		if old != nil {
			u.setWeight(k, nil)
		}
		return
	case errors.Is(err, fs.ErrNotExist):
		if old != nil && old.carriedFrom != nil && !fromEvent {
			return // that the directory of another mount has no such file does not end it
		}
		if old.isInForce() {
			u.recordDeletion(nil, old)
		}
	case err != nil && isErrno(err):
		return // it cannot be read for now: the last known weight stands
	case err != nil:
		u.logIgnored(weightName(k), err.Error())
		w = nil
	}
	switch {
	case w == nil && old.isInForce() && !old.HasEnded(u.now):
		u.endWeight(old)
	case w != nil && (old == nil || *w != old.Weight):
		if old == nil && len(u.pub.weights()) >= maxWeights {
			u.logIgnored(weightName(k), "there are too many weights")
			return
		}
		u.setWeight(k, &heldWeight{Weight: *w, ended: w.HasEnded(u.now)})
	case w != nil && old.carriedFrom != nil:
		u.setWeight(k, &heldWeight{Weight: *w, ended: old.ended})
	}
}

// endWeight ends w, which has no file any more. The agent still says that it has ended.
func (u *update) endWeight(w *heldWeight) {
	next := &heldWeight{Weight: w.Weight, ended: true}
	next.Percent, next.Expires = MaxWeight, u.now
	u.setWeight(w.Key, next)
}

// setWeight puts w into the next snapshot; nil: none.
func (u *update) setWeight(k Key, w *heldWeight) {
	u.pub.setWeight(k, w, u.now)
	u.changes++
}

// removeOldWeight removes the record of k, which means nothing any more.
func (u *update) removeOldWeight(k Key) {
	if !u.dir.lost && u.openDir() && u.handle.hasDescriptor() {
		u.handle.removeOldWeight(k, u.now)
	}
}

// reloadWeights reads the weights again that a listing has not found.
func (u *update) reloadWeights(listed map[Key]bool) {
	for k := range u.pub.weights() {
		if !listed[k] {
			u.loadWeight(k, false)
		}
	}
}

// expireWeights ends the weights that have reached their end, and forgets those that have ended WeightEndTime ago. A
// weight whose end lies ahead again, because the clock was set back, is in force again.
func (u *update) expireWeights() {
	u.pub.weightExpiry = time.Time{}
	for k, w := range u.pub.weights() {
		switch {
		case w.At(u.now) == 0:
			if w.carriedFrom == nil {
				u.removeOldWeight(k)
			}
			u.setWeight(k, nil)
		case w.ended != w.HasEnded(u.now):
			next := *w
			next.ended = !w.ended
			u.setWeight(k, &next)
		default:
			u.pub.lowerWeightExpiry(w)
		}
	}
}

// carryWeights marks the weights as carried over from the directory from: see carry.
func (u *update) carryWeights(from dirID) {
	for k, w := range u.pub.weights() {
		if w.carriedFrom == nil {
			next := *w
			next.carriedFrom = &from
			u.setWeight(k, &next)
		}
	}
}

// endCarryingWeights ends the carrying of weights from the directory id, which can be read again.
func (u *update) endCarryingWeights(id dirID) {
	for k, w := range u.pub.weights() {
		if w.carriedFrom != nil && w.carriedFrom.same(id) {
			next := *w
			next.carriedFrom = nil
			u.setWeight(k, &next)
		}
	}
}

// weights returns the weights of the next snapshot. Read-only.
func (p *publisher) weights() map[Key]*heldWeight {
	if p.next != nil {
		return p.next.weights
	}
	return p.snapshot.Load().weights
}

// setWeight puts w into the next snapshot as the weight of k; nil: none.
func (p *publisher) setWeight(k Key, w *heldWeight, now time.Time) {
	c, old := WeightChange{Key: k}, p.weights()[k]
	p.nextBuilder().setWeight(k, w)
	if w != nil {
		p.lowerWeightExpiry(w)
	}
	if old.isInForce() {
		c.Old = &old.Weight
	}
	if w.isInForce() {
		c.New = &w.Weight
	}
	if p.loading || c.Old == nil && c.New == nil || c.Old != nil && c.New != nil && *c.Old == *c.New {
		return
	}
	c.Expired = c.New == nil && c.Old.HasEnded(now)
	p.weightChanges = append(p.weightChanges, c)
}

// lowerWeightExpiry brings weightExpiry forward to the next time at which w changes by itself.
func (p *publisher) lowerWeightExpiry(w *heldWeight) {
	at := w.Expires
	if w.ended {
		at = at.Add(WeightEndTime)
	}
	p.weightExpiry = earlier(p.weightExpiry, at)
}

// setWeight makes w the weight of k; nil: none. It copies the weights once, before the first change.
func (d *builder) setWeight(k Key, w *heldWeight) {
	if !d.copiedWeights {
		d.copiedWeights = true
		if d.weights = maps.Clone(d.weights); d.weights == nil {
			d.weights = map[Key]*heldWeight{}
		}
	}
	if w == nil {
		delete(d.weights, k)
	} else {
		d.weights[k] = w
	}
}
