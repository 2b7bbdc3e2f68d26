package fleet

import (
	"bufio"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/test/servertest"
)

// calls returns how many calls of a method etcd has answered.
func calls(t *testing.T, etcd *servertest.EtcdServer, method string) (n int) {
	t.Helper()
	r, err := http.Get(etcd.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		if strings.HasPrefix(name, "grpc_server_handled_total{") && strings.Contains(name, `grpc_method="`+method+`"`) {
			count, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			n += int(count)
		}
	}
	return n
}

// TestSpreadOfAcknowledgements: the more hosts an override reaches at the same moment, the longer is the time over which
// they acknowledge it, up to two seconds. An override of one host is acknowledged at once.
func TestSpreadOfAcknowledgements(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key     string
		hosts   int
		longest time.Duration
	}{
		{"all/web", 3, 1200 * time.Microsecond},
		{"all/web", 1000, 400 * time.Millisecond},
		{"group:rack7/web", 5000, 2 * time.Second},
		{"all/web", 100_000, 2 * time.Second},
		{"host:a/web", 5000, 0},
	} {
		f := closedFleet(t, func(o *Options) { o.Groups = []string{"rack7"} })
		b := f.applier
		b.isRead, b.present = true, tt.hosts
		var delays []time.Duration
		for i := range 200 {
			value := raw(strconv.Itoa(i), "")
			b.handle([]*clientv3.Event{{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{
				Key: []byte(f.overrideKey(tt.key)), Value: []byte(value), ModRevision: int64(i + 1),
			}}})
			delays = append(delays, b.ackDelay())
			if again := b.ackDelay(); again != 0 {
				t.Fatalf("%s: what has not changed waits for %v", tt.key, again)
			}
		}
		shortest, longest := slices.Min(delays), slices.Max(delays)
		if longest > tt.longest || longest < tt.longest*8/10 || shortest > tt.longest*2/10 {
			t.Errorf("%s on %d hosts: delays from %v to %v, want up to %v", tt.key, tt.hosts, shortest, longest, tt.longest)
		}
	}
}

// closedFleet returns a Fleet that has no connection and does nothing by itself.
func closedFleet(t *testing.T, mend ...func(*Options)) *Fleet {
	t.Helper()
	o := Options{
		Endpoints: []string{"http://127.0.0.1:1"}, Prefix: "/hacheck/", Host: "a", Lease: time.Minute, StateDir: t.TempDir(),
		Overrides: &testIndex{}, Credentials: func() (Credentials, error) { return Credentials{}, nil },
	}
	for _, m := range mend {
		m(&o)
	}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	f := newFleet(o, &stateDir{path: o.StateDir}, func() {})
	t.Cleanup(f.dir.close)
	return f
}

// TestWaiterDoesNotRead: after a change, when all hosts write to etcd, the command that waits for them reads nothing.
func TestWaiterDoesNotRead(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	get := func(key string) *clientv3.GetResponse {
		r, err := h.conn.get(t.Context(), h.o.Prefix+key, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := get("applied/")
	w := newWaiter(h.Fleet, map[string]int64{"all": before.Header.Revision + 1}, get("present/").Kvs)
	w.start(before)
	reads := settled(t, func() int { return calls(t, etcd, "Range") })
	result := make(chan error, 1)
	go func() { result <- w.follow(within(t, 10*time.Second), nil) }()
	put(t, h, "applied/a", `{"v":1,"revision":1000000}`)
	if err := <-result; err != nil || len(w.waits) > 0 {
		t.Fatalf("%v; waits for %v", err, w.waits)
	}
	get("applied/")
	waitFor(t, "etcd has counted the read of this test", func() bool { return calls(t, etcd, "Range") > reads })
	if n := calls(t, etcd, "Range"); n != reads+1 {
		t.Errorf("the command has read %d times", n-reads-1)
	}
}

// settled returns the value of a counter when it has not changed for 2 s.
func settled(t *testing.T, counter func() int) int {
	t.Helper()
	last, since := counter(), time.Now()
	waitFor(t, "the counter stands still", func() bool {
		if now := counter(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	return last
}

// TestCountsTheHostsAgain: a host that has started before the others knows their number after a minute.
func TestCountsTheHostsAgain(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	first := newHost(t, etcd, "a")
	waitRegistered(t, first)
	waitRegistered(t, newHost(t, etcd, "b"))
	if n := first.Status().Hosts; n == 2 {
		t.Fatal("its first count has the second host, so this test tests nothing")
	}
	waitAtMost(t, countEvery+30*time.Second, "it knows 2 hosts", func() bool { return first.Status().Hosts == 2 })
}

// TestConnectsAgainAtSmallCost: a host that connects again does not compare the endpoints and does not count the hosts
// again, which would cost etcd more the more hosts there are.
func TestConnectsAgainAtSmallCost(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a")
	waitRegistered(t, h)
	h.applier.mu.Lock()
	h.applier.present = 7
	h.applier.mu.Unlock()
	etcd.Restart()
	waitFor(t, "the host has read the overrides again", func() bool {
		return calls(t, etcd, "Range") > 0 && h.log.count("registered in etcd") == 2
	})
	h.set(webDown("all", "", "jane")) // the daemon follows the overrides
	if n := calls(t, etcd, "Status"); n != 0 {
		t.Errorf("the endpoints were compared %d times", n)
	}
	if n := h.Status().Hosts; n != 7 {
		t.Errorf("the hosts were counted: %d", n)
	}
	h.applier.mu.Lock()
	h.applier.countedAt = time.Now().Add(-countEvery)
	h.applier.mu.Unlock()
	if !h.applier.countIsOld() {
		t.Error("after a minute a read does not count the hosts")
	}
}
