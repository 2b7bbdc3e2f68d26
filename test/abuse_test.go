package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// memoryTolerance is how many bytes the daemon may grow by in these tests. The race detector needs more, because it
// records every memory access.
func memoryTolerance() int64 {
	if raceEnabled {
		return 300 << 20
	}
	return 40 << 20
}

// TestServiceOfOneByteASecond: the timeout covers the whole check, not each byte.
func TestServiceOfOneByteASecond(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "healthcheck_timeout: 1\n")
	stop := make(chan struct{})
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			case <-stop:
				return
			}
		}
	}
	web := startService(t, "127.0.0.1", 0, drip)
	defer close(stop)
	began := time.Now()
	a := d.get(fmt.Sprintf("/http/web/%d/", web.port))
	if a.code != 503 || !strings.Contains(a.body, "timed out") {
		t.Errorf("got %d %q, want 503 that says timed out", a.code, a.body)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("answered after %v, with a timeout of 1s", took)
	}
	if strings.Contains(a.body, "\n") {
		t.Errorf("more than one line: %q", a.body)
	}
}

// TestServiceOf10GB: hacheck passes 64 KiB of a body on and does not read the rest.
func TestServiceOf10GB(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	before := d.rss()
	const size = 10 << 30
	var sent atomic.Int64
	ended := make(chan struct{}, 10)
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		for sent.Load() < size {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	for _, path := range []string{"/sized", "/chunked"} {
		sent.Store(0)
		a := d.get(fmt.Sprintf("/http/web/%d%s", web.port, path))
		if a.code != 200 || len(a.body) != 64<<10 || a.body != string(block[:64<<10]) {
			t.Errorf("%s: got %d and %d bytes, want 200 and the first 65536", path, a.code, len(a.body))
		}
		if cl := a.header.Get("Content-Length"); cl != "65536" {
			t.Errorf("%s: Content-Length %q, want 65536", path, cl)
		}
		<-ended // the connection was closed, or the service would still be writing
		if n := sent.Load(); n > 64<<20 {
			t.Errorf("%s: the service got rid of %d bytes", path, n)
		}
	}
	if grown := d.rss() - before; grown > memoryTolerance() {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

// TestHeaderOf1MB: a request with a header of 1 MB gets an answer or a closed connection at once, and uses no memory.
func TestHeaderOf1MB(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	before := d.rss()
	big := strings.Repeat("x", 1<<20)
	for name, request := range map[string]string{
		"a long value":       "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\nX-Long: " + big + "\r\n\r\n",
		"without Host":       "GET /spool/web/0/ HTTP/1.1\r\nX-Long: " + big + "\r\n\r\n",
		"a long name":        "GET /spool/web/0/ HTTP/1.1\r\n" + big + ": x\r\n\r\n",
		"many":               "GET /spool/web/0/ HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 1<<20/6) + "\r\n",
		"a long URL":         "GET /http/web/1/" + big + " HTTP/1.1\r\n\r\n",
		"a long method":      big + " /spool/web/0/ HTTP/1.1\r\n\r\n",
		"a long state":       "GET /spool/web/0/ HTTP/1.1\r\nX-Haproxy-Server-State: " + big + "\r\n\r\n",
		"no line end at all": big,
	} {
		began := time.Now()
		a, err := exchangeRaw(d.addr, "GET", request)
		// A connection reset during the request is an answer as well, if it comes at once.
		if err == nil && a.code/100 != 4 {
			t.Errorf("%s: got %d %.100q, want a refusal", name, a.code, a.body)
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: refused after %v only", name, took)
		}
	}
	if a := d.get("/spool/web/0/"); a.code != 200 {
		t.Errorf("after all this: %d %s", a.code, a.body)
	}
	if grown := d.rss() - before; grown > memoryTolerance() {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

// TestSlowLoris: clients that never finish a request do not delay other clients, and the daemon closes their
// connections.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	const n = 500
	starts := []string{"", "G", "GET /spool/web/0/ HT", "GET /spool/web/0/ HTTP/1.1\r\n", "GET /spool/web/0/ HTTP/1.1\r\nX-A: b\r\nX-"}
	thrown := make(chan error, n)
	for i := range n {
		conn, err := dial(d.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, starts[i%len(starts)]); err != nil {
			t.Fatal(err)
		}
		go func() {
			// The daemon must close the connection, with or without an answer.
			_, err := io.Copy(io.Discard, conn)
			thrown <- err
		}()
	}
	began := time.Now()
	if a := d.get("/spool/web/0/"); a.code != 200 {
		t.Errorf("beside %d clients that never finish: %d %s", n, a.code, a.body)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("beside %d clients that never finish, an answer took %v", n, took)
	}
	for range n {
		if err := <-thrown; err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a client that never finishes was not thrown out: %v", err)
		}
	}
}

// TestManyQueries: names and queries, which a client chooses, fill no memory without a limit.
func TestManyQueries(t *testing.T) {
	t.Parallel()
	const limit, each = 100, 2500
	d := startDaemon(t, fmt.Sprintf("cache_max_entries: %d\n", limit))
	web := startService(t, "127.0.0.1", 0, serveOK)
	var failed atomic.Int64
	parallel(4, func(i int) {
		keep := &http.Client{Transport: &http.Transport{}, Timeout: waitLimit}
		defer keep.CloseIdleConnections()
		for j := range each {
			resp, err := keep.Get(fmt.Sprintf("%s/http/name-%d-%d/%d/?%d=%d", d.url, i, j, web.port, i, j))
			if err != nil {
				failed.Add(1)
				continue
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				failed.Add(1)
			}
		}
	})
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d different checks failed", n, 4*each)
	}
	// Each request caused a check. The cache only stores no results beyond its limit.
	if n := web.requests.Load(); n != 4*each {
		t.Errorf("the service was asked %d times, want %d", n, 4*each)
	}
}

// TestSpecialFilesInSpool: a file of 1 GB is an override like any other. A directory, a fifo and a symbolic link to
// another directory are no overrides.
func TestSpecialFilesInSpool(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	before := d.rss()
	in := func(name string) string { return filepath.Join(d.spool, name) }
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(elsewhere, []byte("{}"), 0o644))
	must(os.WriteFile(in("huge"), []byte("it begins like this "), 0o644))
	must(os.Truncate(in("huge"), 1<<30))
	must(os.Mkdir(in("directory"), 0o755))
	must(syscall.Mkfifo(in("fifo"), 0o644))
	must(os.Symlink(elsewhere, in("link")))
	must(os.Symlink(in("nowhere"), in("dangling")))
	for name, want := range map[string]int{"huge": 503, "directory": 200, "fifo": 200, "link": 200, "dangling": 200} {
		began := time.Now()
		a := d.get("/spool/" + name + "/0/")
		if a.code != want {
			t.Errorf("%s: got %d %.100q, want %d", name, a.code, a.body, want)
		}
		if a.code == 503 && !paasta.MatchString(a.body) {
			t.Errorf("%s: PaaSTA cannot read %.100q", name, a.body)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: answered after %v", name, took)
		}
	}
	if grown := d.rss() - before; grown > memoryTolerance() {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

// TestPortTaken: a second daemon on the same port reports an error and exits; it does not share the port.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	second := start(t, bin(t, "hacheck"), "-B", "127.0.0.1", "-p", strconv.Itoa(d.port), "--spool-root", d.spool)
	<-second.done
	if exitCode(second.err) != 1 || !strings.Contains(second.out.String(), strconv.Itoa(d.port)) || !strings.Contains(second.out.String(), "in use") {
		t.Errorf("exit %d, %q: want 1 and a message that names the port and says it is in use", exitCode(second.err), second.out.String())
	}
	if a := d.get("/spool/web/0/"); a.code != 200 {
		t.Errorf("the first one now answers %d %s", a.code, a.body)
	}
}
