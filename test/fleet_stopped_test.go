package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestFleetStoppedCommand: hadown --safe --wait-turn is stopped with SIGSTOP while it waits. The host behind it gets its
// turn, although it came later, which fleetObserver takes for a fault. The stopped one takes its own after SIGCONT.
func TestFleetStoppedCommand(t *testing.T) {
	t.Parallel()
	f := newFleetFarm(t, 1, fleetOptions{hosts: 3})
	web1, web2, web3 := f.hosts[0], f.hosts[1], f.hosts[2]
	safe := []string{"--safe", "--wait-turn", "web", "-r", "new memory"}
	web1.mustRunCommand("hadown", safe...)
	waiting := web2.startCommand("hadown", safe...)
	f.waitForQueue("web2", "")
	if err := waiting.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	next := web3.startCommand("hadown", safe...)
	f.waitForQueue("web3", "")
	web1.mustRunCommand("haup", "--wait", "web")
	if <-next.done; !web3.hasOverride() || web2.hasOverride() || waiting.hasEnded() {
		t.Fatalf("override on web3: %v, on web2: %v; the command on web2 has ended: %v", web3.hasOverride(), web2.hasOverride(), waiting.hasEnded())
	}
	f.waitForQueue("web2", "its command is stopped")
	if err := waiting.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	web3.mustRunCommand("haup", "--wait", "web")
	if <-waiting.done; !web2.hasOverride() {
		t.Errorf("web2 has no override:\n%s", waiting.out.String())
	}
	web2.mustRunCommand("haup", "--wait", "web")
	f.waitForNoPermits()
}

// waitForQueue waits until a host is in the queue and its entry has a text.
func (f *fleetFarm) waitForQueue(host, text string) {
	f.t.Helper()
	eventually(f.t, func() error {
		entries, err := f.etcd.values(f.t.Context(), "queue/"+host+".")
		if err != nil {
			return err
		}
		for _, value := range entries {
			if strings.Contains(value, text) {
				return nil
			}
		}
		return fmt.Errorf("%s is not in the queue with %q: %v", host, text, entries)
	})
}
