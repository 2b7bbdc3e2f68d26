package daemon

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// blockedOverrides block each lookup until release is closed.
type blockedOverrides struct{ release chan struct{} }

func (s blockedOverrides) Lookup(string, string, uint16, bool) spool.View {
	<-s.release
	return spool.View{}
}

// TestCheckSelf: it finds an evaluator, a handler and a port that hang, and returns nil for those that answer.
func TestCheckSelf(t *testing.T) {
	t.Parallel()
	overrides := blockedOverrides{make(chan struct{})}
	var hang atomic.Pointer[chan struct{}]
	d := &daemon{}
	d.http.server = newServer(&http.Server{ReadHeaderTimeout: testTimeout, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if c := hang.Load(); c != nil {
			<-*c
		}
	})})
	d.evaluators.replace(health.New(health.Options{Overrides: overrides, Checks: check.All(check.Options{}), CacheMaxEntries: 1, CacheMaxBytes: 1, Timeout: testTimeout, MaxClients: 1}))
	const limit = 50 * time.Millisecond
	wants := func(where, want string) {
		t.Helper()
		switch err := d.checkSelf(limit); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", where, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", where, err, want)
		}
	}
	wants("an evaluator that hangs", "ask the evaluator and for a page: no answer after 50ms")
	close(overrides.release)
	wants("an evaluator that answers", "")

	release := make(chan struct{})
	hang.Store(&release)
	wants("a handler that hangs", "no answer after")
	close(release)

	ln := listenTCP(t)
	d.http.listeners = []net.Listener{ln}
	wants("a port that nobody asks", "")
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wants("a port where nobody accepts", "ask "+ln.Addr().String()+": no answer after 50ms")
	go func() { _ = d.http.Serve(ln) }() // until the listener is closed
	waitUntil(t, "the port is answered at", func() bool { return d.checkSelf(testTimeout) == nil })
}
