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
	shards    [shardCount]shard
}

// shard is the part of a snapshot that holds the keys with one shardOf. It never changes either.
type shard struct {
	// among has a bit for each key, so that nearly every target without an override, which is nearly
	// every target, is found to have none without a look into a map: with thousands of overrides each look
	// costs several fetches from memory that is in no cache.
	among [amongWords]uint64
	slots map[Key]slot
}

// amongWords makes of the 40 keys that 10,000 overrides leave in each shard one in thirteen that is looked for in
// vain; all shards together have 16 KiB.
const amongWords = 8

// place is where a key belongs.
type place struct {
	shard uint8
	word  uint8
	bit   uint64
}

func (s *shard) has(p place) bool { return s.among[p.word]&p.bit != 0 }

// index sets among anew.
func (s *shard) index() {
	s.among = [amongWords]uint64{}
	for k := range s.slots {
		p := placeOf(k.Service, k.Host, k.Port)
		s.among[p.word] |= p.bit
	}
}

// placeOf spreads keys evenly; nobody gains by making them collide.
func placeOf(service, host string, port uint16) place {
	h := uint32(2166136261)
	for i := range len(service) {
		h = (h ^ uint32(service[i])) * 16777619
	}
	for i := range len(host) {
		h = (h ^ uint32(host[i])) * 16777619
	}
	h = (h ^ uint32(port)) * 16777619
	h *= 0x9e3779b1 // the last bytes reach the upper bits as well
	return place{uint8(h >> 24), uint8(h>>21) % amongWords, 1 << (h >> 15 % 64)}
}

func (s *snapshot) slot(k Key) slot {
	if k.Service == All && k.Port == 0 {
		return s.all
	}
	return s.shards[placeOf(k.Service, k.Host, k.Port).shard].slots[k]
}

// query is the target that a lookup asks about.
type query struct {
	key   Key
	local bool // key.Host is an address of this machine
}

// newQuery returns the query of Lookup's parameters.
func newQuery(service, host string, port uint16, local bool) query {
	switch {
	case port == 0:
		host = ""
	case host == "":
		host = "127.0.0.1"
	}
	return query{Key{Service: service, Host: host, Port: port}, local}
}

// keys returns the keys that cover the target, the widest first.
func (q query) keys() []Key { return q.key.CoveringKeys(q.local) }

// verdict gathers the slots of one target.
type verdict struct {
	best   *Entry
	ended  uint64
	turned bool // an override has expired, or no longer has, and the snapshot does not know
	now    func() time.Time
}

func (v *verdict) add(s *slot) {
	v.ended = max(v.ended, s.ended)
	entry, turned := s.at(v.now)
	v.turned = v.turned || turned
	if entry != nil && (v.best == nil || entry.State > v.best.State) {
		v.best = entry
	}
}

// at returns the override in force at the time of now, which is asked only when that matters; turned when it
// is another one than the snapshot knew.
func (s *slot) at(now func() time.Time) (entry *Entry, turned bool) {
	entry = s.entry
	if entry != nil && !entry.Expires.IsZero() && entry.Expired(now()) {
		entry, turned = nil, true
	}
	if s.late != nil && !s.late.Expired(now()) {
		turned = true
		if entry == nil || outlasts(s.late, entry) {
			entry = s.late
		}
	}
	return entry, turned
}

// view answers for t; turned when that is more than the snapshot knew, because of the time. It does not
// allocate.
func (s *snapshot) view(q query, now func() time.Time) (View, bool) {
	v := verdict{ended: s.floor, now: now}
	v.add(&s.all)
	if s.slots > 0 {
		var buf [4]Key
		for _, k := range q.key.appendCovering(buf[:0], q.local)[1:] { // s.all was the first
			v.look(s, k)
		}
	}
	return View{Override: v.best, Generation: s.epoch, MinGeneration: v.ended}, v.turned
}

func (v *verdict) look(s *snapshot, k Key) {
	p := placeOf(k.Service, k.Host, k.Port)
	in := &s.shards[p.shard]
	if !in.has(p) {
		return
	}
	if found, ok := in.slots[k]; ok {
		v.add(&found)
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
	p := placeOf(k.Service, k.Host, k.Port)
	in := &d.shards[p.shard]
	old, had := in.slots[k]
	if had {
		d.count(k, &old, -1)
	}
	if !d.own[p.shard] {
		d.own[p.shard] = true
		if in.slots = maps.Clone(in.slots); in.slots == nil {
			in.slots = map[Key]slot{}
		}
	}
	if s.entry == nil && s.late == nil && s.ended <= d.floor {
		delete(in.slots, k)
		in.index()
		return
	}
	in.slots[k] = s
	in.among[p.word] |= p.bit
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
	for i := range d.shards {
		in := &d.shards[i]
		kept := make(map[Key]slot, len(in.slots))
		for k, s := range in.slots {
			if s.entry == nil && s.late == nil {
				d.count(k, &s, -1)
				continue
			}
			kept[k] = s
		}
		in.slots, d.own[i] = kept, true
		in.index()
	}
}
