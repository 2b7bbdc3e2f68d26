package balancer

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"hacheck/internal/share"
	"hacheck/internal/spool"
)

// rowKey identifies a row among those of a service.
type rowKey struct {
	peer, node, name string
	url              string // "" if the state header has a name
}

// row is one balancer's view of one server.
type row struct {
	service *ServiceRecord
	client  netip.Prefix
	place   *share.Entry[*row]

	key      rowKey
	hasState bool
	header   []byte // the state header, at most maxHeader bytes; only a report parses it
	url      string
	host     string
	port     uint16
	local    bool

	received       time.Time // the last request
	last, previous answer
	outAnswers     int       // answers in a row, last included, by an override that takes the server out
	sameAnswers    int       // answers in a row, last included, with the code and override of last
	sameSince      time.Time // the first of sameAnswers
	intervals      intervals
	requests       uint
}

type answer struct {
	at       time.Time
	code     int
	override spool.State
}

// record records a request. service.mu is held.
func (w *row) record(r *AnsweredRequest) {
	if w.requests > 0 {
		w.intervals.add(w.requests, r.Answered.Sub(w.last.at))
	}
	w.requests++
	w.hasState = r.HasState
	w.header = append(w.header[:0], truncate(r.State, maxHeader)...)
	if url := truncate(r.URL, maxName); w.url != url {
		w.url = strings.Clone(url)
	}
	if w.host != r.Host {
		w.host = strings.Clone(r.Host)
	}
	w.port, w.local = r.Port, r.Local

	if w.received = r.Received; w.received.IsZero() {
		w.received = r.Answered
	}
	w.previous = w.last
	w.last = answer{r.Answered, r.Code, r.Override}
	if w.requests == 1 || w.last.code != w.previous.code || w.last.override != w.previous.override {
		w.sameSince, w.sameAnswers = r.Answered, 0
	}
	w.sameAnswers++
	if r.Override.TakesOut() {
		w.outAnswers++
	} else {
		w.outAnswers = 0
	}
}

// interval returns the usual time between two requests, 0 after the first. It is the median of the latest intervals,
// because a balancer asks faster or slower while a server is about to go up or down.
func (w *row) interval() time.Duration { return w.intervals.median(w.requests) }

// silentAfter returns after how long without a request the balancer is silent.
func (w *row) silentAfter() time.Duration {
	if w.requests < 2 {
		return silentAfterOneRequest
	}
	return SilentAfter(w.interval())
}

// SilentAfter returns after how long without a request a balancer with that interval is silent.
func SilentAfter(interval time.Duration) time.Duration {
	return max(minSilence, silentIntervals*interval)
}

func (w *row) isExpired(now time.Time) bool {
	least := rowTTL
	if !w.hasState {
		least = statelessRowTTL
	}
	return now.Sub(w.last.at) > max(least, 2*w.silentAfter())
}

// requestCount returns how many requests the balancer has sent.
func (w *row) requestCount() uint64 {
	w.service.mu.Lock()
	defer w.service.mu.Unlock()
	return uint64(w.requests)
}

// intervals is a ring of the latest intervals in milliseconds.
type intervals [8]uint32

// add adds the interval that followed that many requests.
func (v *intervals) add(requests uint, interval time.Duration) {
	v[(requests-1)%uint(len(v))] = uint32(min(max(interval, 0)/time.Millisecond, 1<<31))
}

// median returns the median of the latest intervals after that many requests, 0 if there are none.
func (v intervals) median(requests uint) time.Duration {
	if requests < 2 {
		return 0
	}
	n := min(requests-1, uint(len(v)))
	slices.Sort(v[:n])
	return time.Duration(v[n/2]) * time.Millisecond
}
