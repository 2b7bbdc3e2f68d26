//go:build unix

package spool

import (
	"iter"
	"maps"
	"slices"
	"time"
)

// shardCount is the number of maps that hold the overrides. A change of one override copies one map; with 10,000
// overrides that is a copy of about 40.
const shardCount = 256

// keyRecord is what a snapshot holds about one key.
type keyRecord struct {
	entry   *Entry   // in force; nil: none
	weaker  []*Entry // in force too, of other scopes, the strongest first: one decides once entry has expired
	expired *Entry   // expired, but it is still there: in force again if the clock is set back
	endedAt uint64   // the generation at which an override of the key last ended; 0: never
}

// add adds an override of the key. Of two overrides of one scope the stronger one counts.
func (s *keyRecord) add(e *Entry, expired bool) {
	if expired {
		if s.expired == nil || e.Expires.After(s.expired.Expires) {
			s.expired = e
		}
		return
	}
	if s.entry == nil {
		s.entry = e
		return
	}
	list := append([]*Entry{s.entry}, s.weaker...)
	if i := slices.IndexFunc(list, func(other *Entry) bool { return other.Scope == e.Scope }); i >= 0 {
		if !isStronger(e, list[i]) {
			return
		}
		list = slices.Delete(list, i, i+1)
	}
	i := 0
	for i < len(list) && !isStronger(e, list[i]) {
		i++
	}
	list = slices.Insert(list, i, e)
	s.entry, s.weaker = list[0], list[1:]
}

func (s *keyRecord) equal(o *keyRecord) bool {
	return s.entry == o.entry && s.expired == o.expired && s.endedAt == o.endedAt && slices.Equal(s.weaker, o.weaker)
}

// snapshot holds all overrides at one instant. It never changes once it is published, so that no lookup sees half of
// two writes: with `hadown web` and then `haup all`, every lookup finds at least one of the two.
type snapshot struct {
	generation    uint64
	minGeneration uint64 // of every key: its endedAt is at least this
	all           keyRecord
	slots         int                 // in shards
	instances     int                 // in shards, of keys with a port
	endedOnly     int                 // in shards, with nothing but ended
	weights       map[Key]*heldWeight // in force, or ended within WeightEndTime; nil without
	shards        [shardCount]shard
}

// shard holds the keys of a snapshot with one position.shard.
type shard struct {
	// filter is a Bloom filter with one hash: a bit for each key. Nearly every target has no override, and the filter
	// finds that out without the map, where each lookup costs several fetches from memory that is in no cache.
	filter [filterWords]uint64
	slots  map[Key]keyRecord
}

// filterWords is the size of a shard's filter. With 10,000 overrides, 40 keys in a shard, 1 lookup in 13 of an absent
// key still goes to the map. All filters together take 16 KiB.
const filterWords = 8

// position is where a key belongs.
type position struct {
	shard uint8
	word  uint8
	bit   uint64
}

// mayContain returns false only if the key at p is not in s.
func (s *shard) mayContain(p position) bool { return s.filter[p.word]&p.bit != 0 }

func (s *shard) rebuildFilter() {
	s.filter = [filterWords]uint64{}
	for k := range s.slots {
		p := positionOf(k.Service, k.Host, k.Port)
		s.filter[p.word] |= p.bit
	}
}

// positionOf hashes a key. Collisions cost no more than a lookup in a map.
func positionOf(service, host string, port uint16) position {
	h := uint32(2166136261)
	for i := range len(service) {
		h = (h ^ uint32(service[i])) * 16777619
	}
	for i := range len(host) {
		h = (h ^ uint32(host[i])) * 16777619
	}
	h = (h ^ uint32(port)) * 16777619
	h *= 0x9e3779b1 // so that the last bytes reach the upper bits
	return position{uint8(h >> 24), uint8(h>>21) % filterWords, 1 << (h >> 15 % 64)}
}

func (s *snapshot) slot(k Key) keyRecord {
	if k.Service == All && k.Port == 0 {
		return s.all
	}
	return s.shards[positionOf(k.Service, k.Host, k.Port).shard].slots[k]
}

// query is the target that a lookup is about.
type query struct {
	key   Key
	local bool // key.Host is an address of this machine
}

// newQuery returns the query of the parameters of Lookup.
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

// view answers for q. outdated reports that the answer has changed since s was published, because overrides have
// expired or the clock was set back. view does not allocate.
func (s *snapshot) view(q query, now func() time.Time) (View, bool) {
	v, k := viewBuilder{minGeneration: s.minGeneration, now: now}, q.key
	v.add(&s.all)
	// The keys of CoveringKeys, one by one: a list of them would triple the time.
	if s.slots > 0 {
		if k.Service != All {
			v.addKey(s, Key{Service: k.Service})
		}
		if k.Port != 0 && s.instances > 0 {
			if q.local {
				v.addKey(s, Key{Service: k.Service, Port: k.Port})
			}
			v.addKey(s, k)
		}
	}
	return View{Override: v.strongest, Generation: s.generation, MinGeneration: v.minGeneration}, v.outdated
}

// viewBuilder collects the slots that cover one target.
type viewBuilder struct {
	strongest     *Entry
	minGeneration uint64
	outdated      bool // the clock has changed the answer since the snapshot was published
	now           func() time.Time
}

func (v *viewBuilder) addKey(s *snapshot, k Key) {
	p := positionOf(k.Service, k.Host, k.Port)
	in := &s.shards[p.shard]
	if !in.mayContain(p) {
		return
	}
	if found, ok := in.slots[k]; ok {
		v.add(&found)
	}
}

func (v *viewBuilder) add(s *keyRecord) {
	v.minGeneration = max(v.minGeneration, s.endedAt)
	entry, outdated := s.at(v.now)
	v.outdated = v.outdated || outdated
	if entry != nil && (v.strongest == nil || entry.State > v.strongest.State) {
		v.strongest = entry
	}
}

// at returns the override in force at the time that now returns; at calls now only if that matters. outdated reports
// that it is not s.entry.
func (s *keyRecord) at(now func() time.Time) (entry *Entry, outdated bool) {
	entry = s.entry
	if entry != nil && !entry.Expires.IsZero() && entry.Expired(now()) {
		entry, outdated = nil, true
		for _, e := range s.weaker {
			if !e.Expired(now()) {
				entry = e
				break
			}
		}
	}
	if s.expired != nil && !s.expired.Expired(now()) {
		outdated = true
		if entry == nil || isStronger(s.expired, entry) {
			entry = s.expired
		}
	}
	return entry, outdated
}

// inForce yields the overrides in force now, the one that decides first.
func (s *keyRecord) inForce(now time.Time) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		strongest, _ := s.at(func() time.Time { return now })
		if strongest == nil || !yield(strongest) {
			return
		}
		for _, e := range append([]*Entry{s.entry}, s.weaker...) {
			if e != nil && e.Scope != strongest.Scope && !e.Expired(now) && !yield(e) {
				return
			}
		}
	}
}

// maxEndedSlots bounds the keys that are kept only because an override of them has ended. One more outdates every
// result, which costs one more check of each target.
const maxEndedSlots = 4096

// builder makes the next snapshot. It copies each shard once, before the first change.
type builder struct {
	snapshot
	copied        [shardCount]bool
	copiedWeights bool
}

func newBuilder(from *snapshot) *builder { return &builder{snapshot: *from} }

// set makes s k's slot.
func (d *builder) set(k Key, s keyRecord) {
	if k.Service == All && k.Port == 0 {
		d.all = s
		return
	}
	p := positionOf(k.Service, k.Host, k.Port)
	in := &d.shards[p.shard]
	old, had := in.slots[k]
	if had {
		d.count(k, &old, -1)
	}
	if !d.copied[p.shard] {
		d.copied[p.shard] = true
		if in.slots = maps.Clone(in.slots); in.slots == nil {
			in.slots = map[Key]keyRecord{}
		}
	}
	if s.entry == nil && s.expired == nil && s.endedAt <= d.minGeneration {
		delete(in.slots, k)
		in.rebuildFilter()
		return
	}
	in.slots[k] = s
	in.filter[p.word] |= p.bit
	d.count(k, &s, +1)
	if d.endedOnly > maxEndedSlots {
		d.outdateAll()
	}
}

func (d *builder) count(k Key, s *keyRecord, by int) {
	d.slots += by
	if k.Port != 0 {
		d.instances += by
	}
	if s.entry == nil && s.expired == nil {
		d.endedOnly += by
	}
}

// end records that an override of k has ended.
func (d *builder) end(k Key) {
	d.generation++
	s := d.slot(k)
	s.endedAt = d.generation
	d.set(k, s)
}

// outdateAll outdates every result: which overrides have ended is not known.
func (d *builder) outdateAll() {
	d.generation++
	d.minGeneration = d.generation
	for i := range d.shards {
		in := &d.shards[i]
		kept := make(map[Key]keyRecord, len(in.slots))
		for k, s := range in.slots {
			if s.entry == nil && s.expired == nil {
				d.count(k, &s, -1)
				continue
			}
			kept[k] = s
		}
		in.slots, d.copied[i] = kept, true
		in.rebuildFilter()
	}
}
