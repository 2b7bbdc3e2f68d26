package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// These tests run the recipes of docs/haproxy.md for balancers other than HAProxy.

// balancerText returns a recipe for another balancer, with the addresses and ports of the setup and short intervals.
// further has pairs of a text of the recipe and its replacement.
func (s *recipeSetup) balancerText(name, language string, further ...string) string {
	s.t.Helper()
	r := recipes(s.t)[name]
	if r.language != language {
		s.t.Fatalf("recipe %q is in %q, want %q", name, r.language, language)
	}
	for i := 0; i < len(further); i += 2 {
		if !strings.Contains(r.text, further[i]) {
			s.t.Fatalf("recipe %q does not contain %q", name, further[i])
		}
	}
	return strings.NewReplacer(append(further,
		"10.0.0.5", "127.0.0.1", "10.0.0.6", "127.0.0.2", "8080", strconv.Itoa(s.service), "3333", strconv.Itoa(s.hosts[0].port),
	)...).Replace(r.text)
}

// balancerFile writes a configuration to a file in a new directory and returns the path. Servers that change their user
// can read it.
func balancerFile(t *testing.T, name, text string) string {
	t.Helper()
	// Unlike t.TempDir, this name is short enough for Unix sockets.
	dir, err := os.MkdirTemp("", "balancer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// expectServers waits until the balancer at the front port sends requests to all the servers, and to no others.
func (s *recipeSetup) expectServers(want ...string) {
	s.t.Helper()
	n := 0
	eventually(s.t, func() error {
		seen := map[string]bool{}
		for range 8 {
			n++ // a new URL, so that no cache answers
			a, err := get(fmt.Sprintf("http://127.0.0.1:%d/?%s-%d", s.front, strings.Join(want, "-"), n))
			if err != nil {
				return err
			}
			if a.code != 200 {
				return fmt.Errorf("the balancer answers %d %q", a.code, a.body)
			}
			seen[a.body] = true
		}
		for _, server := range want {
			if !seen[server] {
				return fmt.Errorf("requests go to %v, want %v", seen, want)
			}
		}
		if len(seen) != len(want) {
			return fmt.Errorf("requests go to %v, want %v", seen, want)
		}
		return nil
	})
}

// expectObeyed expects that the balancer p follows the overrides of both hosts.
func (s *recipeSetup) expectObeyed(p *process) {
	s.t.Helper()
	p.waitReady(s.t, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.front)))
	names := []string{"web1", "web2"}
	s.expectServers(names...)
	for i, h := range s.hosts {
		h.mustRunCommand("hadown", "web", "-r", "new release")
		s.expectServers(names[1-i])
		h.mustRunCommand("haup", "web")
		s.expectServers(names...)
	}
}

// TestRecipeCaddy: Caddy obeys with the page's recipe.
func TestRecipeCaddy(t *testing.T) {
	t.Parallel()
	s := startRecipeSetup(t, "")
	text := s.balancerText("caddy", "caddyfile", ":80 {", fmt.Sprintf("http://127.0.0.1:%d {", s.front), "interval 2s", "interval 200ms")
	file := balancerFile(t, "Caddyfile", "{\n    admin off\n}\n"+text)
	dir := filepath.Dir(file)
	s.expectObeyed(start(t, findTool(t, "env"), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir,
		findTool(t, "caddy"), "run", "--config", file, "--adapter", "caddyfile"))
}

// TestRecipeVarnish: Varnish obeys with the page's recipe.
func TestRecipeVarnish(t *testing.T) {
	t.Parallel()
	s := startRecipeSetup(t, "")
	file := balancerFile(t, "web.vcl", s.balancerText("varnish", "vcl", "interval = 2s", "interval = 0.2s"))
	// Without a jail it needs no user of its own.
	s.expectObeyed(start(t, findTool(t, "varnishd"), "-F", "-j", "none", "-n", filepath.Join(filepath.Dir(file), "work"),
		"-a", fmt.Sprintf("127.0.0.1:%d", s.front), "-f", file, "-s", "default,16m"))
}

// TestRecipeApache: Apache's mod_proxy_hcheck obeys with the page's recipe. Users do not reach the path of the checks.
func TestRecipeApache(t *testing.T) {
	t.Parallel()
	s := startRecipeSetup(t, "")
	var text strings.Builder
	for _, module := range []string{
		"mpm_event", "authz_core", "proxy", "proxy_http", "proxy_balancer", "proxy_hcheck", "lbmethod_byrequests", "slotmem_shm",
	} {
		fmt.Fprintf(&text, "LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", module)
	}
	fmt.Fprintf(&text, "Listen 127.0.0.1:%d\nServerName localhost\nPidFile apache.pid\nErrorLog /dev/stderr\nDefaultRuntimeDir ${SERVERROOT}\n", s.front)
	if os.Geteuid() == 0 {
		text.WriteString("User www-data\nGroup www-data\n")
	}
	text.WriteString(s.balancerText("apache", "apache", "*:80", fmt.Sprintf("127.0.0.1:%d", s.front),
		"8005", strconv.Itoa(freePort(t)), "8006", strconv.Itoa(freePort(t)), "hcinterval=2 ", "hcinterval=200ms "))
	file := balancerFile(t, "apache.conf", text.String())
	s.expectObeyed(start(t, findTool(t, "apache2"), "-D", "FOREGROUND", "-C", "Define SERVERROOT "+filepath.Dir(file),
		"-d", filepath.Dir(file), "-f", file))
	if a, err := get(fmt.Sprintf("http://127.0.0.1:%d/hacheck", s.front)); err != nil || a.code != 404 {
		t.Errorf("/hacheck for users: %d %q, %v, want 404", a.code, a.body, err)
	}
}

// TestRecipeKeepalived: keepalived accepts the recipe for IPVS, and the test can tell.
func TestRecipeKeepalived(t *testing.T) {
	t.Parallel()
	r := recipes(t)["keepalived"]
	keepalived := findTool(t, "keepalived")
	for text, want := range map[string]bool{
		r.text: true,
		strings.Replace(r.text, "connect_port", "check_port", 1): false,
	} {
		out, err := exec.Command(keepalived, "-t", "-f", balancerFile(t, "keepalived.conf", text)).CombinedOutput()
		if (err == nil) != want {
			t.Errorf("keepalived -t: %v, want accepted: %v\n%s\n%s", err, want, out, text)
		}
	}
}
