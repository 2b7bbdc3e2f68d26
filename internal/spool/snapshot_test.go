//go:build unix

package spool

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestFilter: the filter never hides a key that is there, whatever has come and gone, and it spares most lookups of
// absent keys in the map.
func TestFilter(t *testing.T) {
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
		d := newBuilder(s)
		for range 100 {
			k := key(r.IntN(15_000))
			switch r.IntN(3) {
			case 0:
				delete(want, k)
				d.set(k, keyRecord{})
			default:
				want[k] = true
				d.set(k, keyRecord{entry: &Entry{Key: k, State: Down}})
			}
		}
		if r.IntN(50) == 0 {
			d.outdateAll()
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
		strange := positionOf(k.Service+"?", "", k.Port)
		if s.shards[strange.shard].mayContain(strange) {
			found++
		}
	}
	if most := 15_000 / 8; found > most {
		t.Errorf("%d of 15000 keys that are not there are looked for, want at most %d with %d that are", found, most, len(want))
	}
}

// TestViewFollowsCovers: a snapshot with one override finds it for the targets that Key.Covers says, and no others.
func TestViewFollowsCovers(t *testing.T) {
	t.Parallel()
	var keys []Key
	for _, service := range []string{All, "web", "api"} {
		keys = append(keys, Key{Service: service})
		for _, host := range []string{"", "127.0.0.1", "10.0.0.5"} {
			keys = append(keys, Key{Service: service, Host: host, Port: 80}, Key{Service: service, Host: host, Port: 81})
		}
	}
	for _, k := range keys {
		b := newBuilder(&snapshot{})
		b.set(k, keyRecord{entry: &Entry{Key: k, State: Down}})
		for _, target := range keys {
			for _, local := range []bool{true, false} {
				q := newQuery(target.Service, target.Host, target.Port, local)
				v, _ := b.view(q, time.Now)
				if found := v.Override != nil; found != k.Covers(q.key, local) || found != slices.Contains(q.keys(), k) {
					t.Errorf("an override of %s for %s (local %v): found %v", k.Name(), q.key.Name(), local, found)
				}
			}
		}
	}
}
