package test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestHAProxyNeverWaitsForASlowCheck: a check takes longer than HAProxy's own timeout. HAProxy fails the first one, for
// which there is no result yet, and none after that, although every result expires after two checks or three. These are
// the times of cache_time 5, inter 2s, timeout check 1s and a check of 1.5 s, at half the scale.
func TestHAProxyNeverWaitsForASlowCheck(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "cache_time: 2.5\n")
	var checks atomic.Int64
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		checks.Add(1)
		select {
		case <-time.After(750 * time.Millisecond):
		case <-r.Context().Done():
		}
		serveOK(w, r)
	})
	h := startHAProxy(t, fmt.Sprintf(`
backend web
    timeout check 500ms
    option httpchk GET /http/web/%[1]d/slow
    server s1 127.0.0.1:%[1]d check port %[2]d inter 1s fastinter 1s downinter 1s
`, web.port, d.port))
	h.waitForChecks(map[string]string{"web": up})
	before := h.statByBackend()["web"]
	eventually(t, func() error {
		now := h.statByBackend()["web"]
		if now["chkfail"] != before["chkfail"] || now["chkdown"] != before["chkdown"] {
			t.Fatalf("after %d checks of the service HAProxy has failed %s checks and was down %s times, before it was %s and %s (%s)",
				checks.Load(), now["chkfail"], now["chkdown"], before["chkfail"], before["chkdown"], now["last_chk"])
		}
		if n := checks.Load(); n < 6 {
			return fmt.Errorf("%d checks of the service, want 6", n)
		}
		return nil
	})
}
