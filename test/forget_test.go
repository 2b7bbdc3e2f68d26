package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestForgetBalancer: hacheck balancer forget refuses an HAProxy that asks, and removes it once it has ended and is
// silent. The daemon has no fleet.
func TestForgetBalancer(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "forget-") // a Unix socket's path holds 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "control.sock")
	d := newDaemon(t, "127.0.0.1", freePort(t), filepath.Join(dir, "spool"))
	d.launch(bin(t, "hacheck"), "--control-socket", socket)
	d.expectCleanExit(t)
	web := startService(t, "127.0.0.1", 0, serveOK)
	h := startHAProxy(t, fmt.Sprintf(`
backend web
    option httpchk GET /http/web/%[1]d/
    http-check send-state
    server s1 127.0.0.1:%[1]d check port %[2]d
`, web.port, d.port))
	h.waitForChecks(map[string]string{"web": up})
	eventually(t, func() error { // two requests make it a balancer that asks steadily
		if body := d.get("/balancers").body; !strings.Contains(body, `"previous":{`) {
			return fmt.Errorf("/balancers has %s", body)
		}
		return nil
	})
	forget := func(name string) (string, error) {
		out, err := exec.Command(bin(t, "hacheck"), "balancer", "forget", "--control-socket", socket, name).CombinedOutput()
		return string(out), err
	}
	if out, err := forget("127.0.0.1"); err == nil || !strings.Contains(out, "127.0.0.1: the balancer still asks") {
		t.Errorf("while it asks: %v, %s", err, out)
	}
	if out, err := forget("10.9.8.7"); err == nil || !strings.Contains(out, "10.9.8.7: no balancer has that address") {
		t.Errorf("of another one: %v, %s", err, out)
	}
	if err := h.stop(); err == nil {
		t.Log("haproxy ended with 0")
	}
	eventually(t, func() error {
		if body := d.get("/balancers").body; !strings.Contains(body, `"silent":true`) {
			return fmt.Errorf("/balancers has %s", body)
		}
		return nil
	})
	if out, err := forget("127.0.0.1"); err != nil || out != "127.0.0.1 is forgotten\n" {
		t.Errorf("after its end: %v, %s", err, out)
	}
	if body := d.get("/balancers").body; strings.Contains(body, `"silent":true`) {
		t.Errorf("/balancers still has it: %s", body)
	}
}
