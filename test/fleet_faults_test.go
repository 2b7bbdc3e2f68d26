package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// etcdFault is something that goes wrong with etcd.
type etcdFault struct {
	name   string // what etcd does or is
	cause  func(e *etcdServer)
	repair func(e *etcdServer, h *fleetHost) // nil: the next fault comes on top
}

var etcdFaults = []etcdFault{
	{"does not answer", func(e *etcdServer) { e.Pause() }, func(e *etcdServer, _ *fleetHost) { e.Resume() }},
	{"was killed", func(e *etcdServer) { e.Kill() }, func(e *etcdServer, _ *fleetHost) { e.Start() }},
	{"is compacted", (*etcdServer).compact, nil},
	{"wants a login", func(e *etcdServer) {
		e.Ctl("user", "add", "root:secret")
		e.Ctl("user", "grant-role", "root", "root")
		e.Ctl("auth", "enable")
	}, func(e *etcdServer, _ *fleetHost) { e.Ctl("--user", "root:secret", "auth", "disable") }},
	{"has lost the keys", func(e *etcdServer) { e.Ctl("del", "--prefix", fleetPrefix) }, takeWebDownAgain},
	{"is empty", func(e *etcdServer) { e.Wipe(); e.Start(); e.connect() }, takeWebDownAgain},
	{"is full", (*etcdServer).fill, nil},
	{"is another one", func(e *etcdServer) { e.Replace(); e.Start() }, nil},
}

// TestFleetAnswersDuringFaults: during each of etcdFaults every answer of the hosts is what it was before, and comes as
// fast.
func TestFleetAnswersDuringFaults(t *testing.T) {
	t.Parallel()
	etcd := &etcdServer{EtcdServer: servertest.Etcd(t, servertest.EtcdArgs("--quota-backend-bytes", "1000000")), t: t}
	etcd.connect()
	hosts := startFleetHosts(t, etcd, fleetOptions{hosts: 2})
	hosts[0].mustRunCommand("hadown", "--fleet", "web", "-r", "new disk", "--yes")
	before := medianAnswer(t, hosts[0])
	for _, f := range etcdFaults {
		f.cause(etcd)
		answers := 0
		for ends := time.Now().Add(2 * time.Second); time.Now().Before(ends); answers++ {
			for _, h := range hosts {
				if web, api := h.get("/spool/web/0/").code, h.get("/spool/api/0/").code; web != http.StatusServiceUnavailable || api != http.StatusOK {
					t.Fatalf("etcd %s: %s answers %d for web, which is down, and %d for api", f.name, h.name, web, api)
				}
			}
		}
		// An answer that waits for etcd takes as long as a call of etcd, or its time limit. The factor and the least time
		// are for the noise of a machine that runs other tests.
		during := medianAnswer(t, hosts[0])
		if during > max(3*before, 20*time.Millisecond) {
			t.Errorf("etcd %s: an answer takes %v, before it took %v", f.name, during, before)
		}
		t.Logf("etcd %s: %d answers of each service on each host, median %v, before %v", f.name, answers, during, before)
		if f.repair != nil {
			f.repair(etcd, hosts[0])
			etcd.waitForPresent(hosts...)
		}
	}
}

// takeWebDownAgain sets the override again: etcd does not have it any more.
func takeWebDownAgain(e *etcdServer, h *fleetHost) {
	eventually(e.t, func() error {
		if out, exit := h.runCommand("hadown", "--fleet", "web", "-r", "new disk", "--yes"); exit != 0 {
			return fmt.Errorf("hadown --fleet: exit %d\n%s", exit, out)
		}
		return nil
	})
}

// compact removes all revisions but the last.
func (e *etcdServer) compact() {
	e.t.Helper()
	r, err := e.client.Get(e.t.Context(), fleetPrefix)
	if err == nil {
		_, err = e.client.Compact(e.t.Context(), r.Header.Revision)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// fill writes until etcd has no space.
func (e *etcdServer) fill() {
	e.t.Helper()
	var err error
	for i := 0; err == nil; i++ {
		_, err = e.client.Put(e.t.Context(), fmt.Sprintf("/other/%d", i), strings.Repeat("x", 100<<10))
	}
	if !strings.Contains(err.Error(), "no space") && !strings.Contains(err.Error(), "space exceeded") {
		e.t.Fatal(err)
	}
}
