package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// TestLaterRequestDoesNotChangeRunningCheck: the client of a check that takes too long is answered, and its connection
// brings the next request into the same buffer. The check that still runs must not see that.
func TestLaterRequestDoesNotChangeRunningCheck(t *testing.T) {
	t.Parallel()
	release, seen := make(chan struct{}), make(chan check.Target, 1)
	checks := check.Set{
		"slow": {Name: "slow", URI: true, MayExceedTimeout: true, Check: func(_ context.Context, target check.Target) check.Result {
			<-release // whatever the deadline, as a script that waits for its turn
			seen <- target
			return check.Result{Code: 200}
		}},
		"spool": {Name: "spool"},
	}
	log := slog.New(slog.DiscardHandler)
	over := &overrides{said: map[string]spool.Entry{}}
	s := New(Options{Log: log, Balancers: balancer.New(), Overrides: over}, Settings{
		Evaluator: health.New(health.Options{
			Overrides: over, Checks: checks, CacheTime: time.Hour, CacheTimeDown: time.Hour, CacheMaxEntries: 10, CacheMaxBytes: 1 << 20,
			Timeout: 50 * time.Millisecond, MaxClients: 10, Log: log,
		}),
		Checks: checks, CheckHost: "127.0.0.1", HeadersToCopy: []string{"X-Copy"},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := s.HTTPServer(5 * time.Second)
	go func() { _ = srv.Serve(s.Listener(ln)) }()
	t.Cleanup(func() { _ = srv.Close() })

	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	ask := func(path, copied string, code int) {
		t.Helper()
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Copy: %s\r\n\r\n", path, copied); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != code {
			t.Fatalf("%s: %d %s %v, want %d", path, resp.StatusCode, body, err, code)
		}
	}
	ask("/spool/web/0/", "first", 200) // through net/http, as the first request of a connection is
	ask("/slow/web/8080/status", "mine", 503)
	ask("/spool/zzz/0/`id`$(x)zzzzzz", "theirs", 200)
	close(release)
	got := <-seen
	if got.Service != "web" || got.URI != "/status" || got.Protocol != "slow" || len(got.Header) != 1 || got.Header[0].Value != "mine" {
		t.Errorf("the check sees %+v", got)
	}
}
