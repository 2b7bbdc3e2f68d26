//go:build unix

package spool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestAmong: the bits that spare a look into a map never hide a key that is there, whatever has come and
// gone, and they do spare most looks for keys that are not.
func TestAmong(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	s := &snapshot{}
	want := map[Key]bool{}
	key := func(i int) Key {
		k := Key{Service: fmt.Sprintf("svc-%d", i/3)}
		if i%3 > 0 {
			k.Port = uint16(1 + i%3)
		}
		return k
	}
	for range 300 {
		d := newDraft(s)
		for range 100 {
			k := key(r.IntN(15_000))
			switch r.IntN(3) {
			case 0:
				delete(want, k)
				d.set(k, slot{})
			default:
				want[k] = true
				d.set(k, slot{entry: &Entry{Key: k, State: Down}})
			}
		}
		if r.IntN(50) == 0 {
			d.raiseFloor()
		}
		s = &d.snapshot
	}
	found := 0
	for i := range 15_000 {
		k := key(i)
		v, _ := s.view(newQuery(k.Service, k.Host, k.Port, true), time.Now)
		if got := v.Override != nil; got != (want[k] || want[Key{Service: k.Service}]) {
			t.Fatalf("%v: found %v, want %v", k, got, want[k])
		}
		strange := placeOf(k.Service+"?", "", k.Port)
		if s.shards[strange.shard].has(strange) {
			found++
		}
	}
	if most := 15_000 / 8; found > most {
		t.Errorf("%d of 15000 keys that are not there are looked for, want at most %d with %d that are", found, most, len(want))
	}
}
