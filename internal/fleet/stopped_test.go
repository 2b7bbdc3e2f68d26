package fleet

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// stoppableClaim is a claim whose command can be stopped.
type stoppableClaim struct {
	h         *simHost
	isStopped atomic.Bool
	result    chan error
}

// claim starts `hadown --safe --wait-turn` on h and returns when it is in the queue.
func (f *simFarm) claim(h *simHost) *stoppableClaim {
	f.t.Helper()
	c := &stoppableClaim{h: h, result: make(chan error, 1)}
	t := webTakedown("op", time.Minute)
	t.IsStopped = c.isStopped.Load
	go func() { c.result <- h.TakeDown(f.t.Context(), t, nil) }()
	waitFor(f.t, h.name+" is in the queue", func() bool { return c.entry() != nil })
	return c
}

// entry returns the queue entry of the claim, nil without one.
func (c *stoppableClaim) entry() *queuedClaim {
	list := c.h.read().queue
	if i := slices.IndexFunc(list, func(q queuedClaim) bool { return q.Host == c.h.name }); i >= 0 {
		return &list[i]
	}
	return nil
}

// wait returns when the claim has its permit and its override is written.
func (c *stoppableClaim) wait(t *testing.T) {
	t.Helper()
	if err := <-c.result; err != nil {
		t.Fatalf("%s: %v", c.h.name, err)
	}
	if !c.h.isOut() {
		t.Fatalf("%s is not out", c.h.name)
	}
}

// TestStoppedCommandInTheQueue: the hosts behind a stopped command do not wait for it. It keeps its place, and goes out
// when it runs again and it is its turn.
func TestStoppedCommandInTheQueue(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b, c, d := f.host("a"), f.host("b"), f.host("c"), f.host("d")
	f.waitMembers()
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Fatal(err)
	}
	ofB, ofC := f.claim(b), f.claim(c)
	ofB.isStopped.Store(true)
	a.lift()
	ofC.wait(t)
	waitFor(t, "the queue says why b waits", func() bool { return strings.Contains(ofB.entry().Waiting, "its command is stopped") })
	place := ofB.entry().created
	ofD := f.claim(d)
	ofB.isStopped.Store(false)
	waitFor(t, "b does not let others pass", func() bool { q := ofB.entry(); return q.Waiting == "" && q.created == place })
	c.lift()
	ofB.wait(t) // before d, which came later
	if d.isOut() {
		t.Error("d is out beside b")
	}
	b.lift()
	ofD.wait(t)
	f.wantMost(1)
}

// TestStoppedCommandHoldsNoPermit: a command that is stopped when everything is decided writes nothing. Its permit is
// free for others. It starts over when it goes on.
func TestStoppedCommandHoldsNoPermit(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a, b := f.host("a"), f.host("b")
	f.waitMembers()
	var isStopped atomic.Bool
	var once sync.Once
	a.permits.beforeWrite = func() { once.Do(func() { isStopped.Store(true) }) }
	result := make(chan error, 1)
	takedown := webTakedown("op", time.Minute)
	takedown.IsStopped = isStopped.Load
	go func() { result <- a.TakeDown(t.Context(), takedown, nil) }()
	waitFor(t, "the permit is returned", func() bool {
		return a.log.count("permit is returned: the command is stopped") == 1 && len(b.read().permits) == 0
	})
	if a.isOut() {
		t.Fatal("the override of a stopped command is written")
	}
	if err := b.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Fatalf("beside a stopped command: %v", err)
	}
	isStopped.Store(false)
	b.lift()
	if err := <-result; err != nil || !a.isOut() {
		t.Errorf("after SIGCONT: %v, out: %v", err, a.isOut())
	}
	f.wantMost(1)
}

// TestStoppedCommandWithoutTurn: a command that may not wait is refused when it is stopped, and changes nothing.
func TestStoppedCommandWithoutTurn(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a := f.host("a")
	f.host("b")
	f.waitMembers()
	takedown := webTakedown("op", 0)
	takedown.IsStopped = func() bool { return true }
	var refused *RefusedError
	if err := a.TakeDown(t.Context(), takedown, nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "its command is stopped") {
		t.Errorf("got %v", err)
	}
	if r := a.read(); a.isOut() || len(r.permits)+len(r.queue) > 0 {
		t.Errorf("out: %v, %d permits, %d in the queue", a.isOut(), len(r.permits), len(r.queue))
	}
}
