package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"hacheck/internal/spool"
	"hacheck/test/proxytest"
)

func TestRoutes(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	for _, c := range []struct {
		request string // method, target, version
		header  string
		code    int
		says    string
	}{
		{"GET /http/web/PORT/status HTTP/1.1", "", 200, "body of /status"},
		{"GET /http/web/PORT/status HTTP/1.0", "", 200, "body of /status"},
		{"OPTIONS /http/web/PORT/status HTTP/1.0", "", 200, "body of /status"},
		{"HEAD /http/web/PORT/status HTTP/1.1", "", 200, ""},
		{"GET //http/web/PORT/status HTTP/1.1", "", 200, "body of /status"},
		{"GET /http/web/PORT//status HTTP/1.1", "", 200, "body of //status"},
		{"GET /http/web/PORT/a/../b/./c// HTTP/1.1", "", 200, "body of /a/../b/./c//"},
		{"GET /http/web/PORT/a%2Fb%20c?x=%26&&y HTTP/1.1", "", 200, "body of /a%2Fb%20c?x=%26&&y"},
		{"GET /http/web/PORT/ HTTP/1.1", "", 200, "body of /"},
		{"GET /http/web/00PORT/ HTTP/1.1", "", 200, "body of /"},
		{"GET /http/web/PORT HTTP/1.1", "", 404, "slash"},
		{"GET /http/web/PORT?x=1 HTTP/1.1", "", 404, "slash"},
		{"GET /http/web/PORT/%zz HTTP/1.1", "", 400, ""},
		{"GET /http/web/PORT/?x=%zz HTTP/1.1", "", 400, "escape"},
		{"GET /http/web/PORT/?x=%f HTTP/1.1", "", 400, "escape"},
		{"GET /http/web/65536/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web/99999999999999999999/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web/-1/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web/80x/ HTTP/1.1", "", 404, "port"},
		{"GET /http/web// HTTP/1.1", "", 404, "port"},
		{"GET /http/web HTTP/1.1", "", 404, "port"},
		{"GET /http/../80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/./80/ HTTP/1.1", "", 404, "service"},
		{"GET /http//80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/a:b/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/%66oo/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/" + strings.Repeat("a", 201) + "/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/" + strings.Repeat("a", 10_000) + "/80/ HTTP/1.1", "", 404, "service"},
		{"GET /http/" + strings.Repeat("a", 200) + "/PORT/ HTTP/1.1", "", 200, "body of /"},
		{"GET /tcp/web/PORT HTTP/1.1", "", 200, ""},
		{"GET /tcp/web/PORT/ignored?and=that HTTP/1.1", "", 200, ""},
		{"GET /tcp/web/PORTabc HTTP/1.1", "", 404, "port"},
		{"GET /spool/web/0/status HTTP/1.1", "", 200, ""},
		{"GET /spool/web/0 HTTP/1.1", "", 200, ""},
		{"GET /http/web/0/ HTTP/1.1", "", 400, "http-check send-state"},
		{"GET /gopher/web/80/ HTTP/1.1", "", 404, "check URL"},
		{"GET /HTTP/web/80/ HTTP/1.1", "", 404, "check URL"},
		{"GET / HTTP/1.1", "", 404, ""},
		{"GET /status/ HTTP/1.1", "", 404, ""},
		{"GET http://x/http/web/PORT/ HTTP/1.1", "", 404, ""},
		{"OPTIONS / HTTP/1.0", "", 405, ""},
		{"OPTIONS * HTTP/1.1", "", 405, ""},
		{"OPTIONS /status HTTP/1.1", "", 405, ""},
		{"OPTIONS / HTTP/1.0", "X-Haproxy-Server-State: UP 2/3; name=be/srv", 404, ""},
		{"GET /status HTTP/1.0", "x-haproxy-server-state: UP 2/3; name=be/srv", 404, ""},
		{"OPTIONS /status HTTP/1.0", "X-Haproxy-Server-State: UP", 404, ""},
		{"PUT /http/web/PORT/ HTTP/1.1", "", 405, ""},
		{"DELETE /status HTTP/1.1", "", 405, ""},
		{"BREW /http/web/PORT/ HTTP/1.1", "", 405, ""},
		{"GET /status HTTP/1.1", "", 200, `"uptime"`},
		{"HEAD /status HTTP/1.1", "", 200, ""},
		{"GET /status/count HTTP/1.1", "", 200, `"service_access_counts"`},
		{"GET /recent HTTP/1.1", "", 200, `"threshold_seconds":600`},
		{"GET /recent?threshold=0 HTTP/1.1", "", 200, `{"seen_services":[],"threshold_seconds":0}`},
		{"GET /recent?threshold=1.5 HTTP/1.1", "", 200, `"threshold_seconds":1.5`},
		{"GET /recent?threshold=abc HTTP/1.1", "", 400, "threshold"},
		{"GET /recent?threshold=nan HTTP/1.1", "", 400, "threshold"},
		{"GET /http/web/PORT/code/201 HTTP/1.1", "", 201, "body of /code/201"},
		{"GET /http/web/PORT/code/302 HTTP/1.1", "", 302, "body of /code/302"},
		{"GET /http/web/PORT/code/204 HTTP/1.1", "", 204, ""},
		{"GET /http/web/PORT/code/304 HTTP/1.1", "", 304, ""},
		{"GET /http/web/PORT/code/500 HTTP/1.1", "", 500, "body of /code/500"},
		{"GET /http/web/PORT/code/599 HTTP/1.1", "", 503, "body of /code/599"},
	} {
		request := strings.ReplaceAll(c.request, "PORT", fmt.Sprint(d.Service.Port))
		raw := request + "\r\n"
		if c.header != "" {
			raw += c.header + "\r\n"
		}
		method, _, _ := strings.Cut(request, " ")
		r := d.Send(t, method, raw+"\r\n")
		if r.Code != c.code || !strings.Contains(r.Body, c.says) || c.code == 200 && c.says == "" && method == "HEAD" && r.Body != "" {
			t.Errorf("%.100s %s: %d %q, want %d %q", c.request, c.header, r.Code, r.Body, c.code, c.says)
		}
		if r.Header.Get("Location") != "" || r.Header.Get("X-Private") != "" {
			t.Errorf("%s: headers of the service are passed on: %v", c.request, r.Header)
		}
		if (r.Code == 204 || r.Code == 304) && (r.Body != "" || r.Header.Get("Content-Length") != "") {
			t.Errorf("%s: a body, or the length of one: %q %v", c.request, r.Body, r.Header)
		}
	}
}

func TestOverridesOnTheWire(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	for _, c := range []struct {
		entry spool.Entry
		path  string
		code  int
		body  string
	}{
		{spool.Entry{State: spool.Down, Reason: "r1", Created: time.UnixMicro(1500000000500000)}, "/spool/web/0/status", 503, "Service web in down state since 1500000000.500000: r1"},
		{spool.Entry{State: spool.Drain, Reason: "r1"}, "/http/web/PORT/", 404, "Service web in drain state: r1"},
		{spool.Entry{State: spool.Maint, Reason: "r1"}, "/http/web/PORT/", 503, "Service web in down state: r1"},
		{spool.Entry{State: spool.ForceUp, Reason: "r1"}, "/http/web/PORT/code/500", 200, "OK"},
		{spool.Entry{State: spool.ForceUp, Reason: "r1"}, "/spool/web/1/", 200, ""},
	} {
		c.entry.Key.Service = "web"
		d.Overrides.Set(c.entry)
		r := d.Get(t, c.path)
		if r.Code != c.code || r.Body != c.body || r.Header.Get("X-Hacheck-Cache") != "override" || r.Header.Get("Age") != "0" {
			t.Errorf("%v %s: %d %q %v, want %d %q", c.entry.State, c.path, r.Code, r.Body, r.Header, c.code, c.body)
		}
	}
	if n := d.Service.Requests.Load(); n != 0 {
		t.Errorf("the service was asked %d times although overrides decide", n)
	}
}

func TestWhereTheCheckGoes(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	const state = "X-Haproxy-Server-State: "
	for _, c := range []struct {
		path    string
		headers []string
		code    int
		says    string
	}{
		{"/http/a/1/", []string{state + "UP 2/3; address=127.0.0.1; port=PORT; name=be/srv; node=N; weight=1/2; scur=13/22; qcur=0"}, 200, "body"},
		{"/http/a/0/", []string{"x-haproxy-server-state: UP;port=PORT"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP 2/3; port= PORT"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; Port=1"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; port=1=2"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; port=0"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; port="}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP 2/3; address=unix; port=unix"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP; port=1; port=PORT"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP; port=1", state + "UP; port=PORT"}, 200, "body"},
		{"/http/a/1/", []string{state + "UP; port=abc"}, 400, "port=abc"},
		{"/http/a/1/", []string{state + "UP; port=-1"}, 400, "port=-1"},
		{"/http/a/1/", []string{state + "UP; port=65536"}, 400, "port=65536"},
		{"/http/a/0/", []string{state + "UP; address=127.0.0.1"}, 400, "send-state"},
		{"/http/a/PORT/", []string{state + "UP; address=localhost"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP; address=0.0.0.0"}, 200, "body"},
		{"/tcp/a/PORT", []string{state + "UP; address=0.0.0.0", "X-Nerve-Check-IP: 198.51.100.9"}, 403, "198.51.100.9"},
		{"/tcp/a/PORT", []string{state + "UP; address=::", "X-Nerve-Check-IP: 198.51.100.9"}, 403, "198.51.100.9"},
		{"/http/a/PORT/", []string{state + "UP; address=::"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP; address=::ffff:127.0.0.1"}, 200, "body"},
		{"/http/a/PORT/", []string{state + "UP; address="}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 127.0.0.1"}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP:"}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1", state + "UP; address=127.0.0.1"}, 200, "body"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1", state + "UP; address=unix"}, 403, "check_hosts_allowed"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1"}, 403, "check_hosts_allowed"},
		{"/spool/a/PORT/", []string{"X-Nerve-Check-IP: 192.0.2.1"}, 200, ""},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: x@127.0.0.1"}, 400, "X-Nerve-Check-IP: x@127.0.0.1"},
		{"/http/a/PORT/", []string{"X-Nerve-Check-IP: example.test"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=[::1]"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=fe80::1%lo"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=127.1"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=0x7f000001"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=010.0.0.1"}, 400, "not an IP address"},
		{"/http/a/PORT/", []string{state + "UP; address=127.0.0.1:80/x?"}, 400, "not an IP address"},
	} {
		if r := d.Get(t, c.path, c.headers...); r.Code != c.code || !strings.Contains(r.Body, c.says) {
			t.Errorf("%s %q: %d %q, want %d %q", c.path, c.headers, r.Code, r.Body, c.code, c.says)
		}
	}
}

func TestHeadersToTheService(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	own := fmt.Sprintf("127.0.0.1:%d", d.Service.Port)
	for _, c := range []struct {
		path    string
		headers []string
		want    string
	}{
		{"/1", nil, `GET /1 Host=` + own + ` X-Copy=[]`},
		{"/2", []string{"Host:"}, `GET /2 Host=` + own + ` X-Copy=[]`},
		{"/3", []string{"hOST: shop.test"}, `GET /3 Host=shop.test X-Copy=[]`},
		{"/3", []string{"Host: a", "X-Copy: 1", "x-copy: 2", "X-Other: 3"}, `GET /3 Host=a X-Copy=["1" "2"]`},
	} {
		for i, cached := range []string{"miss", "hit"} {
			r := d.Get(t, "/http/web/PORT"+c.path, c.headers...)
			if got := d.Service.LastRequest(); got != c.want || r.Header.Get("X-Hacheck-Cache") != cached {
				t.Errorf("%q, time %d: the service was asked %s (%s), want %s (%s)", c.headers, i, got, r.Header.Get("X-Hacheck-Cache"), c.want, cached)
			}
		}
	}
	before := d.Service.Requests.Load()
	for _, h := range []string{"Pragma: no-cache", "pragma: No-Cache", "Cache-Control: max-age=0, no-cache"} {
		if r := d.Get(t, "/http/web/PORT/h", h); r.Header.Get("X-Hacheck-Cache") != "bypass" {
			t.Errorf("%s: %v", h, r.Header)
		}
	}
	if n := d.Service.Requests.Load() - before; n != 3 {
		t.Errorf("3 demands for a fresh check led to %d", n)
	}
}

// TestAHalfClosedClientGetsItsAnswer: the original gave none.
func TestAHalfClosedClientGetsItsAnswer(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	c, err := net.Dial("tcp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /http/web/%d/half HTTP/1.0\r\n\r\n", d.Service.Port)
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if r := proxytest.ReadReply(t, bufio.NewReader(c), "GET"); r.Code != 200 {
		t.Errorf("%+v", r)
	}
}

// TestKeptConnection: requests of the fast path and of net/http may follow each other on one connection.
func TestKeptConnection(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	c, err := net.Dial("tcp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for i := range 50 {
		path := fmt.Sprintf("/http/web/%d/%d", d.Service.Port, i/5)
		if i%7 == 0 {
			path = "/status"
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\n\r\n", path)
		if r := proxytest.ReadReply(t, br, "GET"); r.Code != 200 || r.Close {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if n := d.Service.Requests.Load(); n != 10 {
		t.Errorf("%d checks, want 10", n)
	}
	// All at once, without waiting for answers.
	var all strings.Builder
	for i := range 100 {
		fmt.Fprintf(&all, "GET /http/web/%d/%d HTTP/1.1\r\n\r\n", d.Service.Port, i%10)
	}
	_, _ = io.WriteString(c, all.String())
	for i := range 100 {
		if r := proxytest.ReadReply(t, br, "GET"); r.Code != 200 || r.Body != fmt.Sprintf("body of /%d", i%10) {
			t.Fatalf("pipelined %d: %+v", i, r)
		}
	}
}

// TestClientHangsUp: its check goes on, and the next client gets the result, on the fast path and through net/http.
func TestClientHangsUp(t *testing.T) {
	for name, connect := range map[string]func(*testing.T, *proxytest.Server) net.Conn{
		"the fast path": func(t *testing.T, d *proxytest.Server) net.Conn {
			c, _ := d.DialKeepAlive(t)
			return c
		},
		"net/http": func(t *testing.T, d *proxytest.Server) net.Conn {
			c, err := net.Dial("tcp", d.Addr)
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := proxytest.Start(t, slog.LevelInfo)
			d.Service.Hold = make(chan struct{})
			c := connect(t, d)
			fmt.Fprintf(c, "GET /http/web/%d/held HTTP/1.1\r\n\r\n", d.Service.Port)
			d.Service.Hold <- struct{}{} // its check is under way
			_ = c.Close()
			close(d.Service.Hold)
			if r := d.Get(t, "/http/web/PORT/held"); r.Code != 200 || r.Body != "body of /held" {
				t.Errorf("the next client gets %+v", r)
			}
			if n := d.Service.Requests.Load(); n != 1 {
				t.Errorf("%d checks, want the first one's", n)
			}
		})
	}
}
