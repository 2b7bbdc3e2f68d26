//go:build unix

package spool

import (
	"maps"
	"time"
)

// shardCount is into how many maps the overrides are divided: one override changes, one map of
// 1/shardCount of all is copied. Enough that 10,000 overrides make a copy of about 40.
const shardCount = 256

// maxEndedSlots is how many keys without an override may be remembered for having had one. Beyond it
// all of them are forgotten, and every result from before that moment counts as outdated: it costs one
// more check a target.
const maxEndedSlots = 4096

// slot is what is known of one key.
type slot struct {
	entry *Entry // in force, nil when none
	late  *Entry // expired, its file still there: in force again should the clock be set back
	ended uint64 // the epoch at which an override of the key last ended, 0 when it never did
}

// snapshot is everything the overrides say at one instant. It never changes once it is published, which
// is what keeps an answer from being torn between two writes: with `hadown web` and then `haup all`, no
// request finds neither.
type snapshot struct {
	epoch     uint64
	floor     uint64 // every key's ended is at least this
	all       slot
	slots     int // in shards
	instances int // in shards, of keys with a port
	endedOnly int // in shards, with nothing but ended
	shards    [shardCount]map[Key]slot
}

// shardOf spreads keys evenly; nobody gains by making them collide.
func shardOf(service, host string, port uint16) uint8 {
	h := uint32(2166136261)
	for i := range len(service) {
		h = (h ^ uint32(service[i])) * 16777619
	}
	for i := range len(host) {
		h = (h ^ uint32(host[i])) * 16777619
	}
	h = (h ^ uint32(port)) * 16777619
	return uint8(h ^ h>>8 ^ h>>16 ^ h>>24)
}

func (s *snapshot) slot(k Key) slot {
	if k.Service == All && k.Port == 0 {
		return s.all
	}
	return s.shards[shardOf(k.Service, k.Host, k.Port)][k]
}

// target is what a lookup is about.
type target struct {
	service, host string
	port          uint16
	here          bool
}

// keys returns the keys that cover t, the widest first.
func (t target) keys() []Key {
	list := append(make([]Key, 0, 4), Key{Service: All})
	if t.service != All {
		list = append(list, Key{Service: t.service})
	}
	if t.port != 0 {
		if t.here {
			list = append(list, Key{Service: t.service, Port: t.port})
		}
		list = append(list, Key{Service: t.service, Host: t.host, Port: t.port})
	}
	return list
}

// verdict gathers the slots of one target.
type verdict struct {
	best   *Entry
	ended  uint64
	turned bool // an override has expired, or no longer has, and the snapshot does not know
	now    func() time.Time
}

func (v *verdict) add(s *slot) {
	v.ended = max(v.ended, s.ended)
	if s.entry != nil {
		if !s.entry.Expires.IsZero() && s.entry.Expired(v.now()) {
			v.turned = true
		}
		if v.best == nil || s.entry.State > v.best.State {
			v.best = s.entry
		}
	}
	if s.late != nil && !s.late.Expired(v.now()) {
		v.turned = true
	}
}

// view answers for t. It does not allocate.
func (s *snapshot) view(t target, now func() time.Time) (View, bool) {
	v := verdict{ended: s.floor, now: now}
	v.add(&s.all)
	if s.slots > 0 {
		if t.service != All {
			v.look(s, Key{Service: t.service})
		}
		if t.port != 0 && s.instances > 0 {
			if t.here {
				v.look(s, Key{Service: t.service, Port: t.port})
			}
			v.look(s, Key{Service: t.service, Host: t.host, Port: t.port})
		}
	}
	return View{Override: v.best, Epoch: s.epoch, Ended: v.ended}, v.turned
}

func (v *verdict) look(s *snapshot, k Key) {
	if m := s.shards[shardOf(k.Service, k.Host, k.Port)]; len(m) > 0 {
		if found, ok := m[k]; ok {
			v.add(&found)
		}
	}
}

// draft is a snapshot in the making. It copies what it changes, each shard once.
type draft struct {
	snapshot
	own [shardCount]bool
}

func newDraft(from *snapshot) *draft { return &draft{snapshot: *from} }

// set puts s in the place of k's slot.
func (d *draft) set(k Key, s slot) {
	if k.Service == All && k.Port == 0 {
		d.all = s
		return
	}
	i := shardOf(k.Service, k.Host, k.Port)
	old, had := d.shards[i][k]
	if had {
		d.count(k, &old, -1)
	}
	if !d.own[i] {
		d.own[i] = true
		if d.shards[i] = maps.Clone(d.shards[i]); d.shards[i] == nil {
			d.shards[i] = map[Key]slot{}
		}
	}
	if s.entry == nil && s.late == nil && s.ended <= d.floor {
		delete(d.shards[i], k)
		return
	}
	d.shards[i][k] = s
	d.count(k, &s, +1)
	if d.endedOnly > maxEndedSlots {
		d.raiseFloor()
	}
}

func (d *draft) count(k Key, s *slot, by int) {
	d.slots += by
	if k.Port != 0 {
		d.instances += by
	}
	if s.entry == nil && s.late == nil {
		d.endedOnly += by
	}
}

// end records that an override of k has ended.
func (d *draft) end(k Key) {
	d.epoch++
	s := d.slot(k)
	s.ended = d.epoch
	d.set(k, s)
}

// raiseFloor outdates every result there is, for when it cannot be told which overrides have ended.
func (d *draft) raiseFloor() {
	d.epoch++
	d.floor = d.epoch
	for i, m := range d.shards {
		kept := make(map[Key]slot, len(m))
		for k, s := range m {
			if s.entry == nil && s.late == nil {
				d.count(k, &s, -1)
				continue
			}
			kept[k] = s
		}
		d.shards[i], d.own[i] = kept, true
	}
}
