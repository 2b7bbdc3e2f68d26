package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hacheck/test/servertest"
)

// TestRecipeKeepalivedVRRP: the address of keepalived leaves the host when the service is out, and comes back.
func TestRecipeKeepalivedVRRP(t *testing.T) { runInNamespace(t, syscall.CLONE_NEWNET, keepalivedObeys) }

func keepalivedObeys(t *testing.T) {
	findTool(t, "curl")
	// The user namespace of runInNamespace has no other users and no groups.
	if own, err := os.Stat("/"); err != nil || own.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Fatal("keepalived runs its script as another user: run this test as root")
	}
	servertest.RunIP(t, "link set lo up")
	servertest.RunIP(t, "link add eth0 type veth peer name eth1")
	servertest.RunIP(t, "addr add 10.0.0.5/24 dev eth0")
	servertest.RunIP(t, "link set eth0 up")
	servertest.RunIP(t, "link set eth1 up")
	one := startHosts(t, 1, "cache_time: 0\n")[0]
	s := &recipeSetup{t: t, hosts: []*host{one}, service: freePort(t)}
	startBlockingService(t, one.ip, s.service, "web1")
	file := balancerFile(t, "keepalived.conf", s.balancerText("keepalived VRRP", "keepalived",
		"advert_int 1", "advert_int 0.1\n    version 3", "interval 2", "interval 1", "timeout 2", "timeout 5", "-m 1", "-m 5"))
	dir := filepath.Dir(file)
	p := start(t, findTool(t, "keepalived"), "-n", "-l", "-P", "-f", file, "-p", filepath.Join(dir, "parent.pid"), "-r", filepath.Join(dir, "vrrp.pid"))
	expectAddress := func(want bool) {
		t.Helper()
		eventually(t, func() error {
			if p.hasEnded() {
				t.Fatalf("keepalived ended: %v\n%s", p.err, p.out.String())
			}
			out, err := exec.Command(findTool(t, "ip"), "-4", "addr", "show", "dev", "eth0").Output()
			if err != nil {
				return err
			}
			if got := strings.Contains(string(out), "10.0.0.1/24"); got != want {
				return fmt.Errorf("eth0 has 10.0.0.1: %t, want %t\n%s", got, want, out)
			}
			return nil
		})
	}
	expectAddress(true)
	one.mustRunCommand("hadown", "web", "-r", "new release")
	expectAddress(false)
	one.mustRunCommand("haup", "web")
	expectAddress(true)
}
