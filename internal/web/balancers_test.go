package web_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/test/proxytest"
)

// TestBalancers: /balancers shows the balancer of each check request, of the fast path and of net/http.
func TestBalancers(t *testing.T) {
	t.Parallel()
	zero, one, two := 0, 1, 2
	state := "X-Haproxy-Server-State: UP; address=127.0.0.1; port=PORT; name=be/s1; node=lb1; weight=1/2; scur=2/9; qcur=0"
	for name, ask := range map[string]func(t *testing.T, d *proxytest.Server, head string){
		"the fast path": func(t *testing.T, d *proxytest.Server, head string) {
			d.Send(t, "GET", head+"Connection: close\r\n\r\n")
		},
		"net/http": func(t *testing.T, d *proxytest.Server, head string) {
			d.Send(t, "GET", head+"Expect:\r\nConnection: close\r\n\r\n")
		},
		"a kept connection": func(t *testing.T, d *proxytest.Server, head string) {
			c, err := net.Dial("tcp", d.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			br := bufio.NewReader(c)
			_, _ = io.WriteString(c, "GET /status HTTP/1.1\r\n\r\n")
			proxytest.ReadReply(t, br, "GET")
			_, _ = io.WriteString(c, head+"\r\n")
			proxytest.ReadReply(t, br, "GET")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := proxytest.Start(t, slog.LevelInfo)
			head := strings.ReplaceAll("GET /http/web/0/status HTTP/1.1\r\n"+state+"\r\n", "PORT", fmt.Sprint(d.Service.Port))
			for range 2 { // a check, and one from the cache
				ask(t, d, head)
			}
			want := balancer.ServerView{
				Service: "web", Host: "127.0.0.1", Port: uint16(d.Service.Port), Local: true, URL: "/http/web/0/status",
				Address: "127.0.0.1", Node: "lb1", Server: "be/s1",
				State: "UP", Sessions: &two, Queued: &zero, Weight: &one, TotalWeight: &two,
				Last: balancer.Answer{Code: 200}, Previous: &balancer.Answer{Code: 200}, SameAnswers: 2,
			}
			if diff := cmp.Diff([]balancer.ServerView{want}, d.Balancers()); diff != "" {
				t.Fatal(diff)
			}
			d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Drain})
			ask(t, d, strings.ReplaceAll(head, "scur=2/9", "scur=0/9"))
			want.Sessions, want.OutAnswers, want.SameAnswers, want.Last = &zero, 1, 1, balancer.Answer{Code: 404, Override: "drain"}
			if diff := cmp.Diff([]balancer.ServerView{want}, d.Balancers()); diff != "" {
				t.Fatal(diff)
			}

			var page balancer.Report
			r := d.Get(t, "/balancers?service=web")
			if err := json.Unmarshal([]byte(r.Body), &page); err != nil || r.Code != 200 || r.Header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Fatalf("%v: %+v", err, r)
			}
			if len(page.Balancers) != 1 || len(page.Services) != 1 || page.Services[0].Service != "web" || page.Uptime <= 0 {
				t.Errorf("%s", r.Body)
			}
			if r := d.Get(t, "/balancers?service=other"); !strings.Contains(r.Body, `"services":[],"balancers":[],"agents":[]`) {
				t.Errorf("about another service: %s", r.Body)
			}
		})
	}
}

// TestBalancersPage: a text that names no service gets an error, and no balancer gets a healthy answer.
func TestBalancersPage(t *testing.T) {
	t.Parallel()
	d := proxytest.Start(t, slog.LevelInfo)
	if r := d.Get(t, "/balancers?service=a/b"); r.Code != 400 || !strings.Contains(r.Body, "/balancers?service=web") {
		t.Errorf("no service: %+v", r)
	}
	if r := d.Get(t, "/balancers", "X-Haproxy-Server-State: UP"); r.Code != 404 {
		t.Errorf("to a balancer: %+v", r)
	}
	// A refused request is recorded, too.
	d.Get(t, "/http/web/0/", "X-Haproxy-Server-State: UP; port=x; node=lb1; name=be/s")
	if got := d.Balancers(); len(got) != 1 || got[0].Last.Code != 400 || got[0].Port != 0 {
		t.Errorf("%+v", got)
	}
}

// TestStatusAllowed: this machine and the clients in status_allowed may read pages; every client may ask for a check.
func TestStatusAllowed(t *testing.T) {
	t.Parallel()
	d := proxytest.Start(t, slog.LevelInfo)
	pages := []string{"/status", "/status/count", "/recent", "/balancers"}
	from := func(peer, path string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = net.JoinHostPort(peer, "4711")
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		allowed []netip.Prefix
		peer    string
		code    int
	}{
		{[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, "192.0.2.7", 200},
		{[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, "2001:db8::7", 200},
		{[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, "fe80::1%eth0", 200},
		{nil, "192.0.2.7", 403},
		{nil, "127.0.0.1", 200},
		{[]netip.Prefix{}, "192.0.2.7", 403},
		{[]netip.Prefix{}, "127.0.0.1", 200},
		{[]netip.Prefix{}, "::1", 200},
		{[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "192.0.2.7", 200},
		{[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "::ffff:192.0.2.7", 200},
		{[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "192.0.3.7", 403},
		{[]netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, "fe80::1%eth0", 403},
	} {
		set := d.Pages
		set.StatusAllowed = c.allowed
		d.Web.SetSettings(set)
		for _, page := range pages {
			code, body := from(c.peer, page)
			if code != c.code || code == 403 && !strings.Contains(body, "status_allowed") {
				t.Errorf("%v: %s from %s: %d %s", c.allowed, page, c.peer, code, body)
			}
		}
		if code, body := from(c.peer, "/spool/web/0/"); code != 200 {
			t.Errorf("%v: a check from %s: %d %s", c.allowed, c.peer, code, body)
		}
	}
}

// TestStatusSpool: only this machine may read where the spool directory is, whatever status_allowed says.
func TestStatusSpool(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	set := d.Pages
	set.StatusAllowed = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	d.Web.SetSettings(set)
	for peer, want := range map[string]string{
		"127.0.0.1":   `{"directory":"/spool","device":0,"inode":7,"read":true,"lost":false}`,
		"::1":         `{"directory":"/spool","device":0,"inode":7,"read":true,"lost":false}`,
		"203.0.113.9": "only this machine may see this",
	} {
		r := httptest.NewRequest(http.MethodGet, "/status/spool", nil)
		r.RemoteAddr = net.JoinHostPort(peer, "4711")
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if got := w.Body.String(); got != want {
			t.Errorf("%s sees %d %q, want %q", peer, w.Code, got, want)
		}
	}
}

func TestRecent(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	d.Get(t, "/http/b/PORT/")
	d.Get(t, "/http/b/PORT/") // this one from the cache
	d.Get(t, "/http/a/PORT/code/500")
	d.Get(t, "/http/a/PORT/", "X-Nerve-Check-IP: 192.0.2.1")
	r := d.Get(t, "/recent")
	if !strings.Contains(r.Body, `{"seen_services":[["a",{"code":403,"remote_ip":"127.0.0.1","ts":1`) || !strings.Contains(r.Body, `["b",{"code":200,`) {
		t.Errorf("recent: %s", r.Body)
	}
	if r := d.Get(t, "/status/count"); r.Body != `{"service_access_counts":{"a":{"127.0.0.1":2},"b":{"127.0.0.1":2}}}` {
		t.Errorf("count: %s", r.Body)
	}
	if r := d.Get(t, "/status"); !strings.Contains(r.Body, `"gets":3,"hits":1,"misses":2`) && !strings.Contains(r.Body, `"hits":1`) {
		t.Errorf("status: %s", r.Body)
	}
}
