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

// stuck are overrides that a lookup of never returns from, until they are let go.
type stuck struct{ release chan struct{} }

func (s stuck) Lookup(string, string, uint16, bool) spool.View {
	<-s.release
	return spool.View{}
}

// TestLook: what hangs is found, wherever it does, and what does not is not.
func TestLook(t *testing.T) {
	t.Parallel()
	overrides := stuck{make(chan struct{})}
	var hang atomic.Pointer[chan struct{}]
	d := &daemon{server: newServer(&http.Server{ReadHeaderTimeout: soon, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if c := hang.Load(); c != nil {
			<-*c
		}
	})})}
	d.services.judge.Store(health.New(health.Options{Overrides: overrides, Checks: check.All(check.Options{}), CacheMaxEntries: 1, CacheMaxBytes: 1, Timeout: soon, MaxClients: 1}))
	const limit = 50 * time.Millisecond
	wants := func(where, want string) {
		t.Helper()
		switch err := d.look(limit); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", where, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", where, err, want)
		}
	}
	wants("a judge that hangs", "ask the judge and for a page: no answer after 50ms")
	close(overrides.release)
	wants("a judge that answers", "")

	release := make(chan struct{})
	hang.Store(&release)
	wants("a handler that hangs", "no answer after")
	close(release)

	ln := listenTCP(t)
	d.accepting = []net.Listener{ln}
	wants("a port that nobody asks", "")
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wants("a port where nobody accepts", "ask "+ln.Addr().String()+": no answer after 50ms")
	go func() { _ = d.server.Serve(ln) }() // until the listener is closed
	until(t, "the port is answered at", func() bool { return d.look(soon) == nil })
}
