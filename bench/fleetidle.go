package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// fleetIdle measures what a fleet costs when nothing happens: the processor time of etcd and the writes to it with many
// hosts, which are in this process, and the memory and the processor time of a daemon with and without a fleet.
func (b *bench) fleetIdle() error {
	n, length := b.hosts, time.Minute
	if b.divisor > 1 {
		length = 10 * time.Second
	}
	members, err := b.startEtcd(3)
	if err != nil {
		return err
	}
	defer stopAll(members)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, "http://"+m.addr)
	}
	stateDir, err := os.MkdirTemp(memoryDir, "hacheck-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(stateDir) }()
	round := &atomic.Pointer[string]{}
	round.Store(new(string))
	hosts, err := b.openHosts(n, stateDir, endpoints, round)
	defer closeHosts(hosts)
	if err != nil {
		return err
	}
	inFleet, err := b.startHacheck("", fmt.Sprintf("fleet: {etcd: [%s], prefix: /bench/, host: daemon, state_dir: %s}\n",
		strings.Join(endpoints, ", "), filepath.Join(stateDir, "daemon")), "--control-socket", filepath.Join(b.tmp, "idle.sock"))
	if err != nil {
		return err
	}
	defer inFleet.stop()
	alone, err := b.startHacheck("", "", "--control-socket", "")
	if err != nil {
		return err
	}
	defer alone.stop()
	if err := b.waitPresent(hosts[0], n+1); err != nil {
		return err
	}
	if err := b.wait(3 * time.Second); err != nil { // the last of them publish their state
		return err
	}
	return b.measureIdle(n, length, members, inFleet, alone)
}

// measureIdle measures for length, and adds the rows.
func (b *bench) measureIdle(n int, length time.Duration, members []*server, inFleet, alone *hacheck) error {
	var before, after [5]float64 // seconds of etcd, of the daemon with and without a fleet; writes to etcd; seconds
	observe := func(to *[5]float64) error {
		for i, servers := range [][]*server{members, {inFleet.server}, {alone.server}} {
			for _, s := range servers {
				d, err := s.cpu()
				if err != nil {
					return err
				}
				to[i] += d.Seconds()
			}
		}
		writes, err := etcdWrites(members[0])
		to[3], to[4] = writes, float64(time.Now().UnixNano())/1e9
		return err
	}
	if err := observe(&before); err != nil {
		return err
	}
	if err := b.wait(length); err != nil {
		return err
	}
	if err := observe(&after); err != nil {
		return err
	}
	seconds := after[4] - before[4]
	share := func(i int) []float64 { return []float64{100 * (after[i] - before[i]) / seconds} }
	what := fmt.Sprintf("fleet of %s hosts, idle for %.0f s: ", thousands(n), length.Seconds())
	b.addInformation(what+"writes to etcd", []float64{(after[3] - before[3]) / seconds}, "a second")
	b.addInformation(what+"processor time of etcd's three members", share(0), "% of a core")
	b.addInformation(what+"processor time of a daemon", share(1), "% of a core", fmt.Sprintf("without a fleet %.3g %%", share(2)[0]))
	private, all, err := inFleet.memory()
	if err != nil {
		return err
	}
	privateAlone, allAlone, err := alone.memory()
	if err != nil {
		return err
	}
	b.addInformation(what+"private memory (RssAnon) of a daemon", []float64{private}, "MB",
		fmt.Sprintf("whole RSS %.1f MB; without a fleet private %.1f MB, whole RSS %.1f MB", all, privateAlone, allAlone))
	return nil
}

// etcdWrites returns how many keys a member of etcd has written. The name of the counter depends on etcd's version.
func etcdWrites(member *server) (float64, error) {
	code, body, err := member.get("/metrics")
	if err != nil || code != http.StatusOK {
		return 0, fmt.Errorf("/metrics of etcd: %d, %w", code, err)
	}
	for _, name := range []string{"etcd_mvcc_put_total", "etcd_debugging_mvcc_put_total"} {
		if _, rest, ok := strings.Cut(body, "\n"+name+" "); ok {
			value, _, _ := strings.Cut(rest, "\n")
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("etcd has no counter of its writes in /metrics")
}
