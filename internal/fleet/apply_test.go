package fleet

import (
	"log/slog"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"hacheck/internal/spool"
)

// hookedIndex calls a function when it is set.
type hookedIndex struct {
	testIndex
	hook func()
}

func (x *hookedIndex) SetFleet(list []spool.Entry) {
	x.hook()
	x.testIndex.SetFleet(list)
}

// TestChangeWhileApplying: a change that arrives while an earlier one is applied is not acknowledged with it, because
// lookups do not see it yet (O3).
func TestChangeWhileApplying(t *testing.T) {
	t.Parallel()
	index := &hookedIndex{hook: func() {}}
	o := Options{Host: "a", Prefix: "/hacheck/", Lease: 5 * time.Second, Overrides: index, Log: slog.New(slog.DiscardHandler)}
	dir := &stateDir{path: t.TempDir()}
	if err := dir.open(); err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	b := newApplier(&o, newConn(&o, identity{}, &clusterID{}), dir)
	b.isRead = true
	put := func(revision int64, id string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.rules.handlePut("all/"+id, &mvccpb.KeyValue{Value: []byte(raw(id, "")), ModRevision: revision})
	}
	put(5, "web")
	index.hook = func() { put(6, "db") }
	b.apply()
	if got := b.wantedApplied().Revision; got != 5 {
		t.Errorf("acknowledged revision %d, want 5", got)
	}
	if c, err := dir.load(); err != nil || c.Acked != 5 || len(c.Records) != 1 {
		t.Errorf("copy: %+v, %v", c, err)
	}
	index.hook = func() {}
	b.apply()
	if got := b.wantedApplied().Revision; got != 6 || index.has("all", "db") == nil {
		t.Errorf("acknowledged revision %d, want 6", got)
	}
	if c, err := dir.load(); err != nil || c.Acked != 6 || len(c.Records) != 2 {
		t.Errorf("copy: %+v, %v", c, err)
	}
}
