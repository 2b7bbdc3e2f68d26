package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// TestPercentBudget: half of four hosts may be out.
func TestPercentBudget(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	var hosts []*simHost
	for _, name := range []string{"a", "b", "c", "d"} {
		hosts = append(hosts, f.host(name))
	}
	f.waitMembers()
	if err := hosts[0].SetBudget(t.Context(), "web", "50%", "op"); err != nil {
		t.Fatal(err)
	}
	for i, h := range hosts[:3] {
		err := h.TakeDown(within(t, 10*time.Second), webTakedown("op", 0), nil)
		var refused *RefusedError
		switch {
		case i < 2 && err != nil:
			t.Fatalf("%s: %v", h.name, err)
		case i == 2 && (!errors.As(err, &refused) || !strings.Contains(refused.Reason, "web: 2 of 4 hosts are out and the budget is 2: a (")):
			t.Fatalf("%s: %v", h.name, err)
		}
	}
	f.wantMost(2)
}

// TestNoPermitAfterLoss: a host that has lost keys in etcd gets no permit for twice its lease.
func TestNoPermitAfterLoss(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t))
	a := f.host("a", func(o *Options) { o.Lease = 5 * time.Second })
	f.host("b")
	f.waitMembers()
	before := a.read().present["a"].created
	client, err := a.conn.etcd()
	if err == nil {
		_, err = client.Delete(within(t, 5*time.Second), "/hacheck/present/a")
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a is present again", func() bool { f := a.read(); return f.isPresent("a") && f.present["a"].created != before })
	var refused *RefusedError
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "keys were lost in etcd") {
		t.Errorf("after a loss: %v", err)
	}
	if a.isOut() {
		t.Error("an override is written")
	}
	waitFor(t, "permits are granted again", func() bool { return a.TakeDown(t.Context(), webTakedown("op", 0), nil) == nil })
}

// TestPermitsWithFullEtcd: --safe fails and writes nothing, and a permit is still returned.
func TestPermitsWithFullEtcd(t *testing.T) {
	t.Parallel()
	f := newSimFarm(t, servertest.Etcd(t, servertest.EtcdArgs("--quota-backend-bytes", "1000000")))
	a, b, c := f.host("a"), f.host("b"), f.host("c")
	f.waitMembers()
	if err := c.SetBudget(t.Context(), "web", "2", "op"); err != nil {
		t.Fatal(err)
	}
	if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
		t.Fatal(err)
	}
	client, err := b.conn.etcd()
	for i := 0; err == nil; i++ {
		_, err = client.Put(within(t, 5*time.Second), fmt.Sprintf("/other/%d", i), strings.Repeat("x", 100<<10))
	}
	err = b.TakeDown(within(t, 10*time.Second), webTakedown("op", 0), nil)
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Unknown || !strings.Contains(err.Error(), "NOSPACE") || b.isOut() {
		t.Errorf("with a full etcd: %v, out: %v", err, b.isOut())
	}
	if !a.isOut() {
		t.Error("the override of a has ended")
	}
	a.lift()
	waitFor(t, "the permit is returned", func() bool { return len(a.read().permits) == 0 })
}
