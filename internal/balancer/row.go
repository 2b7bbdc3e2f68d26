package balancer

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"hacheck/internal/share"
	"hacheck/internal/spool"
)

// rowKey tells balancers' views of servers apart.
type rowKey struct {
	peer, node, name string
	url              string // "" when there is a state header that says more
}

// row is one balancer's view of one server.
type row struct {
	service *Service
	client  netip.Prefix
	place   *share.Place[*row]

	key   rowKey
	sent  bool
	state []byte // the header as it came, cut at maxHeader; read when somebody wants to know
	url   string
	host  string
	port  uint16
	here  bool

	came           time.Time // the last request
	last, previous answer
	out            int       // answers in a row, last included, by an override that takes the server out
	alike          int       // answers in a row, last included, like the last
	same           time.Time // of the first of the answers in a row that are like the last
	gaps           gaps
	asked          uint // requests
}

type answer struct {
	at       time.Time
	code     int
	override spool.State
}

// enter enters a request in its row.
func (w *row) enter(r *Request) {
	if w.asked > 0 {
		w.gaps.add(w.asked, r.Answered.Sub(w.last.at))
	}
	w.asked++
	w.sent = r.HasState
	w.state = append(w.state[:0], cut(r.State, maxHeader)...)
	if url := cut(r.URL, maxName); w.url != url {
		w.url = strings.Clone(url)
	}
	if w.host != r.Host {
		w.host = strings.Clone(r.Host)
	}
	w.port, w.here = r.Port, r.Here

	if w.came = r.Received; w.came.IsZero() {
		w.came = r.Answered
	}
	w.previous = w.last
	w.last = answer{r.Answered, r.Code, r.Override}
	if w.asked == 1 || w.last.code != w.previous.code || w.last.override != w.previous.override {
		w.same, w.alike = r.Answered, 0
	}
	w.alike++
	if takesOut(r.Override) {
		w.out++
	} else {
		w.out = 0
	}
}

// takesOut reports whether an override of that state takes its server out of service.
func takesOut(s spool.State) bool { return s == spool.Drain || s == spool.Down || s == spool.Maint }

// interval is the usual time between two requests: the median of the latest, since a balancer asks faster
// or slower while a server is on its way up or down. It is 0 when there was one request.
func (w *row) interval() time.Duration { return w.gaps.median(w.asked) }

// silence is after how long without a request w is silent.
func (w *row) silence() time.Duration {
	if w.asked < 2 {
		return silentUnknown
	}
	return max(silentAtLeast, silentIntervals*w.interval())
}

func (w *row) forgotten(now time.Time) bool {
	least := forgetAfter
	if !w.sent {
		least = forgetStateless
	}
	return now.Sub(w.last.at) > max(least, 2*w.silence())
}

// questions is how often w's balancer has asked.
func (w *row) questions() uint64 {
	w.service.mu.Lock()
	defer w.service.mu.Unlock()
	return uint64(w.asked)
}

// gaps are the latest intervals in ms, a ring.
type gaps [8]uint32

// add enters the interval after that many requests.
func (g *gaps) add(asked uint, gap time.Duration) {
	g[(asked-1)%uint(len(g))] = uint32(min(max(gap, 0)/time.Millisecond, 1<<31))
}

// median is that of the latest intervals after that many requests, 0 when there are none.
func (g gaps) median(asked uint) time.Duration {
	if asked < 2 {
		return 0
	}
	n := min(asked-1, uint(len(g)))
	slices.Sort(g[:n])
	return time.Duration(g[n/2]) * time.Millisecond
}
