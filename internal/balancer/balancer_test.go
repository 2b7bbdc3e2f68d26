package balancer

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

// tableOnTestClock is a table with a clock that the test moves.
type tableOnTestClock struct {
	*Table
	at  time.Time
	web *ServiceRecord
}

func newTableOnTestClock() *tableOnTestClock {
	w := &tableOnTestClock{at: time.Now()}
	w.Table = newTable(func() time.Time { return w.at })
	w.web = w.Service("web")
	return w
}

// ask moves the clock and records a request.
func (w *tableOnTestClock) ask(after time.Duration, r AnsweredRequest) {
	w.at = w.at.Add(after)
	r.Answered = w.at
	if r.Peer == "" {
		r.Peer = "10.0.0.1"
	}
	if r.Code == 0 {
		r.Code = 200
	}
	w.web.Record(&r)
}

func n(i int) *int { return &i }

func TestReportOfBalancerWithState(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	r := AnsweredRequest{
		HasState: true, Node: "lb1", Name: "be/web1", URL: "/http/web/8080/status", Host: "127.0.0.1", Port: 8080, Local: true,
		State: "UP; address=127.0.0.1; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=1; throttle=40%",
	}
	w.ask(0, r)
	want := ServerView{
		Service: "web", Host: "127.0.0.1", Port: 8080, Local: true, URL: "/http/web/8080/status",
		Address: "10.0.0.1", Node: "lb1", Server: "be/web1",
		State: "UP", Sessions: n(13), Queued: n(1), Weight: n(1), TotalWeight: n(2), Throttle: "40%",
		Last: Answer{Code: 200}, SameAnswers: 1,
	}
	if d := cmp.Diff([]ServerView{want}, w.Report("web").Balancers); d != "" {
		t.Fatal(d)
	}
	w.ask(2*time.Second, r)
	w.ask(2*time.Second, r)
	r.State, r.Code, r.Override = "UP 1/3; scur=3/22; qcur=0", 404, spool.Drain
	w.ask(2*time.Second, r)
	r.State = "NOLB 2/2; scur=0/22"
	w.ask(2*time.Second, r)
	w.at = w.at.Add(500 * time.Millisecond)
	want.RequestAge = 0.5
	want.State, want.Sessions, want.Queued, want.Weight, want.TotalWeight, want.Throttle = "NOLB 2/2", n(0), nil, nil, nil, ""
	want.Interval, want.OutAnswers, want.SameAnswers, want.SameFor = 2, 2, 2, 2.5
	want.Last = Answer{Age: 0.5, Code: 404, Override: "drain"}
	want.Previous = &Answer{Age: 2.5, Code: 404, Override: "drain"}
	if d := cmp.Diff([]ServerView{want}, w.Report("").Balancers); d != "" {
		t.Error(d)
	}
	if got := w.Report("other").Balancers; len(got) != 0 {
		t.Errorf("another service has %+v", got)
	}
	r.Code, r.Override = 200, spool.ForceUp
	w.ask(2*time.Second, r)
	if b := w.Report("").Balancers[0]; b.OutAnswers != 0 || b.SameFor != 0 || b.Last.Override != "up" {
		t.Errorf("after force-up: %+v", b)
	}
}

func TestParseServerState(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]ServerState{
		"UP":          {State: "UP"},
		"DOWN 1/2":    {State: "DOWN 1/2"},
		"no check":    {State: "no check"},
		"UP;scur=1/2": {State: "UP", Sessions: "1/2"},
		"UP 2/3; address=unix; port=0; name=be/srv; node=N; weight=1/2; scur=13/22; qcur=7": {
			State: "UP 2/3", Address: "unix", Port: "0", Name: "be/srv", Node: "N", Weight: "1/2", Sessions: "13/22", Queued: "7",
		},
		" UP ; host=10.0.0.5;port = 1;port= 80 ;throttle=7%": {State: "UP", Port: "80", Throttle: "7%"},
		"UP; scur=1; scur=2; scur=1=3":                       {State: "UP", Sessions: "2"},
		"":                                                   {},
		";;;=;==":                                            {},
	} {
		if d := cmp.Diff(want, ParseServerState(header)); d != "" {
			t.Errorf("%q: %s", header, d)
		}
	}
}

func TestServerStateOfSeveralHeaders(t *testing.T) {
	t.Parallel()
	s := ParseServerState("UP; address=10.0.0.5; port=80")
	s.Update("DOWN; port=81; node=lb1")
	if d := cmp.Diff(ServerState{State: "DOWN", Address: "10.0.0.5", Port: "81", Node: "lb1"}, s); d != "" {
		t.Error(d)
	}
}

// TestStateInReport has every form of the header that HAProxy sends, and forms that no client should send.
func TestStateInReport(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]ServerView{
		"UP":       {State: "UP"},
		"UP 1/3":   {State: "UP 1/3"},
		"DOWN":     {State: "DOWN"},
		"NOLB 2/2": {State: "NOLB 2/2"},
		"no check": {State: "no check"},
		"UP 2/3; address=unix; port=0; name=be/srv; node=N; weight=1/2; scur=13/22; qcur=7": {
			State: "UP 2/3", Sessions: n(13), Queued: n(7), Weight: n(1), TotalWeight: n(2),
		},
		"UP; host=10.0.0.5; scur=0/0; qcur=0; weight=0/0; throttle=7%":  {State: "UP", Sessions: n(0), Queued: n(0), Weight: n(0), TotalWeight: n(0), Throttle: "7%"},
		"UP; scur=-1/2; qcur=9999999999999999999; weight=a/b; scur=1=2": {State: "UP"},
		"UP; weight=3":          {State: "UP", Weight: n(3)},
		"\x00\xff\n<b>; scur=4": {State: "???<b>", Sessions: n(4)},
		strings.Repeat("U", 99): {State: strings.Repeat("U", maxStateWords)},
	} {
		var b ServerView
		b.setState(header)
		if d := cmp.Diff(want, b); d != "" {
			t.Errorf("%q: %s", header, d)
		}
	}
}

func FuzzServerState(f *testing.F) {
	for _, s := range []string{"UP 2/3; address=A; port=P; name=be/srv; node=N; weight=1/2; scur=13/22; qcur=0; throttle=1%", "NOLB 2/2;;scur==", "no check\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		var b ServerView
		b.setState(header)
		if len(b.State) > maxStateWords || len(b.Throttle) > maxStateWords {
			t.Fatalf("%q: too long: %+v", header, b)
		}
		for _, p := range []*int{b.Sessions, b.Queued, b.Weight, b.TotalWeight} {
			if p != nil && *p < 0 {
				t.Fatalf("%q: negative count: %+v", header, b)
			}
		}
		if strings.ContainsFunc(b.State+b.Throttle, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
			t.Fatalf("%q: not printable: %+v", header, b)
		}
	})
}

// TestRowIdentity: which requests belong to one row.
func TestRowIdentity(t *testing.T) {
	t.Parallel()
	base := AnsweredRequest{HasState: true, State: "UP", Peer: "10.0.0.1", Node: "lb1", Name: "be/web1", URL: "/tcp/web/1"}
	for name, c := range map[string]struct {
		change func(*AnsweredRequest)
		rows   int
	}{
		"the same":            {func(*AnsweredRequest) {}, 1},
		"another state":       {func(r *AnsweredRequest) { r.State = "DOWN" }, 1},
		"another URL":         {func(r *AnsweredRequest) { r.URL = "/tcp/web/2" }, 1},
		"same node elsewhere": {func(r *AnsweredRequest) { r.Peer = "10.0.0.2" }, 2},
		"another node":        {func(r *AnsweredRequest) { r.Node = "lb2" }, 2},
		"another server":      {func(r *AnsweredRequest) { r.Name = "be/web2" }, 2},
		"no names":            {func(r *AnsweredRequest) { r.Node, r.Name = "", "" }, 2},
		"a name that is cut":  {func(r *AnsweredRequest) { r.Name = strings.Repeat("x", 70_000) }, 2},
	} {
		w := newTableOnTestClock()
		w.ask(0, base)
		other := base
		c.change(&other)
		w.ask(time.Second, other)
		w.ask(time.Second, other)
		if got := w.Report("").Balancers; len(got) != c.rows {
			t.Errorf("%s: %d rows, want %d: %+v", name, len(got), c.rows, got)
		}
	}
}

// A client that sends no state is a balancer from its third request at a steady interval until it has missed three.
func TestClientWithoutState(t *testing.T) {
	t.Parallel()
	r := AnsweredRequest{URL: "/http/web/80/"}
	for name, c := range map[string]struct {
		gaps []time.Duration
		want int
	}{
		"two":               {[]time.Duration{0, 2 * time.Second}, 0},
		"three":             {[]time.Duration{0, 2 * time.Second, 2 * time.Second}, 1},
		"spread checks":     {[]time.Duration{0, 2 * time.Second, 3 * time.Second}, 1},
		"not steady":        {[]time.Duration{0, 2 * time.Second, 5 * time.Second}, 0},
		"steady in the end": {[]time.Duration{0, 2 * time.Second, 50 * time.Second, 50 * time.Second}, 1},
		"a load":            {[]time.Duration{0, time.Millisecond, time.Millisecond, time.Millisecond}, 0},
	} {
		w := newTableOnTestClock()
		for _, g := range c.gaps {
			w.ask(g, r)
		}
		if got := len(w.Report("").Balancers); got != c.want {
			t.Errorf("%s: %d balancers, want %d", name, got, c.want)
		}
	}

	w := newTableOnTestClock()
	for range 5 {
		w.ask(2*time.Second, r)
	}
	silent := func(after time.Duration) bool {
		w.at = w.at.Add(after)
		return w.Report("").Balancers[0].Silent
	}
	if silent(6 * time.Second) {
		t.Error("silent before it has missed three")
	}
	if !silent(time.Millisecond) {
		t.Error("not silent after it has missed three")
	}
	w.at = w.at.Add(statelessRowTTL)
	if got := w.Report("").Balancers; len(got) != 0 {
		t.Errorf("still there: %+v", got)
	}

	// Two clients that take turns are two balancers, each with a steady interval.
	w = newTableOnTestClock()
	for range 6 {
		w.ask(300*time.Millisecond, AnsweredRequest{URL: r.URL, Peer: "10.0.0.1"})
		w.ask(1700*time.Millisecond, AnsweredRequest{URL: r.URL, Peer: "10.0.0.2"})
	}
	if got := w.Report("").Balancers; len(got) != 2 || got[0].Interval != 2 || got[1].Interval != 2 {
		t.Errorf("two in turns: %+v", got)
	}
}

// A balancer is silent after three usual intervals, at least 5 s, and later if its interval is not known.
func TestSilent(t *testing.T) {
	t.Parallel()
	r := AnsweredRequest{HasState: true, Node: "lb1", Name: "be/s"}
	for _, c := range []struct {
		interval, silent time.Duration
		asked            int
	}{
		{200 * time.Millisecond, 5 * time.Second, 5},
		{2 * time.Second, 6 * time.Second, 5},
		{time.Minute, 3 * time.Minute, 5},
		{time.Second, 30 * time.Second, 1},
	} {
		w := newTableOnTestClock()
		for range c.asked {
			w.ask(c.interval, r)
		}
		w.at = w.at.Add(c.silent)
		if w.Report("").Balancers[0].Silent {
			t.Errorf("%v: silent after %v", c.interval, c.silent)
		}
		w.at = w.at.Add(time.Millisecond)
		if !w.Report("").Balancers[0].Silent {
			t.Errorf("%v: not silent after more than %v", c.interval, c.silent)
		}
	}
	// Faster checks on the way down do not make it silent: the interval is the usual one.
	w := newTableOnTestClock()
	for range 8 {
		w.ask(10*time.Second, r)
	}
	for range 3 {
		w.ask(100*time.Millisecond, r)
	}
	if got := w.Report("").Balancers[0].Interval; got != 10 {
		t.Errorf("interval %v after a few fast ones, want 10", got)
	}
}

// Rows and services expire.
func TestExpiry(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	for i := range 50 {
		w.ask(0, AnsweredRequest{HasState: true, Node: fmt.Sprint(i), Name: "be/s"})
	}
	w.at = w.at.Add(rowTTL)
	if got := len(w.Report("").Balancers); got != 50 {
		t.Errorf("%d balancers before their time, want 50", got)
	}
	w.at = w.at.Add(time.Second)
	if got := len(w.Report("").Balancers); got != 0 || w.rows.Len() != 0 || len(w.services) != 0 {
		t.Errorf("%d balancers, %d rows, %d services are left", got, w.rows.Len(), len(w.services))
	}
	// A balancer that comes back gets a new row.
	w.ask(0, AnsweredRequest{HasState: true, Node: "1", Name: "be/s"})
	if got := w.Report("").Balancers; len(got) != 1 || got[0].Previous != nil {
		t.Errorf("after it came back: %+v", got)
	}
}

// No client has more than its share, and it does not displace the rows of other clients.
func TestBounds(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	w.ask(0, AnsweredRequest{HasState: true, Node: "lb1", Name: "be/s"})
	for i := range 10_000 {
		w.ask(0, AnsweredRequest{Peer: "10.6.6.6", HasState: true, Node: fmt.Sprintf("node-%d", i), Name: "be/s", State: strings.Repeat("U", 64<<10)})
	}
	r := w.Report("")
	if len(r.Balancers) != 1+maxRowsOfClient || r.UnrecordedRequests != 10_000-maxRowsOfClient {
		t.Errorf("%d balancers and %d unrecorded after ten thousand names of one client", len(r.Balancers), r.UnrecordedRequests)
	}
	w.ask(2*time.Second, AnsweredRequest{HasState: true, Node: "lb1", Name: "be/s"})
	if b := w.Report("").Balancers; b[0].Node != "lb1" || b[0].Interval != 2 {
		t.Errorf("the first one: %+v", b[0])
	}
	if u := w.Report("web").Unrecorded; len(u) != 1 || u[0].Client != "10.6.6.6" || len(w.Report("other").Unrecorded) != 0 {
		t.Errorf("not recorded: %+v", u)
	}
	for s := range 1000 {
		for i := range 30 {
			w.Service(fmt.Sprintf("svc-%d", s)).Record(&AnsweredRequest{Peer: "10.6.6.6", HasState: true, Node: fmt.Sprint(i), Name: "be/s", Answered: w.at})
		}
	}
	if got := w.rows.Len(); got != maxRows {
		t.Errorf("%d rows, want %d", got, maxRows)
	}
	// The client that fills the table gets no more rows. Other clients get rows from it and none from each other.
	for i := range 3_000 {
		w.Service(fmt.Sprintf("svc-%d", i%500)).Record(&AnsweredRequest{Peer: fmt.Sprintf("10.7.%d.%d", i>>8, i&255), HasState: true, Node: "n", Name: "be/s", Answered: w.at})
	}
	others := 0
	for _, b := range w.Report("").Balancers {
		if b.Address != "10.6.6.6" {
			others++
		}
	}
	if w.rows.Len() != maxRows || others != 3_001 {
		t.Errorf("%d rows, %d of them of others, want %d and %d", w.rows.Len(), others, maxRows, 3_001)
	}
	if b := w.Report("web").Balancers; b[0].Node != "lb1" {
		t.Errorf("the first one is gone: %+v", b[0])
	}
	// Unrecorded requests count for their service and for all services.
	if own, all := w.Report("web").UnrecordedRequests, w.Report("").UnrecordedRequests; own != 10_000-maxRowsOfClient || all <= own {
		t.Errorf("unrecorded: %d of web, %d of all", own, all)
	}
	// After the flood has expired, a new balancer gets a row.
	w.at = w.at.Add(rowTTL + time.Minute)
	w.ask(0, AnsweredRequest{Peer: "10.0.0.9", HasState: true, Node: "new", Name: "be/s"})
	if got := w.Report("web"); len(got.Balancers) != 1 || got.Balancers[0].Node != "new" || len(got.Unrecorded) != 0 {
		t.Errorf("after the flood: %+v", got)
	}
	w.at = w.at.Add(rowTTL + time.Second)
	if r := w.Report(""); r.UnrecordedRequests != 0 || len(w.services) != 0 {
		t.Errorf("%d unrecorded and %d services long after the flood", r.UnrecordedRequests, len(w.services))
	}
	// RequestAge counts from the request, not from its answer.
	w.ask(0, AnsweredRequest{HasState: true, Node: "slow", Name: "be/s", Received: w.at.Add(-3 * time.Second)})
	if b := w.Report("web").Balancers[0]; b.RequestAge != 3 || b.Last.Age != 0 {
		t.Errorf("a slow answer: %+v", b)
	}
}

// The index of many rows finds the same rows as the linear search.
func TestManyRows(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	r := rand.New(rand.NewPCG(3, 4))
	count := map[string]int{}
	for range 5_000 {
		peer := fmt.Sprintf("10.0.0.%d", r.IntN(100))
		count[peer]++
		w.ask(10*time.Millisecond, AnsweredRequest{Peer: peer, HasState: true, Node: "lb", Name: "be/s", Code: 503, Override: spool.Down})
	}
	got := w.Report("").Balancers
	if len(got) != 100 {
		t.Fatalf("%d balancers, want 100", len(got))
	}
	for _, b := range got {
		if b.OutAnswers != count[b.Address] {
			t.Errorf("%s: %d answers, want %d", b.Address, b.OutAnswers, count[b.Address])
		}
	}
}

func TestAgents(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	told := func(peer, service, answer string) {
		w.at = w.at.Add(time.Second)
		w.RecordAgent(peer, service, answer)
	}
	told("10.0.0.1", "web", "up ready")
	told("10.0.0.1", "web", "ready down #why")
	told("10.0.0.1", "web", "ready down #another why")
	told("10.0.0.2", "all", "up ready")
	told("10.0.0.2", "web:80", "up drain")
	told("10.0.0.2", "db", "up ready")
	want := []Agent{
		{Service: "all", Address: "10.0.0.2", Answer: "up ready", Age: 2, SameFor: 2, SameAnswers: 1},
		{Service: "web", Address: "10.0.0.1", Answer: "ready down #another why", Age: 3, SameFor: 4, SameAnswers: 2, Confirmed: true},
		{Service: "web:80", Address: "10.0.0.2", Answer: "up drain", Age: 1, SameFor: 1, SameAnswers: 1},
	}
	if d := cmp.Diff(want, w.Report("web").Agents); d != "" {
		t.Error(d)
	}
	// An agent client is silent after 10 s while it may be a person, then after 3 intervals, at least 5 s.
	silent := func(after time.Duration, service string) bool {
		now := w.at
		defer func() { w.at = now }()
		w.at = now.Add(after)
		i := slices.IndexFunc(w.Report(service).Agents, func(a Agent) bool { return a.Service == service })
		return w.Report(service).Agents[i].Silent
	}
	if silent(9*time.Second, "db") || !silent(11*time.Second, "db") { // the last one
		t.Error("one that has asked once is silent before 10 s or not after them")
	}
	if silent(time.Second, "web") || !silent(3*time.Second, "web") { // 3 s ago
		t.Error("one that asks every second is silent before 5 s or not after them")
	}
	for range 3 {
		w.at = w.at.Add(4 * time.Second)
		w.RecordAgent("10.0.0.3", "mail", "up ready")
	}
	if silent(11*time.Second, "mail") || !silent(13*time.Second, "mail") {
		t.Error("one that asks every 4 s is silent before 12 s or not after them")
	}
	// A client that asks about ever new names does not displace the rows of other clients.
	for i := range maxAgents + 100 {
		w.RecordAgent("10.6.6.6", fmt.Sprintf("svc-%d", i), "up ready")
	}
	if got := len(w.Report("").Agents); got != maxAgents || len(w.Report("web").Agents) != 3 {
		t.Errorf("%d agents after a flood from one address, %d of web", got, len(w.Report("web").Agents))
	}
	if u := w.Report("svc-10050").Unrecorded; len(u) != 1 || u[0].Service != "svc-10050" || u[0].Client != "10.6.6.6" {
		t.Errorf("not recorded: %+v", u)
	}
	for i := range 3_000 {
		w.RecordAgent(fmt.Sprintf("10.1.%d.%d", i>>8, i&255), "web", "up ready")
	}
	if got := len(w.Report("").Agents); got != maxAgents || len(w.Report("web").Agents) != 3_000+3 {
		t.Errorf("%d agents, %d of web", got, len(w.Report("web").Agents))
	}
	w.at = w.at.Add(rowTTL + time.Second)
	told("10.9.9.9", "web", "up ready")
	if got := w.Report("").Agents; len(got) != 1 {
		t.Errorf("%d agents after the others were forgotten", len(got))
	}
}

// TestWeightEnd: answers to a client say the end for a minute from its first request after it, also when that comes
// late, and of each end anew.
func TestWeightEnd(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	const first, second = 1_000, 2_000
	asks := func(peer string, ended int64, want bool) {
		t.Helper()
		if got := w.TellsWeightEnd(peer, "web", time.Unix(ended, 0)); got != want {
			t.Errorf("the answer to %s says the end: %v, want %v", peer, got, want)
		}
		w.RecordAgent(peer, "web", "up ready")
	}
	asks("10.0.0.1", first, true) // it has no row
	asks("10.0.0.1", first, true)
	w.at = w.at.Add(weightEndTime - time.Second)
	asks("10.0.0.1", first, true)
	w.at = w.at.Add(time.Second)
	asks("10.0.0.1", first, false)
	asks("10.0.0.2", first, true) // it was away until now
	asks("10.0.0.2", first, true)
	asks("10.0.0.1", second, true)
	w.at = w.at.Add(weightEndTime)
	asks("10.0.0.1", second, false)
	asks("10.0.0.2", first, false)
}

// TestSameAnswersWithWeights: another weight is the same answer: the server is up.
func TestSameAnswersWithWeights(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	for _, answer := range []string{"up drain", "up ready 25%", "up ready 100%", "up ready"} {
		w.RecordAgent("10.0.0.1", "web", answer)
	}
	if got := w.Report("web").Agents[0].SameAnswers; got != 3 {
		t.Errorf("%d answers alike, want 3", got)
	}
}

// BenchmarkRecord measures what Record adds to every check.
func BenchmarkRecord(b *testing.B) {
	for name, r := range map[string]AnsweredRequest{
		"state":    {Peer: "10.0.0.1", HasState: true, Node: "lb1", Name: "be/web1", URL: "/http/web/80/", State: "UP; address=127.0.0.1; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=1"},
		"no state": {Peer: "10.0.0.1", URL: "/http/web/80/"},
	} {
		b.Run(name, func(b *testing.B) {
			s := New().Service("web")
			r.Answered = time.Now()
			b.ReportAllocs()
			for b.Loop() {
				r.Answered = r.Answered.Add(time.Second)
				s.Record(&r)
			}
		})
	}
}

// Many clients without a state from one address leave room for a balancer from another address.
func TestCandidates(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	for round := range 3 {
		w.ask(2*time.Second, AnsweredRequest{Peer: "10.0.0.1", URL: "/http/web/80/"})
		for i := range 100 {
			w.ask(0, AnsweredRequest{Peer: "10.6.6.6", URL: fmt.Sprintf("/http/web/80/%d-%d", round, i)})
		}
	}
	if got := w.Report("web").Balancers; len(got) != 1 || got[0].Address != "10.0.0.1" {
		t.Errorf("the balancer is not known: %+v", got)
	}
}

// A client without a row is reported until it has one or its last request is two minutes old. Beyond a number of
// services, the report has one client without a service, for services that had no row at that time.
func TestUnrecorded(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	w.RecordUnrecorded("web", "10.0.0.1")
	w.RecordEvicted("api", "2001:db8::1", w.at.Add(-5*time.Second))
	w.RecordEvicted("old", "10.0.0.1", w.at.Add(-3*time.Minute))
	want := []UnrecordedClient{{Service: "web", Client: "10.0.0.1"}, {Service: "api", Client: "2001:db8::/64", Age: 5}}
	if d := cmp.Diff(want, w.Report("").Unrecorded); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want[:1], w.Report("web").Unrecorded); d != "" {
		t.Error(d)
	}
	w.at = w.at.Add(time.Minute)
	w.ExpireUnrecorded("web", clients.NetworkOf("10.0.0.1"))
	w.at = w.at.Add(LearnTime)
	if got := w.Report("web").Unrecorded; len(got) != 1 {
		t.Errorf("not long enough after it is recorded: %+v", got)
	}
	w.at = w.at.Add(time.Second)
	if got := w.Report("").Unrecorded; len(got) != 1 || got[0].Service != "api" {
		t.Errorf("after one is recorded: %+v", got)
	}
	w.at = w.at.Add(time.Minute)
	if got := w.Report("").Unrecorded; len(got) != 0 {
		t.Errorf("after minutes of silence: %+v", got)
	}
	if got := w.UnrecordedOverflow(time.Time{}); len(got) != 0 {
		t.Errorf("all were remembered by name, and yet: %+v", got)
	}

	for i := range 2 * maxUnrecordedOfClient {
		w.RecordUnrecorded(fmt.Sprintf("invented-%d", i), "10.6.6.6")
	}
	w.RecordUnrecorded("web", "10.0.0.1")
	if got := w.Report("web").Unrecorded; len(got) != 1 || got[0].Client != "10.0.0.1" {
		t.Errorf("the names of one client leave no room for another: %+v", got)
	}
	if got := len(w.Report("").Unrecorded); got != maxUnrecordedOfClient+1 {
		t.Errorf("%d are remembered, want %d", got, maxUnrecordedOfClient+1)
	}
	if got := w.UnrecordedOverflow(w.at.Add(-time.Minute)); len(got) != 0 {
		t.Errorf("a service that has had a row for a minute: %+v", got)
	}
	for _, since := range []time.Time{{}, w.at.Add(-time.Second), w.at.Add(time.Second)} {
		if got := w.UnrecordedOverflow(since); len(got) != 1 || got[0].Client != "10.6.6.6" || got[0].Service != "" {
			t.Errorf("row since %v: %+v", since, got)
		}
	}
	for i := range 100_000 {
		w.RecordUnrecorded(fmt.Sprintf("invented-%d", i), fmt.Sprintf("10.7.%d.%d", i>>8&255, i&255))
	}
	if got := len(w.Report("").Unrecorded); got != maxUnrecorded {
		t.Errorf("%d are remembered, want %d", got, maxUnrecorded)
	}
	w.at = w.at.Add(LearnTime + time.Second)
	if got := w.UnrecordedOverflow(time.Time{}); len(got) != 0 {
		t.Errorf("long after: %+v", got)
	}
}

func TestFullTableIsLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	var log strings.Builder
	w.SetLogger(slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		w.LogFull("services", clients.NetworkOf("10.6.6.6"), 10_000)
		w.LogFull("agents", clients.NetworkOf("2001:db8::1"), 10_000)
		w.at = w.at.Add(25 * time.Second)
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "table=services client=10.6.6.6 rows=10000") || !strings.Contains(got, "client=2001:db8::/64") {
		t.Errorf("logged within a minute:\n%s", got)
	}
	w.LogFull("services", clients.NetworkOf("10.6.6.6"), 10_000)
	if got := log.String(); strings.Count(got, "\n") != 3 {
		t.Errorf("logged after it:\n%s", got)
	}
}
