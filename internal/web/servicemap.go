package web

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// serviceMap has a row for each service with a request. It is a map in parts, because every request looks into it, and
// with thousands of services most steps on the way to a row read memory that is in no CPU cache.
type serviceMap struct {
	seed  maphash.Seed
	parts [256]servicePart
}

type servicePart struct {
	// bloom is a Bloom filter of the names. When the table is full, most services have no row, and bloom says so
	// without a lock or a look into the map.
	bloom [8]atomic.Uint64
	mu    sync.RWMutex
	rows  map[string]*serviceRow
}

func newServiceMap() *serviceMap { return &serviceMap{seed: maphash.MakeSeed()} }

// part returns the part of a name, and its bit in the filter.
func (m *serviceMap) part(name string) (p *servicePart, word int, bit uint64) {
	h := maphash.String(m.seed, name)
	return &m.parts[uint8(h)], int(h >> 8 & 7), 1 << (h >> 16 & 63)
}

// get returns the row of a service, or nil.
func (m *serviceMap) get(name string) *serviceRow {
	p, word, bit := m.part(name)
	if p.bloom[word].Load()&bit == 0 {
		return nil
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.rows[name]
}

// add adds the row of a service that has none, and returns it.
func (m *serviceMap) add(row *serviceRow) *serviceRow {
	p, word, bit := m.part(row.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rows == nil {
		p.rows = make(map[string]*serviceRow)
	}
	p.rows[row.name] = row
	p.bloom[word].Or(bit)
	return row
}

// remove removes the row of a service.
func (m *serviceMap) remove(name string) {
	p, _, _ := m.part(name)
	p.each(m, func(other string, _ *serviceRow) (keep bool) { return other != name })
}

// each calls f for every row, in no order, and removes those for which it returns false.
func (m *serviceMap) each(f func(name string, row *serviceRow) (keep bool)) {
	for i := range m.parts {
		m.parts[i].each(m, f)
	}
}

func (p *servicePart) each(m *serviceMap, f func(name string, row *serviceRow) (keep bool)) {
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
	var bloom [len(p.bloom)]uint64
	for name := range p.rows {
		_, word, bit := m.part(name)
		bloom[word] |= bit
	}
	for i := range bloom {
		p.bloom[i].Store(bloom[i])
	}
}
