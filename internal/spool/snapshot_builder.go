//go:build unix

package spool

import "maps"

// maxEndedSlots bounds the keys that are kept only because an override of them has ended. One more outdates every result,
// which costs one more check of each target.
const maxEndedSlots = 4096

// builder makes the next snapshot. It copies each shard once, before the first change.
type builder struct {
	snapshot
	copied [shardCount]bool
}

func newBuilder(from *snapshot) *builder { return &builder{snapshot: *from} }

// set makes s k's slot.
func (d *builder) set(k Key, s slot) {
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
			in.slots = map[Key]slot{}
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

func (d *builder) count(k Key, s *slot, by int) {
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
		kept := make(map[Key]slot, len(in.slots))
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
