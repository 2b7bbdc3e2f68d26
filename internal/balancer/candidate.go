package balancer

import (
	"hash/maphash"
	"time"

	"hacheck/internal/clients"
)

// candidate is a client that sends no state and may be a balancer. It is taken for one when it sends its third request
// at a steady interval. Two clients with the same hash count as one.
type candidate struct {
	hash     uint64        // of the client's address and its URL
	client   uint64        // hash of the client's network
	at       time.Time     // of its last request
	interval time.Duration // between its last two requests; 0 after the first
}

// steadyInterval records r, which has no state, with its candidate. It returns the interval if r is the third request
// at a steady one, else 0. s.mu is held.
func (s *ServiceRecord) steadyInterval(r *AnsweredRequest) time.Duration {
	var h maphash.Hash
	h.SetSeed(s.t.seed)
	_, _ = h.WriteString(r.Peer) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(r.URL)
	hash := h.Sum64()
	for i := range s.candidates {
		if c := &s.candidates[i]; c.hash == hash {
			return c.observe(r.Answered)
		}
	}
	c := candidate{hash: hash, client: maphash.Comparable(s.t.seed, clients.NetworkOf(r.Peer)), at: r.Answered}
	if len(s.candidates) < maxCandidates {
		s.candidates = append(s.candidates, c)
	} else {
		s.candidates[s.candidateToReplace(c.client)] = c
	}
	return 0
}

// candidateToReplace returns the index of the candidate that makes room for a new one of client: the oldest of the
// client that has the most, or of client itself if no other has more.
func (s *ServiceRecord) candidateToReplace(client uint64) int {
	count := map[uint64]int{}
	for _, c := range s.candidates {
		count[c.client]++
	}
	oldest, most := -1, max(count[client], 1)
	for i, c := range s.candidates {
		n := count[c.client]
		switch {
		case n < most || n == most && most == count[client] && c.client != client:
		case n > most || oldest < 0 || c.at.Before(s.candidates[oldest].at):
			oldest, most = i, n
		}
	}
	return oldest
}

// observe records another request. It returns the interval if the request is the third at a steady one, else 0.
func (c *candidate) observe(at time.Time) time.Duration {
	interval := at.Sub(c.at)
	if interval < minSteadyInterval {
		return 0 // two threads of a load test, or a person
	}
	previous := c.interval
	c.at, c.interval = at, interval
	if previous > 0 && max(interval, previous) <= maxSteadyRatio*min(interval, previous) {
		return interval
	}
	return 0
}
