package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacheck/internal/balancer"
)

// TestDoorsWithoutHTTPOverrides: -S is about the HTTP door. What no agent speaks for still obeys an override.
func TestDoorsWithoutHTTPOverrides(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spoolRoot, conf, addr := filepath.Join(dir, "spool"), filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("cache_time: 0\nservices:\n  web:\n    checks:\n      - {type: script, command: [\"true\"]}\n    http_listen: %s\n", addr))
	p := startDaemon(t, "-c", conf, "--spool-root", spoolRoot, "-S")
	if code, body := fetch(t, addr, ""); code != 200 {
		t.Fatalf("before: %d %s", code, body)
	}
	writeFile(t, filepath.Join(spoolRoot, "web"), "why")
	if code, body, err := p.get("/checks/web/0/"); code != 200 {
		t.Errorf("the check under -S: %d %s %v", code, body, err)
	}
	if code, body := fetch(t, addr, ""); code != 504 || !strings.Contains(body, "down state: why") {
		t.Errorf("the service's own listener under -S: %d %s", code, body)
	}
	if code, _, err := p.get("/spool/web/0/"); code != 503 {
		t.Errorf("/spool under -S: %d %v", code, err)
	}
}

// TestDoorsTeach: who asks a service's own listener is known as who asks the daemon is.
func TestDoorsTeach(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, addr := filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("services:\n  web:\n    checks:\n      - {type: script, command: [\"true\"]}\n    http_listen: %s\n", addr))
	p := startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Haproxy-Server-State", "UP 2/3; name=be/web1; node=lb1; weight=1/2; scur=3/4; qcur=0")
	r, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	_, body, err := p.get("/balancers?service=web")
	var page balancer.Report
	if err != nil || json.Unmarshal([]byte(body), &page) != nil || len(page.Balancers) != 1 || len(page.Services) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	if b := page.Balancers[0]; b.Node != "lb1" || b.State != "UP 2/3" || b.Sessions == nil || *b.Sessions != 3 || !b.Here || b.URL != "http://"+addr+"/x" || b.Last.Code != 200 {
		t.Errorf("%+v", b)
	}
}

// TestDoorsWithoutHost: "option httpchk GET /x HTTP/1.1" sends no Host line, whichever door it asks.
func TestDoorsWithoutHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, addr, other := filepath.Join(dir, "hacheck.yaml"), freeAddr(t), freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("services:\n  web:\n    checks:\n      - {type: script, command: [\"true\"]}\n    http_listen: %s\n", addr))
	startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	launchSub(t, "aggregate", "--listener", other, "--script", "true", "--spool-root", filepath.Join(dir, "spool"))
	for _, addr := range []string{addr, other} {
		var said string
		until(t, "an answer from "+addr, func() bool {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(soon))
			_, _ = io.WriteString(c, "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
			b, _ := io.ReadAll(c)
			said = string(b)
			return true
		})
		if !strings.HasPrefix(said, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%s: %q", addr, said)
		}
	}
}
