package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/spool"
	"hacheck/test/servertest"
)

// TestTwoHostsClaimAtOnce: of two hosts that ask in the same moment exactly one goes out. The permit is returned when the
// host is back.
func TestTwoHostsClaimAtOnce(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	for round := range 5 {
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, h := range []*simHost{a, b} {
			wg.Go(func() { errs[i] = h.TakeDown(t.Context(), webTakedown("op", 0), nil) })
		}
		wg.Wait()
		winner, loser := a, errs[1]
		if errs[0] != nil {
			winner, loser = b, errs[0]
		}
		var refused *RefusedError
		if (errs[0] == nil) == (errs[1] == nil) || !errors.As(loser, &refused) {
			t.Fatalf("round %d: %v", round, errs)
		}
		if !strings.Contains(refused.Reason, winner.name+" (") && !strings.Contains(refused.Reason, winner.name+" waits") {
			t.Errorf("the refusal does not name %s: %s", winner.name, refused.Reason)
		}
		if !winner.isOut() || a.isOut() && b.isOut() {
			t.Fatalf("round %d: a is out: %v, b is out: %v", round, a.isOut(), b.isOut())
		}
		winner.lift()
		winner.waitClean()
	}
	f.wantMost(1)
}

// TestStateIsUpBeforeThePermitIsReturned: at no revision of etcd a host has neither a permit nor the state "up" after its
// override has ended. Other hosts would be refused for its sake.
func TestStateIsUpBeforeThePermitIsReturned(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a := f.host("a")
	f.host("b")
	f.waitMembers()
	const rounds = 5
	first := a.read().revision
	for range rounds {
		if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the state is published", func() bool { return a.read().states["web"]["a"].State == "down" })
		a.lift()
		a.waitClean()
	}
	client, err := a.conn.etcd()
	if err != nil {
		t.Fatal(err)
	}
	last, returned := "", 0
	for r := range client.Watch(within(t, 10*time.Second), "/hacheck/", clientv3.WithPrefix(), clientv3.WithRev(first)) {
		for _, e := range r.Events {
			switch key := string(e.Kv.Key); {
			case key == "/hacheck/state/web/a":
				last = string(e.Kv.Value)
			case key == "/hacheck/permits/a" && e.Type == clientv3.EventTypeDelete:
				returned++
				if s, err := decode[state]([]byte(last)); err != nil || s.State != stateUp {
					t.Errorf("the permit is returned while the state is %s", last)
				}
			}
		}
		if returned == rounds {
			return
		}
	}
	t.Errorf("%d permits were returned, want %d", returned, rounds)
}

// TestRollingRestart: 20 hosts ask at once with a budget of 3. Never more than 3 are out, at some moment exactly 3, and
// they go in the order in which they asked.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	var hosts []*simHost
	for i := range 20 {
		hosts = append(hosts, f.host(fmt.Sprintf("web%02d", i)))
	}
	f.waitMembers()
	if err := hosts[0].SetBudget(t.Context(), "web", "3", "op"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			if err := h.TakeDown(t.Context(), webTakedown("op", 2*time.Minute), nil); err != nil {
				t.Errorf("%s: %v", h.name, err)
				return
			}
			waitFor(t, h.name+" is down", func() bool { return !h.hasUp() })
			sleep(t.Context(), time.Second) // the service restarts
			h.lift()
		})
		waitFor(t, "queued", func() bool {
			q := hosts[0].read()
			return slices.ContainsFunc(q.queue, func(e queuedClaim) bool { return e.Host == h.name }) || i < 3
		})
	}
	wg.Wait()
	hosts[0].waitClean()
	f.wantMost(3)
	// The first three go at once; of the others up to three may write at the same time.
	for at, name := range f.order {
		var asked int
		_, _ = fmt.Sscanf(name, "web%d", &asked)
		if asked-at > 2 || at-asked > 2 {
			t.Errorf("order of the overrides: %q", f.order)
			break
		}
	}
}

// TestClosedClaim: when the command ends, at whatever stage, nothing is written and nothing is left in etcd.
func TestClosedClaim(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	f := newSimFarm(t, etcd)
	a, b, c := f.host("a"), f.host("b"), f.host("c")
	f.waitMembers()
	start := func(h *simHost) (end context.CancelFunc, result chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		result = make(chan error, 1)
		go func() { result <- h.TakeDown(ctx, webTakedown("op", time.Minute), nil) }()
		return cancel, result
	}
	isQueued := func(host string) func() bool {
		return func() bool {
			return slices.ContainsFunc(a.read().queue, func(q queuedClaim) bool { return q.Host == host })
		}
	}
	wantEnd := func(what string, h *simHost, result chan error) {
		t.Helper()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
		waitFor(t, what+": nothing is left of "+h.name, func() bool {
			r := a.read()
			_, hasPermit := r.permits[h.name]
			return !hasPermit && !isQueued(h.name)()
		})
		if h.isOut() {
			t.Errorf("%s: the override is written", what)
		}
	}
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Fatal(err)
	}
	endB, resultB := start(b)
	waitFor(t, "b waits", isQueued("b"))
	endC, resultC := start(c)
	waitFor(t, "c waits", isQueued("c"))
	endC()
	wantEnd("behind another claim", c, resultC)
	endB()
	wantEnd("over the budget", b, resultB)
	a.lift()
	a.waitClean()
	f.waitMembers()

	// While the balancers are asked: they do not answer.
	b.set(func() { b.isSilent = true })
	endB, resultB = start(b)
	waitFor(t, "b has a permit", func() bool { _, ok := a.read().permits["b"]; return ok })
	endB()
	wantEnd("while balancers are asked", b, resultB)
	b.set(func() { b.isSilent = false })

	// At the last moment: the permit is there, the balancers agree. The claim looks at the overrides before it writes.
	ctx, end := context.WithCancel(t.Context())
	b.permits.beforeWrite = end
	if err := b.TakeDown(ctx, webTakedown("op", 0), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("at the last moment: %v", err)
	}
	if b.isOut() {
		t.Error("at the last moment: the override is written")
	}
	a.waitClean()
	f.wantMost(1)
}

// TestUntilBootKeepsOverride: --until-boot replaces no override that an operator sets while it waits for its permit.
func TestUntilBootKeepsOverride(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a := f.host("a")
	f.host("b")
	f.waitMembers()
	for _, tt := range []struct {
		name, boot string
		state      spool.State
		refused    bool
		want       string // the reason of the override
	}{
		{"an operator's", "", spool.Drain, false, "mine"},
		{"forced up", "", spool.ForceUp, true, "mine"},
		{"another one until boot", "0b7f", spool.Drain, false, "new kernel"},
	} {
		down := webTakedown("op", 0)
		down.Override.Boot = "0b7f"
		a.permits.beforeWrite = func() {
			if err := a.Write(spool.Entry{Key: down.Keys[0], State: tt.state, Reason: "mine", By: "other", Boot: tt.boot}); err != nil {
				t.Error(err)
			}
		}
		var refused *RefusedError
		if err := a.TakeDown(t.Context(), down, nil); errors.As(err, &refused) != tt.refused || err != nil && !tt.refused {
			t.Errorf("%s: %v", tt.name, err)
		}
		if list := a.List(); len(list) != 1 || list[0].Reason != tt.want {
			t.Errorf("%s: the overrides are %v, want the reason %q", tt.name, list, tt.want)
		}
		_, held := a.read().permits["a"]
		if held == tt.refused {
			t.Errorf("%s: the host has a permit: %v", tt.name, held)
		}
		a.lift()
		a.waitClean()
		f.waitMembers()
	}
}

// TestRestartWithPermit: a daemon that is killed returns an asked permit after its restart, and takes up a used one.
func TestRestartWithPermit(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	put := func(phase string) {
		t.Helper()
		client, err := b.conn.etcd()
		if err == nil {
			_, err = client.Put(t.Context(), "/hacheck/permits/a", encode(permit{
				V: 1, Claim: "a.0123456789abcdef", Host: "a", Services: []string{"web"}, Phase: phase, At: time.Now(), Balancers: []string{lb1},
			}))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a.close()
	put(phaseAsked)
	a.open()
	b.waitClean()

	// The override was written before the daemon was killed: the permit is used.
	a.close()
	put(phaseAsked)
	if err := a.Write(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Drain, By: "op"}); err != nil {
		t.Fatal(err)
	}
	a.open()
	waitFor(t, "the permit is used", func() bool { return b.read().permits["a"].Phase == phaseUsed })
	var refused *RefusedError
	if err := b.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) {
		t.Errorf("b: %v", err)
	}
	// A restart keeps the used permit, and returns it when the balancer has the host up.
	a.close()
	a.open()
	waitFor(t, "a is registered", func() bool { return b.read().isPresent("a") })
	waitFor(t, "a has read its permit", func() bool { return a.Status().Connected && a.permits.phase() == phaseUsed })
	a.lift()
	b.waitClean()
	if !a.hasUp() {
		t.Error("the permit was returned before the balancer had the host up")
	}
}

// TestAbsentHostIsForgotten: an absent member counts as out and is named. forget removes it, and is refused for a
// present host.
func TestAbsentHostIsForgotten(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b, c := f.host("a"), f.host("b"), f.host("c")
	f.waitMembers()
	var refused *RefusedError
	if err := a.Forget(t.Context(), "c", "op"); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "is present") {
		t.Errorf("forget a present host: %v", err)
	}
	c.close()
	waitFor(t, "c is absent", func() bool { return !a.read().isPresent("c") })
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "hacheck fleet forget c") {
		t.Errorf("with an absent host: %v", err)
	}
	if err := a.Forget(t.Context(), "c", "op"); err != nil {
		t.Fatal(err)
	}
	if err := a.Forget(t.Context(), "c", "op"); !errors.As(err, &refused) {
		t.Errorf("forget an unknown host: %v", err)
	}
	if r := b.read(); len(r.states["web"]) != 2 {
		t.Errorf("members: %v", r.states["web"])
	}
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Errorf("after forget: %v", err)
	}
}

// TestSameHolder: a host that holds a permit is granted the same again. all is every service of the host, and release
// gives a permit back.
func TestSameHolder(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	for _, by := range []string{"jane", "op"} {
		if err := a.TakeDown(t.Context(), webTakedown(by, 0), nil); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.read(); r.permits["a"].By != "op" {
		t.Errorf("the permit that op uses again says %+v", r.permits["a"])
	}
	all := webTakedown("op", 0)
	all.Keys = []spool.Key{{Service: spool.All}}
	if err := a.TakeDown(t.Context(), all, nil); err != nil {
		t.Errorf("all: %v", err)
	}
	if r := b.read(); len(r.permits) != 1 || !slices.Equal(r.permits["a"].Services, []string{"web"}) || len(r.queue) != 0 {
		t.Errorf("permits %+v, queue %+v", r.permits, r.queue)
	}
	var refused *RefusedError
	if err := b.Release(t.Context(), "api", "a", "op"); !errors.As(err, &refused) {
		t.Errorf("release another service: %v", err)
	}
	if err := b.Release(t.Context(), "web", "a", "op"); err != nil {
		t.Fatal(err)
	}
	if r := b.read(); len(r.permits) != 0 {
		t.Errorf("permits after release: %+v", r.permits)
	}
	// The override takes the host out still, so it counts without a permit too.
	if err := b.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "a (down by op") {
		t.Errorf("b: %v", err)
	}
	// And it is granted a permit without counting.
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Errorf("a is out already: %v", err)
	}
}

// TestFailingCheckIsNoTicket: a host whose check fails is refused like any other.
func TestFailingCheckIsNoTicket(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b, c := f.host("a"), f.host("b"), f.host("c")
	f.waitMembers()
	for _, h := range []*simHost{a, b} {
		h.set(func() { h.isFailing = true })
	}
	waitFor(t, "a and b are failing", func() bool {
		r := c.read()
		return r.states["web"]["a"].State == stateFailing && r.states["web"]["b"].State == stateFailing
	})
	for _, h := range []*simHost{a, b, c} {
		var refused *RefusedError
		if err := h.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "(failing") {
			t.Errorf("%s: %v", h.name, err)
		}
	}
}

// TestBalancersRefuse: the permit goes back when a balancer would have no server left. With --wait-turn the claim lets
// others pass and goes on when the balancer agrees.
func TestBalancersRefuse(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	b.set(func() { b.isUp, b.isSilent = false, true }) // the balancer has a alone
	waitFor(t, "the balancer reports one server", func() bool { return *a.balancers().Balancers[0].TotalWeight == 1 })
	var refused *RefusedError
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "no other server") {
		t.Errorf("a: %v", err)
	}
	a.waitClean()
	result := make(chan error, 1)
	go func() { result <- a.TakeDown(t.Context(), webTakedown("op", time.Minute), nil) }()
	waitFor(t, "a lets others pass", func() bool {
		r := b.read()
		return len(r.permits) == 0 && len(r.queue) == 1 && strings.Contains(r.queue[0].Waiting, "no other server")
	})
	b.set(func() { b.isUp, b.isSilent = true, false })
	if err := <-result; err != nil {
		t.Errorf("a: %v", err)
	}
}

// TestWeightOfLeavingHosts: the budget allows two hosts, but a backend has only two servers. The second host is refused as
// soon as the first has its permit, although the balancer has both servers up still. No permit has a lease: one that
// ended with its daemon would let the next host go.
func TestWeightOfLeavingHosts(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b, c := f.host("a"), f.host("b"), f.host("c")
	f.waitMembers()
	if err := a.SetBudget(t.Context(), "web", "2", "op"); err != nil {
		t.Fatal(err)
	}
	c.set(func() { c.isUp, c.isSilent = false, true }) // it is a member in another backend
	waitFor(t, "the balancer reports two servers", func() bool { return *b.balancers().Balancers[0].TotalWeight == 2 })
	release := make(chan struct{})
	a.permits.beforeWrite = func() { <-release }
	result := make(chan error, 1)
	go func() { result <- a.TakeDown(t.Context(), webTakedown("op", 0), nil) }()
	waitFor(t, "a has its permit", func() bool { return b.read().permits["a"].Phase == phaseAsked })
	wantNoLease := func() {
		r, err := b.conn.get(t.Context(), a.permits.keys.permit("a"))
		if err != nil || len(r.Kvs) != 1 || r.Kvs[0].Lease != 0 {
			t.Errorf("the permit of a: %v, %v", r, err)
		}
	}
	wantNoLease()
	var refused *RefusedError
	if err := b.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "no other server") {
		t.Errorf("b: %v", err)
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("a: %v", err)
	}
	wantNoLease()
	if b.isOut() {
		t.Error("b is out too")
	}
}

// TestUnreachable: without etcd --safe is refused as unavailable, and nothing is written.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	f := newSimFarm(t, etcd)
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	report, err := a.Report(t.Context())
	if err != nil || len(report.Services) != 1 || len(report.Services[0].Members) != 2 || len(report.Hosts) != 2 || !report.Connected {
		t.Errorf("report: %+v, %v", report, err)
	}
	etcd.Kill()
	for _, waitTurn := range []time.Duration{0, time.Second} {
		err := a.TakeDown(within(t, 30*time.Second), webTakedown("op", waitTurn), nil)
		var unavailable *UnavailableError
		var refused *RefusedError
		if !errors.As(err, &unavailable) && (waitTurn == 0 || !errors.As(err, &refused)) {
			t.Errorf("wait turn %v: %v", waitTurn, err)
		}
	}
	if a.isOut() || b.isOut() {
		t.Error("an override is written")
	}
	waitFor(t, "the report says so", func() bool {
		r, err := a.Report(t.Context())
		return err == nil && !r.Connected && r.Error != "" && len(r.Services) == 1
	})
}

// TestStaleDecision: a grant fails if anything that it was decided with has changed since etcd was read.
func TestStaleDecision(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b, c := f.host("a"), f.host("b"), f.host("c")
	f.waitMembers()
	put := func(key, value string) {
		t.Helper()
		client, err := c.conn.etcd()
		if err == nil {
			_, err = client.Put(t.Context(), "/hacheck/"+key, value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name   string
		change func(c *claim, s *session)
	}{
		{"another grant", func(*claim, *session) {
			if err := b.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
				t.Error(err)
			}
		}},
		{"a budget", func(*claim, *session) {
			if err := c.SetBudget(t.Context(), "web", "1", "op"); err != nil {
				t.Error(err)
			}
		}},
		{"a permit of this host", func(*claim, *session) {
			put("permits/a", encode(permit{V: 1, Claim: "a.00", Host: "a", Services: []string{"api"}, Phase: phaseUsed}))
		}},
		{"the queue entry", func(c *claim, _ *session) {
			a.permits.abandon(c)
		}},
		{"the registration", func(_ *claim, s *session) { s.created++ }},
		{"the lease", func(_ *claim, s *session) { s.lease++ }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := a.conn.registration()
			if err != nil {
				t.Fatal(err)
			}
			x := &claim{id: newClaim("a"), keys: webTakedown("op", 0).Keys, services: []string{"web"}, progress: func(string) {}}
			a.permits.addClaim(x.id)
			if err := a.permits.enqueue(t.Context(), x, s); err != nil {
				t.Fatal(err)
			}
			// The entry lets b pass.
			if _, err := a.conn.commit(t.Context(), nil, []clientv3.Op{a.permits.putEntry(x, s, "others pass")}, nil); err != nil {
				t.Fatal(err)
			}
			farm := a.read()
			decidedIn := s
			test.change(x, &decidedIn)
			if err := a.permits.grant(t.Context(), x, decidedIn, farm); !errors.Is(err, errChanged) {
				t.Errorf("grant: %v", err)
			}
			if h := c.read().permits["a"]; h.Claim == x.id {
				t.Error("the permit is granted")
			}
			a.permits.abandon(x)
			a.permits.removeClaim(x.id)
			b.lift()
			_ = c.Release(t.Context(), "api", "a", "op") // there is none in most cases
			c.waitClean()
			f.waitMembers()
		})
	}
}

// TestFurtherService: a host with a permit gets one for another service as well. When that claim fails, the first permit
// stays.
func TestFurtherService(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Fatal(err)
	}
	api := webTakedown("op", 0)
	api.Keys = []spool.Key{{Service: "api"}}
	ctx, end := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- a.TakeDown(ctx, api, nil) }() // no balancer asks about api: its claim waits for one
	waitFor(t, "the permit has both services", func() bool { return slices.Equal(b.read().permits["a"].Services, []string{"api", "web"}) })
	end()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	waitFor(t, "the first permit is left", func() bool {
		h := b.read().permits["a"]
		return slices.Equal(h.Services, []string{"web"}) && h.Phase == phaseUsed && len(h.Used) == 0
	})
	a.lift()
	b.waitClean()
}
