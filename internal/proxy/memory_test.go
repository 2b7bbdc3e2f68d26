package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/proxytest"
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
	d := proxytest.StartWith(t, slog.LevelInfo, checks, 50*time.Millisecond)
	c, r := d.Dial(t)
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
	if got.Service != "web" || got.URI != "/status" || got.Protocol != "slow" || len(got.Header) != 2 || got.Header[1].Value != "mine" {
		t.Errorf("the check sees %+v", got)
	}
}
