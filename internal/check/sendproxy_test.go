package check_test

import (
	"fmt"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/servertest"
)

// TestSendProxy: a HAProxy that takes no connection without a PROXY line.
func TestSendProxy(t *testing.T) {
	s := servertest.HAProxy(t, func(port uint16) string {
		return fmt.Sprintf(`defaults
	timeout client 2s
	timeout server 2s
	timeout connect 2s
frontend f
	mode http
	bind 127.0.0.1:%d accept-proxy
	monitor-uri /up
`, port)
	})
	for version, healthy := range map[string]bool{"v1": true, "v2": true, "": false} {
		options := map[string]any{"timeout": 1}
		if version != "" {
			options["send_proxy"] = version
		}
		r := httpCheck(t, check.Defaults{}, "http://"+s.Addr()+"/up", options).Check(t.Context(), check.Target{})
		if (r.Code == 200) != healthy {
			t.Errorf("send_proxy %q: %d %s\n%s", version, r.Code, r.Body, tail(s.Log()))
		}
	}
	for _, typ := range []string{"tcp", "tls", "http"} {
		wantOptionErrors(t, typ, map[string][]any{"send_proxy: expected v1 or v2, got \"v3\"": {"host", "h", "port", 1, "url", "http://h/", "send_proxy", "v3"}})
	}
	wantOptionErrors(t, "http", map[string][]any{
		"proxy_url: a proxy excludes": {"url", "http://h/", "send_proxy", "v1", "proxy_host", "p"},
		"socket: expected the abs":    {"url", "http://h/", "socket", "run/app.sock"},
	})
}
