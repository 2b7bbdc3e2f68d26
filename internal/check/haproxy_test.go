package check_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// statsPage is HAProxy's CSV with the columns that the check looks at in their places.
func statsPage(rows ...string) string {
	var page strings.Builder
	page.WriteString("# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,\n")
	for _, row := range rows {
		part := strings.SplitN(row, "/", 3)
		fmt.Fprintf(&page, "%s,%s,0,0,0,0,,0,0,0,,0,,0,0,0,0,%s,1,\n", part[0], part[1], part[2])
	}
	return page.String()
}

func statsServer(page string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
	}
}

func TestHAProxyPage(t *testing.T) {
	var many []string
	for i := range 20_000 {
		many = append(many, fmt.Sprintf("other/srv%d/UP", i))
	}
	for name, c := range map[string]struct {
		page   string
		code   int
		reason check.Reason
		body   string // ADDR stands for the server's address
	}{
		"up":              {statsPage("web/FRONTEND/OPEN", "web/s1/DOWN", "web/BACKEND/UP"), 200, 0, "web is UP"},
		"down":            {statsPage("web/FRONTEND/OPEN", "web/s1/UP", "web/BACKEND/DOWN"), 503, check.ReasonFailed, "web is DOWN"},
		"anything else":   {statsPage("web/BACKEND/UP 1\x1b/2"), 503, check.ReasonFailed, "web is UP 1 /2"},
		"another backend": {statsPage("web2/BACKEND/UP", "we/BACKEND/UP"), 503, check.ReasonFailed, "web is not found"},
		"server's row":    {statsPage("web/web/UP"), 503, check.ReasonFailed, "web is not found"},
		"last of many":    {statsPage(append(many, "web/BACKEND/UP")...), 200, 0, "web is UP"},
		"other columns":   {"# status,svname,pxname\nUP,BACKEND,web\n", 200, 0, "web is UP"},
		"line ends":       {"# pxname,svname,status\r\nweb,BACKEND,UP\r\n", 200, 0, "web is UP"},
		"quoted":          {"# pxname,svname,x,status\n\"web\",BACKEND,\"a,\"\"b\"\"\nweb,BACKEND,c,UP\n\",DOWN\n", 503, check.ReasonFailed, "web is DOWN"},
		"a quote inside":  {"# pxname,svname,x,status\nweb,BACKEND,5\" disk,UP\n", 200, 0, "web is UP"},
		"an open quote":   {"# pxname,svname,x,status\nweb,BACKEND,\"c,UP\n", 503, check.ReasonFailed, "web is not found"},
		"short row":       {"# pxname,svname,status\nweb,BACKEND\n", 503, check.ReasonFailed, "web is not found"},
		"no end":          {"# pxname,svname,status\nweb,BACKEND,UP", 503, check.ReasonProtocol, "Connection closed early (reading the answer of ADDR)"},
		"empty":           {"", 503, check.ReasonProtocol, "What ADDR answers to GET /;csv is not HAProxy's statistics: no pxname, svname and status in the first row"},
		"not CSV":         {"<!DOCTYPE html>\n<title>web</title>\n", 503, check.ReasonProtocol, "What ADDR answers to GET /;csv is not HAProxy's statistics: no pxname, svname and status in the first row"},
		"long row":        {"# pxname,svname,status\n\"" + strings.Repeat("x\n", 1<<20), 503, check.ReasonProtocol, "What ADDR answers to GET /;csv is not HAProxy's statistics: a row is too long"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, statsServer(c.page))
			r := ask(t, check.Options{}, check.Target{Protocol: "haproxy", Service: "web", Host: s.Host, Port: s.Port, URI: "/ignored"})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || r.Reason != c.reason || string(r.Body) != want {
				t.Errorf("%d %s %q, want %d %s %q", r.Code, r.Reason, r.Body, c.code, c.reason, want)
			}
		})
	}
}

// Whatever the page's own code, ours must not be one that HAProxy takes as an order: 404 drains.
func TestHAProxyNoPage(t *testing.T) {
	for _, code := range []int{204, 301, 401, 404, 503} {
		s := answering(t, fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", code))
		r := ask(t, check.Options{}, check.Target{Protocol: "haproxy", Service: "web", Host: s.Host, Port: s.Port})
		want := fmt.Sprintf("The statistics page of %s answers %d %s", s.Addr(), code, http.StatusText(code))
		if r.Code != 503 || r.Reason != check.ReasonFailed || string(r.Body) != want {
			t.Errorf("%d %s %q, want %q", r.Code, r.Reason, r.Body, want)
		}
	}
}

// The client's Host and the service's header are for services; the page is asked for plainly.
func TestHAProxyRequest(t *testing.T) {
	got := make(chan string, 1)
	s := checktest.Serve(t, func(conn net.Conn) {
		var head bytes.Buffer
		_, _ = http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &head)))
		got <- head.String()
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	ask(t, check.Options{Version: "1.2.3", ServiceNameHeader: "X-Service"}, check.Target{
		Protocol: "haproxy", Service: "web", Host: s.Host, Port: s.Port, Header: []check.Field{{Name: "Host", Value: "web.example"}},
	})
	if want := "GET /;csv HTTP/1.1\r\nHost: " + s.Addr() + "\r\nUser-Agent: hacheck/1.2.3\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n"; <-got != want {
		t.Errorf("request is not %q", want)
	}
}

// A real HAProxy with a backend whose server is up, one whose server is down, and one without a server.
func TestHAProxyServer(t *testing.T) {
	up := checktest.Serve(t, func(net.Conn) {})
	h := servertest.HAProxy(t, func(port uint16) string {
		return fmt.Sprintf(`
defaults
	mode http
	timeout connect 5s
	timeout client 5s
	timeout server 5s
listen stats
	bind 127.0.0.1:%d
	stats enable
	stats uri /
backend web
	server s1 %s
backend web.broken
	server s1 127.0.0.1:%d check inter 10ms fall 1
backend empty
	server s1 127.0.0.1:1 disabled
`, port, up.Addr(), checktest.ClosedPort(t))
	})
	for service, want := range map[string]string{"web": "web is UP", "empty": "empty is DOWN", "stats": "stats is UP", "web2": "web2 is not found"} {
		r := ask(t, check.Options{}, check.Target{Protocol: "haproxy", Service: service, Host: servertest.Host, Port: h.Port})
		if string(r.Body) != want || (r.Code == 200) != strings.HasSuffix(want, " is UP") {
			t.Errorf("%s: %d %q %v, want %q", service, r.Code, r.Body, r.Err, want)
		}
	}
	tryLogins(t, check.Defaults{}, "haproxy", h, map[string]loginCase{
		"configured, up":   {[]any{"backend", "web"}, 200, 0, "web is UP"},
		"configured, down": {[]any{"backend", "empty"}, 503, check.ReasonFailed, "empty is DOWN"},
		"configured, none": {[]any{"backend", "none"}, 503, check.ReasonFailed, "none is not found"},
	})
	wantSteps(t, buildAt(t, check.Defaults{}, "haproxy", "lb", 8404, "backend", "web"), "tcp:AT", "haproxy:AT")
	wantOptionErrors(t, "haproxy", map[string][]any{"backend: is required": {"host", "lb", "port", 8404}, "port: is required": {"host", "lb", "backend", "web"}})
	// HAProxy's own check needs a moment to see that nothing listens.
	deadline, again := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		r := ask(t, check.Options{}, check.Target{Protocol: "haproxy", Service: "web.broken", Host: servertest.Host, Port: h.Port})
		if string(r.Body) == "web.broken is DOWN" && r.Code == 503 {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("%d %q", r.Code, r.Body)
		case <-again.C:
		}
	}
}

func FuzzHAProxyAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n" + statsPage("web/BACKEND/UP")))
	fuzzAnswers(f, "haproxy")
}
