package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFleetSafe: hadown --safe on a farm of three hosts, of which one may be out.
func TestFleetSafe(t *testing.T) {
	t.Parallel()
	f := newFleetFarm(t, 1, fleetOptions{hosts: 3})
	t.Run("TwoAtOnce", func(t *testing.T) { testTwoAtOnce(t, f) })
	t.Run("WithoutEtcd", func(t *testing.T) { testWithoutEtcd(t, f) })
}

// forTest returns the farm for a subtest: helpers then fail t instead of the test that started the farm.
func (f *fleetFarm) forTest(t *testing.T) *fleetFarm {
	c := *f
	c.t, c.hosts = t, nil
	for _, h := range f.hosts {
		c.hosts = append(c.hosts, &fleetHost{host: h.forTest(t), name: h.name, nginx: h.nginx})
	}
	return &c
}

// testTwoAtOnce: two hadown --safe in the same moment. Exactly one takes its host out, the other one is refused with the
// reason.
func testTwoAtOnce(t *testing.T, f *fleetFarm) {
	f = f.forTest(t)
	const rounds = 20
	o := startObserver(f, 1)
	wins := map[string]int{}
	for round := range rounds {
		pair := []*fleetHost{f.hosts[round%3], f.hosts[(round+1)%3]}
		var output [2]string
		var exits [2]int
		parallel(2, func(i int) {
			output[i], exits[i] = pair[i].runCommand("hadown", "--safe", "web", "-r", "new memory")
		})
		winner := slices.Index(exits[:], 0)
		if winner < 0 || exits[1-winner] != 1 {
			t.Fatalf("round %d: exit %v, want 0 and 1:\n%s\n%s", round, exits, output[0], output[1])
		}
		loser := pair[1-winner]
		wins[pair[winner].name]++
		for _, part := range []string{"web: 1 of 3 hosts is out and the budget is 1: ", pair[winner].name, "nothing was changed"} {
			if !strings.Contains(output[1-winner], part) {
				t.Errorf("round %d: the refusal on %s does not contain %q:\n%s", round, loser.name, part, output[1-winner])
			}
		}
		if loser.hasOverride() || !pair[winner].hasOverride() {
			t.Errorf("round %d: an override on the winner %v, on the refused host %v", round, pair[winner].hasOverride(), loser.hasOverride())
		}
		f.balancers[0].waitForStates(map[string]string{"web/" + pair[winner].name: "DOWN"})
		pair[winner].mustRunCommand("haup", "--wait", "web")
		f.waitForNoPermits()
	}
	h := o.end()
	if len(h.grants) != rounds || h.mostPermits != 1 || o.mostOut != 1 {
		t.Errorf("%d permits, %d at once, %d hosts out at once; want %d, 1, 1", len(h.grants), h.mostPermits, o.mostOut, rounds)
	}
	t.Logf("%v were first", wins)
}

// testWithoutEtcd: etcd is killed. The answers stay as they are and are no slower, a plain hadown works, --safe exits
// with 4. When etcd is back, the hosts obey soon.
func testWithoutEtcd(t *testing.T, f *fleetFarm) {
	f = f.forTest(t)
	web1, web3 := f.hosts[0], f.hosts[2]
	web1.mustRunCommand("hadown", "--host", "web3", "web", "-r", "new disk", "--yes")
	codes := func() (all []int) {
		for _, h := range f.hosts {
			all = append(all, h.get("/spool/web/0/").code)
		}
		return all
	}
	want := []int{http.StatusOK, http.StatusOK, http.StatusServiceUnavailable}
	if got := codes(); !slices.Equal(got, want) {
		t.Fatalf("before: answers %v, want %v", got, want)
	}
	before := medianAnswer(t, web1)
	f.etcd.Kill()
	ends := time.Now().Add(3 * time.Second)
	for time.Now().Before(ends) {
		if got := codes(); !slices.Equal(got, want) {
			t.Fatalf("without etcd: answers %v, want %v", got, want)
		}
	}
	// The factor is for the noise of a machine that runs other tests.
	if during := medianAnswer(t, web1); during > 3*before {
		t.Errorf("without etcd an answer takes %v, before it took %v", during, before)
	}
	if out, exit := web1.runCommand("hadown", "--safe", "web", "-r", "new memory"); exit != 4 || web1.hasOverride() {
		t.Errorf("hadown --safe without etcd: exit %d, override %v; want exit 4 and none\n%s", exit, web1.hasOverride(), out)
	}
	web1.mustRunCommand("hadown", "web", "-r", "new memory")
	if code := web1.get("/spool/web/0/").code; code != http.StatusServiceUnavailable {
		t.Errorf("after a plain hadown without etcd: %d", code)
	}
	web1.mustRunCommand("haup", "web")

	f.etcd.Start()
	f.etcd.connect()
	f.lift("overrides/host:web3/web")
	back := time.Now() // etcd has elected a leader
	eventually(t, func() error {
		if code := web3.get("/spool/web/0/").code; code != http.StatusOK {
			return fmt.Errorf("web3 answers %d", code)
		}
		return nil
	})
	took := time.Since(back)
	t.Logf("web3 obeyed %v after etcd was back", took)
	if took > 2*time.Second { // TestBackAfterCut holds the daemon to 1s
		t.Error("want 1s, and 1s for a machine that runs other tests")
	}
	eventually(t, func() error {
		out, exit := web1.runCommand("hadown", "--safe", "web", "-r", "new memory")
		if exit != 0 {
			return fmt.Errorf("exit %d\n%s", exit, out)
		}
		return nil
	})
	web1.mustRunCommand("haup", "--wait", "web")
}

// lift writes a lift record into an override, as another host of the fleet would.
func (f *fleetFarm) lift(key string) {
	f.t.Helper()
	r, err := f.etcd.client.Get(f.t.Context(), fleetPrefix+key)
	if err != nil || len(r.Kvs) != 1 {
		f.t.Fatalf("read %s: %v, %v", key, r, err)
	}
	var value map[string]any
	if err := json.Unmarshal(r.Kvs[0].Value, &value); err != nil {
		f.t.Fatal(err)
	}
	value["lifted"] = map[string]any{"at": time.Now().UTC(), "by": "test"}
	lifted, err := json.Marshal(value)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.etcd.client.Put(f.t.Context(), fleetPrefix+key, string(lifted)); err != nil {
		f.t.Fatal(err)
	}
}

// medianAnswer returns the median time of an answer of the host.
func medianAnswer(t *testing.T, h *fleetHost) time.Duration {
	t.Helper()
	var times []time.Duration
	for range 301 {
		begin := time.Now()
		h.get("/spool/web/0/")
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// TestFleetRollingRestart: twenty hosts behind two HAProxys get the same command at the same moment, and three may be
// out. No request is lost.
func TestFleetRollingRestart(t *testing.T) {
	t.Parallel()
	const hosts, budget = 20, 3
	f := newFleetFarm(t, 2, fleetOptions{hosts: hosts})
	f.hosts[0].setBudget("3")
	load := startLoad(t, f.addrs)
	o := startObserver(f, budget)
	began := time.Now()
	var mu sync.Mutex
	answers := map[string]int{} // of hadown and haup, by host
	parallel(hosts, func(i int) {
		h := f.hosts[i]
		for _, step := range []func() (string, int){
			func() (string, int) {
				return h.runCommand("hadown", "--safe", "--wait-turn", "--drain", "--wait", "web", "-r", "version 2")
			},
			func() (string, int) {
				if err := h.nginx.systemctl("stop"); err != nil {
					return err.Error(), -1
				}
				if err := h.nginx.systemctl("start"); err != nil {
					return err.Error(), -1
				}
				return "", 0
			},
			func() (string, int) { return h.runCommand("haup", "--wait", "web") },
		} {
			out, exit := step()
			if exit != 0 {
				t.Errorf("%s: exit %d\n%s", h.name, exit, out)
				return
			}
			mu.Lock()
			answers[h.name]++
			mu.Unlock()
		}
	})
	t.Logf("the rolling restart took %v", time.Since(began).Round(100*time.Millisecond))
	f.waitForNoPermits()
	h := o.end()
	load.expectNoLoss()
	for _, host := range f.hosts {
		if host.nginx.starts != 2 || answers[host.name] != 3 || host.hasOverride() {
			t.Errorf("%s: %d starts, %d steps, override %v; want 2, 3, none", host.name, host.nginx.starts, answers[host.name], host.hasOverride())
		}
	}
	// Exactly the budget was out at some moment: one at a time does not pass.
	if len(h.grants) != hosts || h.mostPermits != budget || o.mostOut != budget {
		t.Errorf("%d permits, %d at once, %d hosts out at once; want %d, %d, %d", len(h.grants), h.mostPermits, o.mostOut, hosts, budget, budget)
	}
	for i, lb := range f.balancers {
		for name, row := range lb.statByServer() {
			if lost := row["econ"] + row["eresp"] + row["wredis"]; strings.Trim(lost, "0") != "" {
				t.Errorf("lb%d, %s: %s connections not opened, %s answers broken off, %s requests sent elsewhere", i+1, name, row["econ"], row["eresp"], row["wredis"])
			}
		}
	}
}
