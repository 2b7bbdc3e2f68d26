package share_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"hacheck/internal/share"
)

type row struct {
	name  int
	asked uint64
	place *share.Entry[*row]
}

func network(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 32)
}

func add(s *share.Shares[*row], client, name int) *row {
	r := &row{name: name, asked: 1}
	r.place = s.Add(network(client), r)
	return r
}

func newShares() *share.Shares[*row] {
	return share.New(func(r *row) uint64 { return r.asked })
}

// TestDisplace: the client with the most rows loses the one that was not asked about for longest, to a client with
// fewer, until both have the same.
func TestDisplace(t *testing.T) {
	t.Parallel()
	s := newShares()
	add(s, 1, 100)
	var rows []*row
	for i := range 9 {
		rows = append(rows, add(s, 6, i))
	}
	if s.Largest() != network(6) || s.Len() != 10 || s.RowsOf(network(6)) != 9 {
		t.Fatalf("largest %v, %d of %d", s.Largest(), s.RowsOf(network(6)), s.Len())
	}
	if r, ok := s.Evict(network(6)); ok {
		t.Errorf("the largest client displaced row %d of its own", r.name)
	}
	rows[0].asked++ // this one is asked about again
	rows[2].asked++
	var gone []int
	for range 4 {
		r, ok := s.Evict(network(1))
		if !ok {
			t.Fatal("no room for a client with fewer rows")
		}
		gone = append(gone, r.name)
		add(s, 1, 100)
	}
	if want := [4]int{1, 3, 4, 5}; [4]int(gone) != want {
		t.Errorf("displaced %v, want %v", gone, want)
	}
	if _, ok := s.Evict(network(1)); ok || s.RowsOf(network(1)) != 5 || s.RowsOf(network(6)) != 5 {
		t.Errorf("a client with as many rows as the largest displaced one: %d and %d", s.RowsOf(network(1)), s.RowsOf(network(6)))
	}
}

// TestEmpty: an empty table has no largest client, and nothing to displace.
func TestEmpty(t *testing.T) {
	t.Parallel()
	s := newShares()
	if _, ok := s.Evict(network(1)); ok || s.Largest().IsValid() {
		t.Error("an empty table has a row to displace")
	}
	s.Remove(add(s, 1, 1).place)
	if s.Len() != 0 || s.RowsOf(network(1)) != 0 || s.Largest().IsValid() {
		t.Error("a row is left")
	}
}

// TestSharesAgree: whatever comes and goes, the counts are right and the largest client is the largest.
func TestSharesAgree(t *testing.T) {
	t.Parallel()
	const most = 200
	s, rnd := newShares(), rand.New(rand.NewPCG(1, 2))
	rows, owner := map[*row]int{}, map[int]int{}
	for i := range 20_000 {
		client := int(rnd.ExpFloat64() * 5)
		switch {
		case rnd.IntN(4) == 0:
			for r, c := range rows {
				s.Remove(r.place)
				delete(rows, r)
				owner[c]--
				break
			}
		case s.Len() < most:
			rows[add(s, client, i)] = client
			owner[client]++
		default:
			r, ok := s.Evict(network(client))
			largest := 0
			for _, n := range owner {
				largest = max(largest, n)
			}
			if ok != (owner[client]+1 < largest) {
				t.Fatalf("a client with %d rows displaced one of a client with %d: %v", owner[client], largest, ok)
			}
			if ok {
				if owner[rows[r]] != largest {
					t.Fatalf("displaced a row of a client with %d, the largest has %d", owner[rows[r]], largest)
				}
				owner[rows[r]]--
				delete(rows, r)
			}
		}
		if s.Len() != len(rows) || s.RowsOf(network(client)) != owner[client] {
			t.Fatalf("%d rows, %d of client %d; want %d and %d", s.Len(), s.RowsOf(network(client)), client, len(rows), owner[client])
		}
	}
}
