package fastpath_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"hacheck/internal/health"
	"hacheck/test/proxytest"
)

// TestRenewal: a cached result that expires soon is renewed by the fast path, on a new connection for each request and
// on a kept one, as by net/http. All answers but the first are hits, and none is older than cache_time.
func TestRenewal(t *testing.T) {
	for _, c := range []struct {
		name  string
		level slog.Level
		keep  bool
	}{
		{"a new connection each", slog.LevelInfo, false},
		{"a kept connection", slog.LevelInfo, true},
		{"net/http", slog.LevelDebug, false}, // no fast path
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := proxytest.Start(t, c.level)
			evaluator := health.New(health.Options{
				Overrides: d.Overrides, Checks: d.Settings.Checks, CacheTime: time.Second, CacheTimeDown: time.Second,
				CacheMaxEntries: 10, CacheMaxBytes: 1 << 20, Timeout: 5 * time.Second, MaxClients: 5,
				CheckHostsAllowed: []netip.Prefix{}, Log: d.Log,
			})
			d.Settings.Evaluator = evaluator
			d.SetSettings(d.Settings)
			head := fmt.Sprintf("GET /http/web/%d/x HTTP/1.1\r\nConnection: close\r\n\r\n", d.Service.Port)
			send := func() proxytest.Reply { return d.Send(t, "GET", head) }
			if c.keep {
				head = fmt.Sprintf("GET /http/web/%d/x HTTP/1.1\r\n\r\n", d.Service.Port)
				conn, br := d.DialKeepAlive(t)
				send = func() proxytest.Reply {
					if _, err := io.WriteString(conn, head); err != nil {
						t.Fatal(err)
					}
					return proxytest.ReadReply(t, br, "GET")
				}
			}
			send() // the miss
			byHTTP := d.ByHTTP.Load()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			deadline := time.After(10 * time.Second)
			for d.Service.Requests.Load() < 4 {
				if r := send(); r.Code != 200 || r.Header.Get("X-Hacheck-Cache") != "hit" || r.Header.Get("Age") != "0" {
					t.Fatalf("%+v, want a hit", r)
				}
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatalf("%d checks in 10 s, want one a second", d.Service.Requests.Load())
				}
			}
			if n := d.ByHTTP.Load() - byHTTP; n != 0 && c.level == slog.LevelInfo {
				t.Errorf("%d requests went through net/http", n)
			}
		})
	}
}
