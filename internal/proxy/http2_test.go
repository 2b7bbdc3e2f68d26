package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/spool"
	"hacheck/test/proxytest"
)

// http2Client returns a client that speaks HTTP/2 by prior knowledge, on one connection.
func http2Client(t *testing.T) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// askHTTP2 sends a request by HTTP/2. It returns the answer without the Date header.
func askHTTP2(t *testing.T, c *http.Client, method, url string, header http.Header) proxytest.Reply {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer.Header.Del("Date")
	return proxytest.Reply{Code: answer.StatusCode, Proto: answer.Proto, Body: string(body), Header: answer.Header}
}

// TestHTTP2AnswersLikeHTTP1: every kind of answer has the same code, headers and body by both protocols.
func TestHTTP2AnswersLikeHTTP1(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	for _, e := range []spool.Entry{
		{Key: spool.Key{Service: "down"}, State: spool.Down, Reason: "new kernel", Created: time.Unix(1, 0)},
		{Key: spool.Key{Service: "drain"}, State: spool.Drain, Reason: "new kernel", Created: time.Unix(1, 0)},
		{Key: spool.Key{Service: "up"}, State: spool.ForceUp},
	} {
		d.Overrides.Set(e)
	}
	client := http2Client(t)
	for _, path := range []string{
		"/http/web/PORT/status", "/http/web/PORT/code/404", "/http/web/PORT/code/204", "/http/web/PORT/code/302", "/http/web/PORT/large",
		"/http/web/PORT//a/../b?x=%26", "/http/web/PORT", "/http/web/65536/", "/http/web/0/", "/nothing", "//http/web/PORT/status",
		"/http/down/PORT/", "/http/drain/PORT/", "/http/up/PORT/", "/spool/web/0/", "/spool/down/0/",
	} {
		path = strings.ReplaceAll(path, "PORT", fmt.Sprint(d.Service.Port))
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
			d.Send(t, method, method+" "+path+" HTTP/1.1\r\nHost: "+d.Addr+"\r\nConnection: close\r\n\r\n") // fills the cache
			want := d.Send(t, method, method+" "+path+" HTTP/1.1\r\nHost: "+d.Addr+"\r\nConnection: close\r\n\r\n")
			got := askHTTP2(t, client, method, "http://"+d.Addr+path, nil)
			if got.Proto != "HTTP/2.0" {
				t.Fatalf("%s %s: %s", method, path, got.Proto)
			}
			want.Proto, want.Close = got.Proto, got.Close
			want.Header.Del("Connection")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: by HTTP/1.1 (-), by HTTP/2 (+):\n%s", method, path, diff)
			}
		}
	}
}

// TestHTTP2StateHeader: the header of send-state means the same in HTTP/2.
func TestHTTP2StateHeader(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	header := http.Header{"X-Haproxy-Server-State": {fmt.Sprintf(
		"UP 2/3; address=127.0.0.1; port=%d; name=be/srv; node=lb1; weight=1/2; scur=13/22; qcur=0", d.Service.Port)}}
	if r := askHTTP2(t, http2Client(t), http.MethodOptions, "http://"+d.Addr+"/http/web/0/status", header); r.Code != 200 || r.Body != "body of /status" {
		t.Errorf("%+v", r)
	}
	b := d.Balancers()
	if len(b) != 1 || b[0].Server != "be/srv" || b[0].Node != "lb1" || b[0].Sessions == nil || *b[0].Sessions != 13 {
		t.Errorf("recorded %+v", b)
	}
	header.Set("X-Haproxy-Server-State", "UP; address=192.0.2.1; port=80")
	if r := askHTTP2(t, http2Client(t), http.MethodGet, "http://"+d.Addr+"/http/web/0/", header); r.Code != 403 || !strings.Contains(r.Body, "check_hosts_allowed") {
		t.Errorf("another host: %+v", r)
	}
}

// TestHTTP2Streams: many requests at once on one connection each get their own answer.
func TestHTTP2Streams(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	client := http2Client(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			path := fmt.Sprintf("/http/web/%d/%d", d.Service.Port, i%40)
			r, err := client.Get("http://" + d.Addr + path)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			if body, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 200 || string(body) != fmt.Sprintf("body of /%d", i%40) {
				t.Errorf("%s: %d %q, %v", path, r.StatusCode, body, err)
			}
		})
	}
	wg.Wait()
}
