package test

import (
	"strings"
	"testing"
)

// TestRecipeCheckSendProxy: HAProxy's checks begin with a PROXY line, in both versions. hacheck answers them if HAProxy's
// address is listed, and else says what to configure.
func TestRecipeCheckSendProxy(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	for _, version := range []string{"send-proxy-v2", "send-proxy"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			config := strings.ReplaceAll(all["proxy_protocol_from"].text, "10.0.0.0/24", "127.0.0.0/8")
			s := newRecipeSetup(t, startHosts(t, 2, "cache_time: 0\n"+config), freePort(t))
			s.startServices()
			r := all["check-send-proxy"]
			r.text = strings.ReplaceAll(r.text, "send-proxy-v2", version)
			lb := s.startHAProxy(r, s.front)
			one := s.hosts[0]
			lb.waitForStates(map[string]string{"web/web1": "UP", "web/web2": "UP"})
			one.mustRunCommand("hadown", "web", "-r", "memory", "--wait")
			lb.waitForStates(map[string]string{"web/web1": "DOWN", "web/web2": "UP"})
			one.mustRunCommand("haup", "web", "--wait")
			if b := one.balancerReport("web").Balancers; len(b) != 1 || b[0].Server != "web/web1" || b[0].Sessions == nil {
				t.Errorf("hacheck knows %+v, want one row with the sessions of web/web1", b)
			}
		})
	}
	t.Run("not listed", func(t *testing.T) {
		t.Parallel()
		s := newRecipeSetup(t, startHosts(t, 2, "cache_time: 0\n"), freePort(t))
		s.startServices()
		lb := s.startHAProxy(all["check-send-proxy"], s.front)
		lb.waitForStates(map[string]string{"web/web1": "DOWN", "web/web2": "DOWN"})
		if row := lb.statByServer()["web/web1"]; row["check_code"] != "400" {
			t.Errorf("HAProxy got %s %s, want 400", row["check_status"], row["check_code"])
		}
		if log := s.hosts[0].out.String(); !strings.Contains(log, "proxy_protocol_from") {
			t.Errorf("the log does not name the setting:\n%s", log)
		}
	})
}
