package servertest

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"
)

// EtcdApart gives each member a network namespace of its own, with an address on a bridge, so that EtcdServer.CutOff can
// separate it from the other members. The test must run in a network namespace of its own, see Namespace.Run.
func EtcdApart(t testing.TB) EtcdOption {
	RunIP(t, "link set lo up")
	RunIP(t, "link add br0 type bridge")
	RunIP(t, "addr add 10.77.0.254/24 dev br0")
	RunIP(t, "link set br0 up")
	var places []etcdPlace
	return func(o *etcdOptions) {
		o.place = func(i int) etcdPlace {
			for n := len(places) + 1; len(places) <= i; n++ {
				places = append(places, newPlace(t, n))
			}
			return places[i]
		}
	}
}

// newPlace makes the n-th network namespace.
func newPlace(t testing.TB, n int) etcdPlace {
	t.Helper()
	holder := exec.Command("sleep", "infinity") // a namespace exists as long as it has a process
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatalf("create a network namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait() // it was killed
	})
	p := etcdPlace{
		host:    fmt.Sprintf("10.77.0.%d", n),
		command: []string{Find(t, "nsenter", "util-linux"), fmt.Sprintf("--net=/proc/%d/ns/net", holder.Process.Pid)},
	}
	RunIP(t, fmt.Sprintf("link add veth%d type veth peer name eth0 netns %d", n, holder.Process.Pid))
	RunIP(t, fmt.Sprintf("link set veth%d master br0 up", n))
	for _, args := range []string{"link set lo up", "addr add " + p.host + "/24 dev eth0", "link set eth0 up"} {
		RunIP(t, args, p.command...)
	}
	return p
}

// CutOff separates the member from the others. Clients still reach it. The cluster was made with EtcdApart.
func (s *EtcdServer) CutOff() { s.changeRoutes("add") }

// Reconnect ends CutOff.
func (s *EtcdServer) Reconnect() { s.changeRoutes("del") }

// changeRoutes adds or deletes the routes by which this member and the others drop what they send to each other.
func (s *EtcdServer) changeRoutes(verb string) {
	s.t.Helper()
	for _, m := range s.Others {
		RunIP(s.t, "route "+verb+" blackhole "+m.place.host, s.place.command...)
		RunIP(s.t, "route "+verb+" blackhole "+s.place.host, m.place.command...)
	}
}
