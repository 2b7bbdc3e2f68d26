package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// fillTables sends requests for n services from a balancer, so that the daemon's pages are long.
func (d *daemon) fillTables(n int) {
	d.t.Helper()
	c, err := dial(d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	long := strings.Repeat("x", 150)
	for i := range n {
		_, _ = fmt.Fprintf(c, "GET /spool/service-%d-%s/0/ HTTP/1.1\r\nHost: x\r\nX-Haproxy-Server-State: UP 2/3; address=127.0.0.1; port=80; name=%s/%d; node=lb; weight=1/2; scur=1/2; qcur=0\r\n\r\n", i, long, long, i)
		resp, err := http.ReadResponse(answers, nil)
		if err != nil || resp.StatusCode != 200 {
			d.t.Fatalf("request %d: %v %v", i, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}

// TestSlowReadersOfPages: clients that request long pages and do not read them use little memory. hacheck rejects
// further requests and frees their places in time.
func TestSlowReadersOfPages(t *testing.T) {
	t.Parallel()
	const services, slow = 3000, 500
	d := startDaemon(t, "metrics_per_service: true\n")
	d.fillTables(services)
	before := d.rss()

	pages := []string{"/overview", "/balancers", "/", "/recent", "/recent?threshold=%d", "/metrics", "/status/count"}
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}, Timeout: waitLimit}
	for i := range slow {
		c, err := from.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(2048)
		page := pages[i%len(pages)]
		if strings.Contains(page, "%d") {
			page = fmt.Sprintf(page, 1000+i)
		}
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nUser-Agent: x\r\n\r\n", page)
	}

	slowClient := clientAt(t, "127.0.0.3")
	refused := sendRequest(t, slowClient, http.MethodGet, d.url+"/overview", nil)
	if refused.code != 503 || refused.header.Get("Retry-After") == "" || !strings.Contains(refused.body, "Too many") {
		t.Errorf("beside %d slow readers, the same client gets %d %.100q %v, want 503 that says when to ask again", slow, refused.code, refused.body, refused.header)
	}
	for _, path := range []string{"/overview", "/balancers?service=web", "/metrics", "/status"} {
		if a := d.get(path); a.code != 200 {
			t.Errorf("beside them another client gets %d %.100q for %s", a.code, a.body, path)
		}
	}
	if a := sendRequest(t, slowClient, http.MethodGet, d.url+"/spool/web/0/", nil); a.code != 200 {
		t.Errorf("a check by that client is answered %d %.100s", a.code, a.body)
	}
	// The daemon holds a few pages and the buffers that made them.
	if grown := d.rss() - before; grown > 3*memoryTolerance() {
		t.Errorf("%d slow readers have the daemon grow by %d MB", slow, grown>>20)
	}
	eventually(t, func() error {
		if a := sendRequest(t, slowClient, http.MethodGet, d.url+"/recent", nil); a.code != 200 {
			return fmt.Errorf("the places of slow readers are not free again: %d %.100s", a.code, a.body)
		}
		return nil
	})
}

// TestPagesAreShared: concurrent requests for a page get the same bytes. hacheck makes a page at most once a second,
// and it is never older than the request.
func TestPagesAreShared(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	var mu sync.Mutex
	made := map[float64]int{}
	began := time.Now()
	parallel(7, func(int) {
		for time.Since(began) < 4*time.Second {
			a, err := get(d.url + "/overview")
			var page struct{ Now float64 }
			if err == nil && a.code == 200 {
				err = json.Unmarshal([]byte(a.body), &page)
			}
			if err != nil || page.Now == 0 {
				t.Errorf("%v: %d %.200s", err, a.code, a.body)
				return
			}
			mu.Lock()
			made[page.Now]++
			mu.Unlock()
		}
	})
	if most := int(time.Since(began)/time.Second) + 2; len(made) > most {
		t.Errorf("within %v it was made %d times", time.Since(began), len(made))
	}

	for i := range 2 {
		for _, page := range []string{"/overview", "/", "/recent", "/recent?threshold=5", "/balancers", "/status/count", "/metrics"} {
			name := fmt.Sprintf("web-%d-%d", i, len(page))
			d.get("/spool/" + name + "/0/")
			want := name
			if page == "/metrics" {
				want = fmt.Sprintf(`hacheck_answers_total{protocol="spool",reason="ok"} %d`+"\n", 7*(i+1))
			}
			if a := d.get(page); a.code != 200 || !strings.Contains(a.body, want) {
				t.Errorf("%s: %d, without what was answered before: %s\n%.2000s", page, a.code, want, a.body)
			}
		}
	}
}

// TestSafeBesideSlowReaders: slow readers from many addresses do not keep local commands from reading /balancers.
func TestSafeBesideSlowReaders(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	d.fillTables(1500)
	for i := range 60 {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i/6+1))}, Timeout: waitLimit}
		c, err := from.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(2048)
		_, _ = io.WriteString(c, "GET /overview HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	for range 10 {
		sent := time.Now()
		d.get("/spool/web/0/")
		a := d.get("/balancers?service=web")
		var report struct {
			Services []struct {
				Service string
				Ago     float64
			}
		}
		if err := json.Unmarshal([]byte(a.body), &report); err != nil || a.code != 200 || len(report.Services) != 1 {
			t.Fatalf("%v: %d %s", err, a.code, a.body)
		}
		if s := report.Services[0]; s.Service != "web" || s.Ago > time.Since(sent).Seconds() {
			t.Errorf("%+v, want web, asked about %v ago at most", s, time.Since(sent))
		}
	}
	// It got the report and refuses because of it: the only client is no balancer.
	if out, err := d.run("hadown", "web", "--safe", "-p", fmt.Sprint(d.port)); exitCode(err) != 1 || !strings.Contains(out, "what it has left cannot be known") && !strings.Contains(out, "no balancer") {
		t.Errorf("hadown --safe: %v %s", err, out)
	}
}
