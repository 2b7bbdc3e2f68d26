package fleet

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/test/servertest"
)

// simFarm is a farm with one balancer, which checks every host of its backend. It observes by its own clock how many
// hosts are out: from the moment an override is written until the balancer has the host up again.
type simFarm struct {
	t         *testing.T
	endpoints []string
	processes int                             // that have hosts in the backend, each as many as this one
	onEvent   func(h *simHost, what simEvent) // optional; called under mu

	mu    sync.Mutex
	hosts []*simHost
	most  int      // out at one moment
	order []string // hosts in the order of their overrides
}

// simEvent is a change of a host.
type simEvent string

const (
	eventDown  simEvent = "down"  // an override takes it out
	eventWrite simEvent = "write" // an override was written
	eventUp    simEvent = "up"    // no override takes it out any more, and the balancer has it up
)

// simHost is a Fleet of one host with its spool.
type simHost struct {
	*Fleet
	farm    *simFarm
	name    string
	service string
	log     *testLog
	o       Options

	// Guarded by farm.mu.
	overrides map[spool.Key]spool.Entry
	isUp      bool // as the balancer has it
	isFailing bool // its check fails
	isSilent  bool // the balancer does not ask any more
	isAway    bool // from eventDown until eventUp
	state     string
	total     int // usable servers at the last request
	last      simAnswer
	previous  simAnswer
	same      int
}

type simAnswer struct {
	at       time.Time
	code     int
	override string
}

const (
	simEvery = 20 * time.Millisecond // between two checks of the balancer
	simCount = 2                     // answers until the balancer changes the state of a server
)

func newSimFarm(t *testing.T, etcd *servertest.EtcdServer) *simFarm {
	t.Helper()
	return startSimFarm(&simFarm{t: t, endpoints: etcd.URLs(), processes: 1})
}

// startSimFarm starts the balancer of f.
func startSimFarm(f *simFarm) *simFarm {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(simEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				f.check()
			}
		}
	}()
	f.t.Cleanup(func() { close(stop); <-stopped })
	return f
}

// host starts the Fleet of a host of web, which the balancer has up.
func (f *simFarm) host(name string, mend ...func(*Options)) *simHost {
	f.t.Helper()
	return f.hostOf("web", name, mend...)
}

// hostOf starts the Fleet of a host of a service.
func (f *simFarm) hostOf(service, name string, mend ...func(*Options)) *simHost {
	f.t.Helper()
	h := &simHost{farm: f, name: name, service: service, log: &testLog{}, overrides: map[spool.Key]spool.Entry{}, isUp: true, state: "UP"}
	h.o = Options{
		Endpoints: f.endpoints, Prefix: "/hacheck/", Host: name, Lease: 20 * time.Second, StartWait: 5 * time.Second,
		StateDir: f.t.TempDir(), Version: "1.2.3", Overrides: h, Spool: h, Balancers: h.balancers,
		Credentials: func() (Credentials, error) { return Credentials{}, nil },
		Log:         slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, m := range mend {
		m(&h.o)
	}
	f.mu.Lock()
	f.hosts = append(f.hosts, h)
	f.mu.Unlock()
	h.open()
	f.t.Cleanup(func() {
		h.close()
		if f.t.Failed() {
			h.log.mu.Lock()
			defer h.log.mu.Unlock()
			f.t.Logf("log of %s:\n%s", name, h.log.buf.String())
		}
	})
	return h
}

func (h *simHost) open() {
	h.farm.t.Helper()
	f, err := Open(h.o)
	if err != nil {
		h.farm.t.Fatal(err)
	}
	h.Fleet = f
}

func (h *simHost) close() {
	if h.Fleet != nil {
		_ = h.Close()
		h.Fleet = nil
	}
}

// check is one round of the balancer.
func (f *simFarm) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	up := map[string]int{} // by service
	for _, h := range f.hosts {
		if h.isUp {
			up[h.service] += f.processes
		}
	}
	for _, h := range f.hosts {
		if !h.isSilent {
			h.check(up[h.service])
			h.noticeUp()
		}
	}
	f.count()
}

func (h *simHost) check(up int) {
	a := simAnswer{at: time.Now(), code: 200}
	switch o := h.override(); {
	case o != nil && o.State.TakesOut():
		a.code, a.override = 503, o.State.String()
	case h.isFailing:
		a.code = 503
	}
	h.state, h.total = "DOWN", up
	if h.isUp {
		h.state = "UP"
	}
	h.previous, h.last = h.last, a
	if h.same++; h.previous.code != a.code || h.previous.override != a.override {
		h.same = 1
	}
	if h.same >= simCount {
		h.isUp = a.code == 200
	}
}

// noticeUp ends the time for which the host is away. f.mu is held.
func (h *simHost) noticeUp() {
	if o := h.override(); h.isAway && h.isUp && (o == nil || !o.State.TakesOut()) {
		h.isAway = false
		h.event(eventUp)
	}
}

func (h *simHost) event(what simEvent) {
	if h.farm.onEvent != nil {
		h.farm.onEvent(h, what)
	}
}

// override returns the strongest override in force. f.mu is held.
func (h *simHost) override() (strongest *spool.Entry) {
	for _, e := range h.overrides {
		if !e.Expired(time.Now()) && (strongest == nil || e.State > strongest.State) {
			strongest = &e
		}
	}
	return strongest
}

// count observes how many hosts are out. f.mu is held.
func (f *simFarm) count() {
	n := 0
	for _, h := range f.hosts {
		if o := h.override(); !h.isUp || o != nil && o.State.TakesOut() {
			n++
		}
	}
	f.most = max(f.most, n)
}

// wantMost fails unless n hosts were out at some moment, and never more.
func (f *simFarm) wantMost(n int) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most != n {
		f.t.Errorf("at most %d hosts were out at one moment, want %d", f.most, n)
	}
}

// balancers is the report of this host about its balancer.
func (h *simHost) balancers() balancer.Report {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	r := balancer.Report{Uptime: 100, Services: []balancer.LastRequest{}, Agents: []balancer.Agent{}, Unrecorded: []balancer.UnrecordedClient{}}
	if h.last.code == 0 {
		return r
	}
	weight, total := 1, h.total
	age := func(a simAnswer) balancer.Answer {
		return balancer.Answer{Age: time.Since(a.at).Seconds(), Code: a.code, Override: a.override}
	}
	row := balancer.ServerView{
		Service: h.service, Host: "127.0.0.1", Port: 80, Local: true, URL: "/http/" + h.service + "/80/", Address: "10.0.0.1", Node: "lb1", Server: "be/" + h.name,
		State: h.state, Weight: &weight, TotalWeight: &total, Interval: simEvery.Seconds(), Silent: h.isSilent, Last: age(h.last), SameAnswers: h.same,
	}
	row.RequestAge = row.Last.Age
	if h.previous.code != 0 {
		previous := age(h.previous)
		row.Previous = &previous
	}
	r.Balancers = []balancer.ServerView{row}
	r.Services = []balancer.LastRequest{{Service: h.service, Age: row.RequestAge}}
	return r
}

// SetFleet does nothing: the overrides of these hosts are all in the spool.
func (h *simHost) SetFleet([]spool.Entry) {}

// List returns the overrides in force.
func (h *simHost) List() []spool.Entry {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	var list []spool.Entry
	for _, e := range h.overrides {
		if !e.Expired(time.Now()) {
			list = append(list, e)
		}
	}
	return list
}

// Write puts an override into force.
func (h *simHost) Write(e spool.Entry) error {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	if e.Created.IsZero() {
		e.Created = time.Now()
	}
	if e.State.TakesOut() && !h.isAway {
		h.isAway = true
		h.event(eventDown)
	}
	h.event(eventWrite)
	h.overrides[e.Key] = e
	h.farm.order = append(h.farm.order, h.name)
	h.farm.count()
	return nil
}

// lift ends all overrides of the host.
func (h *simHost) lift() {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	clear(h.overrides)
}

// set changes the host under the lock of the farm.
func (h *simHost) set(change func()) {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	change()
}

// isOut reports whether an override takes the host out.
func (h *simHost) isOut() bool { return len(h.List()) > 0 }

// hasUp reports whether the balancer has the host up.
func (h *simHost) hasUp() bool {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	return h.isUp
}

// read reads the fleet from etcd.
func (h *simHost) read() *snapshot {
	h.farm.t.Helper()
	f, err := h.permits.readSnapshot(h.farm.t.Context(), nil)
	if err != nil {
		h.farm.t.Fatal(err)
	}
	return f
}

// waitMembers waits until all hosts are members of web and up.
func (f *simFarm) waitMembers() {
	f.t.Helper()
	f.mu.Lock()
	hosts := slices.Clone(f.hosts)
	f.mu.Unlock()
	waitFor(f.t, "all hosts are members", func() bool {
		farm, err := hosts[0].permits.readSnapshot(f.t.Context(), nil)
		if err != nil {
			return false
		}
		for _, h := range hosts {
			if s, ok := farm.states["web"][h.name]; !ok || s.State != stateUp || !farm.isPresent(h.name) {
				return false
			}
		}
		return true
	})
}

// waitClean waits until etcd has neither a permit nor a queue entry.
func (h *simHost) waitClean() {
	h.farm.t.Helper()
	waitFor(h.farm.t, "no permit and no queue entry is left", func() bool {
		f := h.read()
		return len(f.permits) == 0 && len(f.queue) == 0
	})
}

// webTakedown is `hadown --safe web`.
func webTakedown(by string, waitTurn time.Duration) Takedown {
	return Takedown{
		Keys: []spool.Key{{Service: "web"}}, Override: spool.Entry{State: spool.Down, By: by, Reason: "new kernel"}, WaitTurn: waitTurn,
	}
}
