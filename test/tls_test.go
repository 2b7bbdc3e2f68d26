package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"hacheck/test/servertest"
)

// TestRecipeTLS: HAProxy checks by TLS, verifies hacheck's certificate and shows its own. The commands of the host ask
// by the plain port of the loopback address.
func TestRecipeTLS(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	ca := servertest.NewAuthority(t)
	cert, key := ca.Issue(t, "hacheck")
	clientCert, clientKey := ca.Issue(t, "haproxy")
	var pem []byte
	for _, file := range []string{clientCert, clientKey} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pem = append(pem, text...)
	}
	both := filepath.Join(t.TempDir(), "haproxy.pem")
	if err := os.WriteFile(both, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	config := strings.NewReplacer("0.0.0.0:3443", fmt.Sprintf("0.0.0.0:%d", port), "/etc/hacheck/hacheck.pem", cert, "/etc/hacheck/hacheck.key", key,
		"/etc/hacheck/clients.pem", ca.File).Replace(all["tls_listen"].text)
	s := newRecipeSetup(t, startHosts(t, 1, "cache_time: 0\n"+config), freePort(t))
	s.startServices()
	r := all["check-ssl"]
	r.text = strings.NewReplacer("3443", strconv.Itoa(port), "/etc/haproxy/hacheck-ca.pem", ca.File, "/etc/haproxy/client.pem", both,
		"    server web2 10.0.0.6:8080\n", "").Replace(r.text)
	lb := s.startHAProxy(r, s.front)
	one := s.hosts[0]
	lb.waitForStates(map[string]string{"web/web1": "UP"})
	one.mustRunCommand("hadown", "web", "-r", "memory", "--wait")
	lb.waitForStates(map[string]string{"web/web1": "DOWN"})
	one.mustRunCommand("haup", "web", "--wait")
	lb.waitForStates(map[string]string{"web/web1": "UP"})
}
