package daemon

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// renewedService is a service whose first answer comes at once. Later requests send to asked and end when their client
// hangs up, which sends to cancelled.
func renewedService(t *testing.T) (path string, asked, cancelled <-chan struct{}) {
	t.Helper()
	var n atomic.Int64
	in, out := make(chan struct{}, 100), make(chan struct{}, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			return
		}
		in <- struct{}{}
		<-r.Context().Done()
		out <- struct{}{}
	}))
	t.Cleanup(s.Close)
	return "/http/web/" + port(t, s.Listener.Addr().String()) + "/", in, out
}

// startRenewal starts a daemon that is renewing a cached result, and returns it.
func startRenewal(t *testing.T, path string, asked <-chan struct{}) *process {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "cache_time: 3\nhealthcheck_timeout: 30\n")
	p := startDaemon(t, "-c", conf)
	p.mustGet(path, 200)
	waitUntil(t, "a renewal begins", func() bool {
		p.mustGet(path, 200)
		select {
		case <-asked:
			return true
		default:
			return false
		}
	})
	return p
}

// TestStopCancelsRenewals: no client waits for a renewal, so the end does not wait for it either.
func TestStopCancelsRenewals(t *testing.T) {
	t.Parallel()
	path, asked, cancelled := renewedService(t)
	p := startRenewal(t, path, asked)
	began := time.Now()
	p.signal(syscall.SIGTERM)
	<-cancelled
	p.wantExit(0)
	if took := time.Since(began); took > 10*time.Second { // healthcheck_timeout is 30
		t.Errorf("the end took %v", took)
	}
}

// TestReloadCancelsRenewals: a renewal of a cache that no request reads any more is cancelled.
func TestReloadCancelsRenewals(t *testing.T) {
	t.Parallel()
	path, asked, cancelled := renewedService(t)
	p := startRenewal(t, path, asked)
	p.signal(syscall.SIGHUP)
	p.waitForLog(regexp.MustCompile(`reloaded the configuration`))
	select {
	case <-cancelled:
	case <-time.After(20 * time.Second):
		t.Error("the renewal still runs")
	}
	if a := p.mustGet("/metrics", 200); !regexp.MustCompile(`(?m)^hacheck_cache_renewals_total\{result="done"\} 0$`).MatchString(a) {
		t.Errorf("the metrics count a cancelled renewal:\n%s", a)
	}
}
