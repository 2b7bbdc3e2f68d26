package balancer

import (
	"hash/maphash"
	"time"

	"hacheck/internal/clients"
)

// candidate is an asker that sends no state and may be a balancer: it is one from its third request at a
// steady interval on. Of two whose hashes are the same the second is mistaken for the first.
type candidate struct {
	hash   uint64
	client uint64 // hash of the client's network
	at     time.Time
	gap    time.Duration // between the two requests before; 0 when there was one
}

// steady returns the interval at which r, of an asker that sends no state, is the third, or 0 when it is not.
func (s *Service) steady(r *Request) time.Duration {
	var h maphash.Hash
	h.SetSeed(s.t.seed)
	_, _ = h.WriteString(r.Peer) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(r.URL)
	hash := h.Sum64()
	if s.candidate.at.IsZero() {
		s.candidate = candidate{hash: hash, client: maphash.Comparable(s.t.seed, clients.NetworkOf(r.Peer)), at: r.Answered}
		return 0
	}
	if s.candidate.hash == hash {
		return s.candidate.again(r.Answered)
	}
	for i := range s.candidates {
		if c := &s.candidates[i]; c.hash == hash {
			return c.again(r.Answered)
		}
	}
	c := candidate{hash: hash, client: maphash.Comparable(s.t.seed, clients.NetworkOf(r.Peer)), at: r.Answered}
	if len(s.candidates) < maxCandidates-1 {
		s.candidates = append(s.candidates, c)
	} else {
		*s.leastCandidate(c.client) = c
	}
	return 0
}

// leastCandidate returns the candidate that makes room for one of a client: the oldest of the client that has the
// most, or of its own when it has as many.
func (s *Service) leastCandidate(client uint64) *candidate {
	all := make([]*candidate, 0, maxCandidates)
	all = append(all, &s.candidate)
	for i := range s.candidates {
		all = append(all, &s.candidates[i])
	}
	count := func(client uint64) (n int) {
		for _, c := range all {
			if c.client == client {
				n++
			}
		}
		return n
	}
	var least *candidate
	most := max(count(client), 1)
	for _, c := range all {
		n := count(c.client)
		switch {
		case n < most || n == most && most == count(client) && c.client != client:
		case n > most || least == nil || c.at.Before(least.at):
			least, most = c, n
		}
	}
	return least
}

// again enters another request and returns the interval when it is the third at a steady one, else 0.
func (c *candidate) again(at time.Time) time.Duration {
	gap := at.Sub(c.at)
	if gap < steadyAtLeast {
		return 0 // the same question twice: two threads of a load, or a person
	}
	before := c.gap
	c.at, c.gap = at, gap
	if before > 0 && max(gap, before) <= steadyRatio*min(gap, before) {
		return gap
	}
	return 0
}
