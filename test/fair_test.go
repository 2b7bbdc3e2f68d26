package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// These tests show that one client cannot take all checks: not with a loop of checks, not with many checks of one target,
// and not with many different requests for one check.

// TestCheckLoops: a URL that makes hacheck check itself a thousand times, through HAProxy, another hacheck and its
// other listener, gets 503 at once and takes few slots.
func TestCheckLoops(t *testing.T) {
	t.Parallel()
	own := freePort(t) // of http_listen
	d := startDaemon(t, fmt.Sprintf("services: {circle: {http_listen: \"127.0.0.1:%d\", checks: [{type: http, url: \"http://127.0.0.1:%d/\"}]}}\n", own, own))
	other := startDaemon(t, "")
	front := freePort(t)
	startHAProxy(t, fmt.Sprintf(`
frontend through
    bind 127.0.0.1:%d
    default_backend daemon
backend daemon
    server s1 127.0.0.1:%d
`, front, d.port))
	web := startService(t, "127.0.0.1", 0, serveOK)

	circles := map[string]string{
		"itself":          strings.Repeat(fmt.Sprintf("/http/w/%d", d.port), 1000) + "/status",
		"a HAProxy":       strings.Repeat(fmt.Sprintf("/http/w/%d", front), 1000) + "/status",
		"another hacheck": strings.Repeat(fmt.Sprintf("/http/w/%d/http/w/%d", other.port, d.port), 500) + "/status",
		"checks":          "/checks/circle/0/",
	}
	var asking sync.WaitGroup
	for name, path := range circles {
		asking.Go(func() {
			began := time.Now()
			a, err := get(d.url + path)
			if err != nil || a.code != 503 || !strings.Contains(a.body, "X-Hacheck-Hops is above 4") && name != "checks" {
				t.Errorf("through %s: %v %d %.200s", name, err, a.code, a.body)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("through %s: answered after %v", name, took)
			}
		})
	}
	asking.Go(func() {
		began := time.Now()
		a, err := get(fmt.Sprintf("http://127.0.0.1:%d/", own))
		if took := time.Since(began); err != nil || a.code != 504 || took > 5*time.Second {
			t.Errorf("http_listen: %v %d %.200s after %v", err, a.code, a.body, took)
		}
	})
	for i := range 20 {
		began := time.Now()
		a := d.get(fmt.Sprintf("/http/web/%d/?%d", web.port, i))
		if took := time.Since(began); a.code != 200 || took > 5*time.Second {
			t.Errorf("beside it, a check answers %d %s after %v", a.code, a.body, took)
		}
	}
	asking.Wait()

	// A few steps are no loop: a balancer may check a service behind two hachecks.
	if a := d.get(fmt.Sprintf("/http/w/%d/http/w/%d/http/web/%d/few", other.port, front, web.port)); a.code != 200 || a.body != "OK" {
		t.Errorf("three steps: %d %s", a.code, a.body)
	}
}

// TestAggregateLoops: hacheck aggregate counts the steps of a loop as well.
func TestAggregateLoops(t *testing.T) {
	t.Parallel()
	web := startService(t, "127.0.0.1", 0, serveOK)
	port := freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p := start(t, bin(t, "hacheck"), "aggregate", "--listener", addr, "--port", strconv.Itoa(web.port))
	p.waitReady(t, addr)
	for hops, want := range map[string]int{"0": 200, "4": 200, "5": 504, "": 504, "x": 504} {
		a := sendRequest(t, client, http.MethodGet, "http://"+addr+"/", nil, "X-Hacheck-Hops: "+hops)
		if a.code != want || want != 200 && !strings.Contains(a.body, "X-Hacheck-Hops") {
			t.Errorf("%q: %d %s, want %d", hops, a.code, a.body, want)
		}
	}
}

// TestHopsHeader: a check counts X-Hacheck-Hops on, up to 4. With a larger value, or no number, hacheck runs no
// check. The header changes no answer of another client, and no setting sets or removes it.
func TestHopsHeader(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, strings.Join(r.Header["X-Hacheck-Hops"], "+"))
	})
	seen := func() string {
		mu.Lock()
		defer mu.Unlock()
		s := strings.Join(got, " ")
		got = nil
		return s
	}
	d := startDaemon(t, fmt.Sprintf(`
http_headers_to_copy: [x-hacheck-hops]
services:
  direct: {checks: [{type: http, url: "http://127.0.0.1:%d/direct", headers: {X-HACHECK-HOPS: "0"}}]}
  proxied: {checks: [{type: http, url: "http://service.example/proxied", proxy_host: 127.0.0.1, proxy_port: %d}]}
`, web.port, web.port))

	n := 0
	for _, c := range []struct {
		headers []string
		want    string // what the service reads; "" if it is not asked
	}{
		{nil, "1"},
		{[]string{"X-Hacheck-Hops: 0"}, "1"},
		{[]string{"x-hacheck-hops: 1"}, "2"},
		{[]string{"X-Hacheck-Hops:  4 "}, "5"},
		{[]string{"X-Hacheck-Hops: 0", "X-Hacheck-Hops: 3", "X-Hacheck-Hops: 1"}, "4"},
		{[]string{"X-Hacheck-Hops: 5"}, ""},
		{[]string{"X-Hacheck-Hops: 260"}, ""},
		{[]string{"X-Hacheck-Hops: 99999999999999999999"}, ""},
		{[]string{"X-Hacheck-Hops: -1"}, ""},
		{[]string{"X-Hacheck-Hops: +1"}, ""},
		{[]string{"X-Hacheck-Hops: 1, 1"}, ""},
		{[]string{"X-Hacheck-Hops: one"}, ""},
		{[]string{"X-Hacheck-Hops:"}, ""},
		{[]string{"X-Hacheck-Hops: 0", "X-Hacheck-Hops: x"}, ""},
	} {
		// The fast path answers the second request. With Accept, net/http answers both.
		for _, more := range []string{"", "Accept: application/json\r\n"} {
			n++
			head := fmt.Sprintf("GET /http/web/%d/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%s\r\n\r\n", web.port, n, more, strings.Join(c.headers, "\r\n"))
			if c.headers == nil {
				head = strings.TrimSuffix(head, "\r\n")
			}
			for range 2 {
				a, err := exchangeRaw(d.addr, "GET", head)
				if code := map[bool]int{true: 200, false: 503}[c.want != ""]; err != nil || a.code != code {
					t.Errorf("%q: %v %d %s, want %d", c.headers, err, a.code, a.body, code)
				}
			}
			if s := seen(); s != c.want {
				t.Errorf("%q: the service was asked with %q, want %q", c.headers, s, c.want)
			}
		}
	}

	for _, service := range []string{"direct", "proxied"} {
		if a := d.get("/checks/" + service + "/0/"); a.code != 200 {
			t.Errorf("%s: %d %s", service, a.code, a.body)
		}
		sendRequest(t, client, http.MethodGet, d.url+"/checks/"+service+"/0/", nil, "X-Hacheck-Hops: 2")
		if s := seen(); s != "1 3" {
			t.Errorf("%s: asked with %q, want 1, then 3", service, s)
		}
	}

	// Other clients do not get the answer to a request with many hops.
	path := fmt.Sprintf("/http/a/%d/http/web/%d/mine", d.port, web.port)
	for range 2 {
		if a := sendRequest(t, client, http.MethodGet, d.url+path, nil, "X-Hacheck-Hops: 4"); a.code != 503 {
			t.Errorf("with 4 hops: %d %s", a.code, a.body)
		}
		if a := d.get(path); a.code != 200 {
			t.Errorf("without hops, after it: %d %s", a.code, a.body)
		}
	}
	// They do not share its running check either.
	if s := seen(); s != "2" {
		t.Errorf("asked with %q, want 2", s)
	}
}

// TestSlowTargetLeavesSlots: many checks of one slow target do not delay the check of another target.
func TestSlowTargetLeavesSlots(t *testing.T) {
	t.Parallel()
	const slots = 20
	d := startDaemon(t, fmt.Sprintf("max_clients: %d\ncache_time: 0\n", slots))
	hold := make(chan struct{})
	slow := startService(t, "127.0.0.1", 0, func(http.ResponseWriter, *http.Request) { <-hold })
	web := startService(t, "127.0.0.1", 0, serveOK)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(hold)
	for i := range 5 * slots {
		asking.Go(func() { _, _ = get(fmt.Sprintf("%s/http/slow/%d/?%d", d.url, slow.port, i)) })
	}
	eventually(t, func() error {
		if n := d.metric("hacheck_checks_waiting"); n < 4*slots {
			return fmt.Errorf("%v wait", n)
		}
		return nil
	})
	for i := range 10 {
		began := time.Now()
		if a := d.get(fmt.Sprintf("/http/web/%d/?%d", web.port, i)); a.code != 200 || time.Since(began) > 5*time.Second {
			t.Errorf("beside it, a check answers %d %s after %v", a.code, a.body, time.Since(began))
		}
	}
	if n := d.metric("hacheck_checks_in_flight"); n > slots/2 {
		t.Errorf("%v checks run, which leaves less than half of %d slots", n, slots)
	}
}

// TestScriptRunsOnceForAllRequests: all requests that wait for a script share one run, with any port, host, header or
// no-cache. HAProxy sees the service up all the time.
func TestScriptRunsOnceForAllRequests(t *testing.T) {
	t.Parallel()
	runs := filepath.Join(t.TempDir(), "runs")
	d := startDaemon(t, fmt.Sprintf("cache_time: 0\nservices: {web: {checks: [{type: script, timeout: 3, command: [sh, -c, 'echo $HACHECK_PORT >>%s; sleep 0.3']}]}}\n", runs))
	h := startHAProxy(t, fmt.Sprintf("backend web\n    option httpchk GET /checks/web/8080\n    timeout check 4s\n    server s1 127.0.0.1:%d check addr 127.0.0.1 port %d\n", freePort(t), d.port))
	h.waitForChecks(map[string]string{"web": up})

	ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
	defer stop()
	began := time.Now()
	var port, failed atomic.Int64
	parallel(60, func(i int) {
		for ctx.Err() == nil {
			n := port.Add(1)
			a := sendRequest(t, client, http.MethodGet, fmt.Sprintf("%s/checks/web/%d/x?%d", d.url, n%65535, n), nil,
				fmt.Sprintf("X-Nerve-Check-IP: 127.0.%d.%d", n/250%250, n%250+1),
				[]string{"Cache-Control: no-cache", "X-Hacheck-Hops: " + strconv.Itoa(int(n%5))}[n%2])
			if a.code != 200 {
				failed.Add(1)
			}
		}
	})
	took := time.Since(began)
	lines, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(lines), "\n"); float64(n) > took.Seconds()/0.3+10 || strings.Count(string(lines), "0\n") != n {
		t.Errorf("%d runs in %v, HACHECK_PORT %.100q; want one after the other, and always 0", n, took, lines)
	}
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), port.Load())
	}
	if s := h.statByBackend()["web"]; s["chkfail"] != "0" || s["status"] != "UP" {
		t.Errorf("HAProxy saw %s checks fail, and the service is %s (%s)", s["chkfail"], s["status"], s["last_chk"])
	}
}

// TestScriptPorts: a script gets the port of the request only if the configuration names that port.
func TestScriptPorts(t *testing.T) {
	t.Parallel()
	web := startService(t, "127.0.0.1", 0, serveOK)
	d := startDaemon(t, fmt.Sprintf(`services: {web: {checks: [{type: tcp, port: %d}, {type: script, ports: [7001], command: [sh, -c, 'echo port $HACHECK_PORT; exit 1']}]}}`, web.port))
	for port, want := range map[int]int{0: 0, 7001: 7001, web.port: web.port, 7002: 0, 65535: 0} {
		if a := d.get(fmt.Sprintf("/checks/web/%d/", port)); a.code != 503 || !strings.HasSuffix(a.body, fmt.Sprintf(": port %d", want)) {
			t.Errorf("port %d: %d %s, want the script told %d", port, a.code, a.body, want)
		}
	}
}

// TestScriptsOfOneService: a service with many scripts does not delay those of another service.
func TestScriptsOfOneService(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	var many strings.Builder
	for i := range 64 {
		fmt.Fprintf(&many, "{type: script, timeout: 60, command: [sh, -c, 'cat %s', '%d']}, ", path, i)
	}
	d := startDaemon(t, fmt.Sprintf("healthcheck_timeout: 60\nservices: {many: {checks: [%s]}, one: {checks: [{type: script, timeout: 60, command: 'true'}]}}\n", many.String()))
	var asking sync.WaitGroup
	asking.Go(func() { _, _ = get(d.url + "/checks/many/0/") })
	eventually(t, func() error {
		if n := len(childProcesses(t, d.cmd.Process.Pid)); n < 32 {
			return fmt.Errorf("%d scripts run", n)
		}
		return nil
	})
	began := time.Now()
	if a := d.get("/checks/one/0/"); a.code != 200 || time.Since(began) > 20*time.Second {
		t.Errorf("the other service's script: %d %s after %v", a.code, a.body, time.Since(began))
	}
	// Scripts that read the fifo get its end. Later scripts read a file.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	f.Close()
	asking.Wait()
}

// childProcesses returns the running child processes of a process.
func childProcesses(t testing.TB, pid int) []string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range tasks {
		b, _ := os.ReadFile(file) // a thread may have ended
		all = append(all, strings.Fields(string(b))...)
	}
	return all
}

// TestNoCacheChecksAreLimited: requests with Pragma: no-cache cause at most five checks a second, for all clients
// together. Other requests get cached results.
func TestNoCacheChecksAreLimited(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, time.Now().UnixNano())
	})
	path := fmt.Sprintf("%s/http/web/%d/", d.url, web.port)
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	began := time.Now()
	var demands atomic.Int64
	parallel(20, func(i int) {
		for ctx.Err() == nil {
			asked := time.Now()
			a := sendRequest(t, client, http.MethodGet, path, nil, []string{"Pragma: no-cache", "Cache-Control: no-cache"}[i%2])
			demands.Add(1)
			at, err := strconv.ParseInt(a.body, 10, 64)
			if err != nil || a.code != 200 || a.header.Get("X-Hacheck-Cache") != "bypass" || a.header.Get("Age") != "0" {
				t.Errorf("%d %v %s", a.code, a.header, a.body)
			}
			// A check that was running when the request came may answer it. An older result may not.
			if before := asked.Sub(time.Unix(0, at)); before > 5*time.Second {
				t.Errorf("the answer is from %v before the request", before)
			}
		}
	})
	most := int64(time.Since(began)/(200*time.Millisecond)) + 2
	if n := web.requests.Load(); n > most {
		t.Errorf("%d demands in %v had the service asked %d times, want at most %d", demands.Load(), time.Since(began), n, most)
	}
	if a, err := get(path); err != nil || a.header.Get("X-Hacheck-Cache") != "hit" {
		t.Errorf("who demands nothing: %v %v", err, a.header)
	}
}
