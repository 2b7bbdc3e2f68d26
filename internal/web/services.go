package proxy

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// services holds a row for each service that was asked about. It is a map in parts, because every request looks
// into it, most of them for a service that is there, and with thousands of services each step on the way to a
// row is a fetch from memory that is in no cache.
type services struct {
	seed  maphash.Seed
	parts [256]servicePart
}

type servicePart struct {
	// among has a bit for each name, so that it is known without a lock or a look into the map of nearly every
	// service that it is not there: when the table is full, that is most of them.
	among [8]atomic.Uint64
	mu    sync.RWMutex
	rows  map[string]*seenService
}

func newServices() *services { return &services{seed: maphash.MakeSeed()} }

// part returns where a name belongs, and its bit there.
func (t *services) part(name string) (p *servicePart, word int, bit uint64) {
	h := maphash.String(t.seed, name)
	return &t.parts[uint8(h)], int(h >> 8 & 7), 1 << (h >> 16 & 63)
}

// get returns the row of a service, nil when there is none.
func (t *services) get(name string) *seenService {
	p, word, bit := t.part(name)
	if p.among[word].Load()&bit == 0 {
		return nil
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.rows[name]
}

// add enters the row of a service that has none, and returns it.
func (t *services) add(row *seenService) *seenService {
	p, word, bit := t.part(row.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rows == nil {
		p.rows = make(map[string]*seenService)
	}
	p.rows[row.name] = row
	p.among[word].Or(bit)
	return row
}

// remove drops the row of a service.
func (t *services) remove(name string) {
	p, _, _ := t.part(name)
	p.each(t, func(other string, _ *seenService) (keep bool) { return other != name })
}

// each calls f for every row, in no order, and drops those for which it returns false.
func (t *services) each(f func(name string, row *seenService) (keep bool)) {
	for i := range t.parts {
		t.parts[i].each(t, f)
	}
}

func (p *servicePart) each(t *services, f func(name string, row *seenService) (keep bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.rows)
	for name, row := range p.rows {
		if !f(name, row) {
			delete(p.rows, name)
		}
	}
	if len(p.rows) == before {
		return
	}
	var among [len(p.among)]uint64
	for name := range p.rows {
		_, word, bit := t.part(name)
		among[word] |= bit
	}
	for i := range among {
		p.among[i].Store(among[i])
	}
}
