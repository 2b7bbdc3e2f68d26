package fleet

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"hacheck/test/servertest"
)

// partitionLimit is for an election, the end of a lease and a new registration on a busy machine.
const partitionLimit = time.Minute

// TestPartition: a member of etcd is cut off from the others, the leader and then another one. A host that reaches only
// this member keeps what it has, and gets no permit. The other hosts go on, with that host out.
func TestPartition(t *testing.T) {
	servertest.Namespace{Flag: syscall.CLONE_NEWNET}.Run(t, func(t *testing.T) {
		etcd := servertest.Etcd(t, servertest.EtcdMembers(3), servertest.EtcdApart(t))
		client, err := clientv3.New(clientv3.Config{Endpoints: etcd.URLs(), Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, name := range []string{"leader", "follower"} {
			t.Run(name, func(t *testing.T) {
				member := leaderOf(t.Context(), client, etcd)
				if name == "follower" {
					member = member.Others[0]
				}
				cutOff(t, member)
			})
		}
	})
}

// cutOff cuts off member and connects it again.
func cutOff(t *testing.T, member *servertest.EtcdServer) {
	at := func(prefix string, endpoints ...string) func(*Options) {
		return func(o *Options) { o.Prefix, o.Lease, o.Endpoints = "/"+t.Name()+prefix, 5*time.Second, endpoints }
	}
	others := []string{member.Others[0].URL, member.Others[1].URL}
	// a and x reach only the member, b and y all members, c and z only the others.
	a := newHost(t, member, "a", at("/overrides/", member.URL))
	b := newHost(t, member, "b", at("/overrides/", member.URLs()...))
	c := newHost(t, member, "c", at("/overrides/", others...))
	waitRegistered(t, a, b, c)
	c.set(webDown("all", "before", "jane"))
	f := newSimFarm(t, member)
	x := f.host("web-cut", at("/permits/", member.URL))
	y := f.host("y", at("/permits/", member.URLs()...))
	z := f.host("z", at("/permits/", others...))
	f.waitMembers()
	reason := func(h *testHost) string {
		if o := h.index.has("all", "web"); o != nil {
			return o.Reason
		}
		return ""
	}

	member.CutOff()
	waitAtMost(t, partitionLimit, "the other hosts apply an override, and a is absent", func() bool {
		out, err := b.SetOverride(within(t, 5*time.Second), webDown("all", "meanwhile", "jane"), nil)
		return err == nil && len(out.Missing) == 0 && len(out.Absent) == 1
	})
	if reason(a) != "before" || reason(b) != "meanwhile" || reason(c) != "meanwhile" {
		t.Errorf("overrides: %q on the cut off host, %q and %q on the others", reason(a), reason(b), reason(c))
	}
	var unavailable *UnavailableError
	if err := x.TakeDown(within(t, 15*time.Second), webTakedown("op", 0), nil); !errors.As(err, &unavailable) {
		t.Errorf("a permit on the cut off host: %v", err)
	}
	waitAtMost(t, partitionLimit, "x is absent", func() bool { return !z.read().isPresent(x.name) })
	if reason := waitRefused(t, z); !strings.Contains(reason, "web-cut") {
		t.Errorf("with a budget of 1 and the absent host web-cut: %s", reason)
	}
	waitAtMost(t, partitionLimit, "the budget is written", func() bool { return y.SetBudget(within(t, 5*time.Second), "web", "2", "op") == nil })
	waitAtMost(t, partitionLimit, "z gets the other permit", func() bool { return z.TakeDown(within(t, 5*time.Second), webTakedown("op", 0), nil) == nil })

	member.Reconnect()
	waitAtMost(t, partitionLimit, "the host that was cut off has the override", func() bool { return reason(a) == "meanwhile" })
	waitAtMost(t, partitionLimit, "x gets the second permit", func() bool { return x.TakeDown(within(t, 5*time.Second), webTakedown("op", 0), nil) == nil })
	waitRefused(t, y)
}

// waitRefused asks for a permit until the answer is a refusal, and returns its reason.
func waitRefused(t *testing.T, h *simHost) string {
	t.Helper()
	var refused *RefusedError
	waitAtMost(t, partitionLimit, h.name+" is refused", func() bool {
		err := h.TakeDown(within(t, 5*time.Second), webTakedown("op", 0), nil)
		if err == nil {
			t.Fatalf("%s got a permit", h.name)
		}
		return errors.As(err, &refused)
	})
	return refused.Reason
}
