//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// heldWeight is a weight in a snapshot.
type heldWeight struct {
	Weight
	dir dirID // the directory in which it was read
}

// Weight returns the percentage that balancers must be told of a target without an override: that of the narrowest
// weight in force; else MaxWeight if one has ended within WeightEndTime; else 0, for nothing. The parameters are those
// of Lookup. A call that begins after WriteWeight or EndWeight has returned sees that change.
func (x *Index) Weight(service, host string, port uint16, local bool) int {
	x.Lookup(service, host, port, local) // it reads the events of weights too: see the package comment
	s := x.pub.snapshot.Load()
	if len(s.weights) == 0 {
		return 0
	}
	return s.weight(newQuery(service, host, port, local), x.system.now())
}

// weight returns the percentage for q at now, see Index.Weight.
func (s *snapshot) weight(q query, now time.Time) int {
	percent := 0
	for _, k := range slices.Backward(q.keys()) {
		w := s.weights[k]
		switch {
		case w == nil:
		case !w.HasEnded(now):
			return w.Percent
		default:
			percent = max(percent, w.At(now))
		}
	}
	return percent
}

// Weights returns the weights that are in force now, sorted by name.
func (x *Index) Weights() []Weight {
	x.List() // brings the snapshot up to date
	now := x.system.now()
	var list []Weight
	for _, w := range x.pub.snapshot.Load().weights {
		if !w.HasEnded(now) {
			list = append(list, w.Weight)
		}
	}
	sortWeights(list)
	return list
}

// loadWeight brings the weight of k up to date with its file. fromEvent says that an event has named the file. Without
// it a weight that was read in another directory stays: a mount over the directory ends no weight.
func (u *update) loadWeight(k Key, fromEvent bool) {
	old := u.pub.weights()[k]
	w, err := u.handle.readWeight(k)
	switch {
	case err == nil && w.At(u.now) == 0:
		w = nil
	case errors.Is(err, fs.ErrNotExist):
		if old != nil && !fromEvent && !old.dir.same(u.handle.id) {
			return
		}
		w = nil
	case errors.Is(err, errNoLink), err != nil && !isErrno(err):
		u.logIgnored(weightName(k), err.Error())
		w = nil
	case err != nil:
		return // the directory cannot be read for now: the last known weight stands
	}
	if w == nil && old == nil || w != nil && old != nil && *w == old.Weight {
		return
	}
	if w != nil && old == nil && len(u.pub.weights()) >= maxWeights {
		u.logIgnored(weightName(k), "there are too many weights")
		return
	}
	next := u.pub.nextBuilder()
	next.weights = maps.Clone(next.weights)
	if w == nil {
		delete(next.weights, k)
	} else {
		if next.weights == nil {
			next.weights = map[Key]*heldWeight{}
		}
		next.weights[k] = &heldWeight{*w, u.handle.id}
	}
	u.changes++
}

// reloadWeights reads the weights again that a listing has not found.
func (u *update) reloadWeights(listed map[Key]bool) {
	for k := range u.pub.weights() {
		if !listed[k] {
			u.loadWeight(k, false)
		}
	}
}
