package test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What the answers of a host have to be.
const (
	anyAnswer = iota // a command runs
	mustBeUp
	mustBeDown
)

// answerObserver asks a host again and again. An answer counts if the expectation has been the same from before the
// request until after the answer.
type answerObserver struct {
	t    testing.TB
	host string // its name
	url  string

	// expected is the expectation; a multiple of 4 is added for each new one, so that no two are equal.
	expected atomic.Int64
	counted  atomic.Int64 // answers that counted since the last expect
	cancel   context.CancelFunc
	ended    sync.WaitGroup
}

// startAnswerObserver observes the answers of a host to check requests for path until the test ends.
func startAnswerObserver(t testing.TB, h *fleetHost, path string) *answerObserver {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	a := &answerObserver{t: t, host: h.name, url: h.url + path, cancel: cancel}
	for i := range 2 {
		a.ended.Go(func() {
			client := &http.Client{Timeout: waitLimit, Transport: &http.Transport{DisableKeepAlives: i == 0}}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					a.observe(client)
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		a.ended.Wait()
	})
	return a
}

// observe sends a request and judges the answer. A daemon that does not run gives no answer.
func (a *answerObserver) observe(client *http.Client) {
	before := a.expected.Load()
	begin := time.Now()
	resp, err := client.Get(a.url)
	if err != nil {
		return
	}
	resp.Body.Close()
	if a.expected.Load() != before || before%4 == anyAnswer {
		return
	}
	if up := resp.StatusCode == http.StatusOK; up != (before%4 == mustBeUp) {
		a.t.Errorf("%s answered %d to a request of %s, after the command had returned", a.host, resp.StatusCode, begin.Format(time.StampMilli))
		return
	}
	a.counted.Add(1)
}

// expect sets what each answer to a later request has to be.
func (a *answerObserver) expect(answer int64) {
	a.counted.Store(0)
	a.expected.Store(a.expected.Load()/4*4 + 4 + answer)
}

// waitForAnswers waits until some answers have counted since expect.
func (a *answerObserver) waitForAnswers() {
	a.t.Helper()
	eventually(a.t, func() error {
		if n := a.counted.Load(); n < 6 {
			return fmt.Errorf("%s has given %d answers", a.host, n)
		}
		return nil
	})
}

// expectAll sets what the answers of several hosts have to be, and waits until each has given some.
func expectAll(observers []*answerObserver, answer int64) {
	for _, a := range observers {
		a.expect(answer)
	}
	if answer == anyAnswer {
		return
	}
	for _, a := range observers {
		a.waitForAnswers()
	}
}

// TestFleetNoStaleAnswer: after hadown or haup has returned, with a group or with several hosts, none of these hosts
// answers from before.
func TestFleetNoStaleAnswer(t *testing.T) {
	t.Parallel()
	const rounds = 50
	web := startService(t, "127.0.0.1", 0, serveOK) // of all hosts
	etcd := startEtcd(t)
	hosts := startFleetHosts(t, etcd, fleetOptions{hosts: 5, group: 4})
	var group []*answerObserver
	for i, h := range hosts {
		a := startAnswerObserver(t, h, fmt.Sprintf("/http/web/%d/", web.port))
		if i < 4 {
			group = append(group, a)
		} else {
			a.expect(mustBeUp) // it is not in the group
		}
	}
	var times []time.Duration
	for round := range rounds {
		from := hosts[round%len(hosts)] // also a host that is not in the group
		scope := []string{"--group", "rack7", "web"}
		if round%5 == 4 {
			scope = []string{"--host", "web1", "--host", "web2", "--host", "web3", "--host", "web4", "web"}
		}
		began := time.Now()
		from.mustRunCommand("hadown", append(scope, "-r", "new kernel", "--yes")...)
		times = append(times, time.Since(began))
		expectAll(group, mustBeDown)
		expectAll(group, anyAnswer)
		from.mustRunCommand("haup", scope...)
		expectAll(group, mustBeUp)
		expectAll(group, anyAnswer)
	}
	slices.Sort(times)
	t.Logf("hadown takes %v, at most %v", times[len(times)/2], times[len(times)-1])
	for _, h := range hosts {
		if h.hasOverride() {
			t.Errorf("%s has an override in its spool directory", h.name)
		}
	}
}

// fleetKills is set by `make fleet-kills`.
var fleetKills = flag.Int("kills", 16, "daemons that TestFleetKilledAtAcknowledgement kills")

// TestFleetKilledAtAcknowledgement: a daemon that is killed in the moment in which it acknowledges an override, or its
// end, and that starts again without etcd, gives no answer from before.
func TestFleetKilledAtAcknowledgement(t *testing.T) {
	t.Parallel()
	const hosts = 5
	rounds := max(*fleetKills/(2*(hosts-1)), 1) // each kills all hosts but one, twice
	web := startService(t, "127.0.0.1", 0, serveOK)
	etcd := startEtcd(t)
	relay := startRelay(t, etcd.Addr())
	all := startFleetHosts(t, etcd, fleetOptions{hosts: hosts, group: hosts, endpoint: relay.addr})
	commander, victims := all[0], all[1:]
	observers := make([]*answerObserver, len(victims))
	for i, h := range victims {
		observers[i] = startAnswerObserver(t, h, fmt.Sprintf("/http/web/%d/", web.port))
	}
	for range rounds {
		for _, step := range []struct {
			command []string
			answer  int64
		}{
			{[]string{"hadown", "--group", "rack7", "web", "-r", "new kernel", "--yes"}, mustBeDown},
			{[]string{"haup", "--group", "rack7", "web"}, mustBeUp},
		} {
			etcd.waitForPresent(victims...)
			expectAll(observers, anyAnswer)
			killAtAcknowledgement(t, etcd, commander, victims, step.command)
			relay.cut()
			for _, a := range observers {
				a.expect(step.answer)
			}
			parallel(len(victims), func(i int) { victims[i].launchFleet() })
			for _, a := range observers {
				a.waitForAnswers()
			}
			relay.restore()
		}
	}
}

// killAtAcknowledgement runs a command on the commander and kills each victim as soon as its acknowledgement is in etcd.
func killAtAcknowledgement(t *testing.T, etcd *etcdServer, commander *fleetHost, victims []*fleetHost, command []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	now, err := etcd.client.Get(ctx, "now")
	if err != nil {
		t.Fatal(err)
	}
	watch := etcd.client.Watch(ctx, fleetPrefix, clientv3.WithPrefix(), clientv3.WithRev(now.Header.Revision+1))
	p := commander.startCommand(command[0], command[1:]...)
	living := map[string]*fleetHost{}
	for _, h := range victims {
		living[h.name] = h
	}
	var revision int64 // of the override
	for r := range watch {
		for _, e := range r.Events {
			key := strings.TrimPrefix(string(e.Kv.Key), fleetPrefix)
			if key == "overrides/group:rack7/web" {
				revision = e.Kv.ModRevision
			}
			kind, host, _ := strings.Cut(key, "/")
			var applied struct{ Revision int64 }
			if kind != "applied" || living[host] == nil || json.Unmarshal(e.Kv.Value, &applied) != nil || revision == 0 || applied.Revision < revision {
				continue
			}
			living[host].kill()
			delete(living, host)
		}
		if len(living) == 0 {
			break
		}
	}
	if len(living) > 0 {
		t.Fatalf("%d hosts have not acknowledged %v: %v\n%s", len(living), command, ctx.Err(), p.out.String())
	}
	if exit := p.waitForExit(t); exit != 0 {
		t.Errorf("%v: exit %d, and every host has acknowledged\n%s", command, exit, p.out.String())
	}
}
