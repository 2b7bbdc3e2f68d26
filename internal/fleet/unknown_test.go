package fleet

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacheck/test/servertest"
)

// lossyProxy is a TCP proxy before etcd. It cuts the connection at the request that has a text, once.
type lossyProxy struct {
	t        *testing.T
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	text  string        // "": forward everything
	late  time.Duration // 0: the request is forwarded and its answer dropped; else it is forwarded after late
	conns map[net.Conn]bool
	hits  int
}

func newLossyProxy(t *testing.T, etcd *servertest.EtcdServer) *lossyProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossyProxy{t: t, listener: listener, target: strings.TrimPrefix(etcd.URL, "http://"), conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", p.target)
			if err != nil {
				client.Close()
				continue
			}
			p.serve(client, server)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// url is the endpoint of the proxy.
func (p *lossyProxy) url(o *Options) { o.Endpoints = []string{"http://" + p.listener.Addr().String()} }

// cut arms the proxy.
func (p *lossyProxy) cut(text string, late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.late, p.hits = text, late, 0
}

// hasCut reports whether the request came.
func (p *lossyProxy) hasCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits > 0
}

// match reports whether a request has to be cut.
func (p *lossyProxy) match(request []byte) (late time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text == "" || !bytes.Contains(request, []byte(p.text)) {
		return 0, false
	}
	p.text = ""
	p.hits++
	return p.late, true
}

// serve forwards between the two connections until one of them ends.
func (p *lossyProxy) serve(client, server net.Conn) {
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	dropping := make(chan struct{}) // closed when answers are dropped
	p.wg.Go(func() {
		defer server.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if err != nil {
				return
			}
			late, isCut := p.match(buf[:n])
			if isCut {
				close(dropping)
			}
			if late > 0 {
				client.Close()
				<-time.After(late)
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
			if isCut { // the goroutine below drops the answer and closes the connection
				<-time.After(time.Second)
				client.Close()
				return
			}
		}
	})
	p.wg.Go(func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			select {
			case <-dropping:
				continue
			default:
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// TestUnknownOutcome: the connection is cut after the permit was granted, or etcd gets the grant 5 s late. The command is
// told that the outcome is unknown, nothing is written, and the permit goes back.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]time.Duration{"answer dropped": 0, "request late": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := servertest.Etcd(t)
			f := newSimFarm(t, etcd)
			proxy := newLossyProxy(t, etcd)
			a, b := f.host("a", proxy.url), f.host("b")
			f.waitMembers()
			proxy.cut("has its permit", late)
			began := time.Now()
			err := a.TakeDown(t.Context(), webTakedown("op", 0), nil)
			var unavailable *UnavailableError
			if !errors.As(err, &unavailable) || !unavailable.Unknown || !proxy.hasCut() {
				t.Fatalf("%v (%v)", err, proxy.hasCut())
			}
			if a.isOut() {
				t.Error("the override is written")
			}
			waitFor(t, "the late request has arrived", func() bool { return time.Since(began) > late+time.Second })
			b.waitClean()
			if b.isOut() || a.isOut() {
				t.Error("an override is written")
			}
			waitFor(t, "b goes", func() bool { return b.TakeDown(t.Context(), webTakedown("op", 0), nil) == nil })
		})
	}
}

// TestUnknownOutcomeOfOtherTransactions: the permit of a host that is out stays until it is back, whatever answer was
// dropped.
func TestUnknownOutcomeOfOtherTransactions(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"used": `"why":"used a"`, "returned": `"why":"back"`, "state": `"state":"down"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := servertest.Etcd(t)
			f := newSimFarm(t, etcd)
			proxy := newLossyProxy(t, etcd)
			a, b := f.host("a", proxy.url), f.host("b")
			f.waitMembers()
			proxy.cut(text, 0)
			if err := a.TakeDown(t.Context(), webTakedown("op", 0), nil); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the permit is used", func() bool {
				r := b.read()
				return r.permits["a"].Phase == phaseUsed && r.states["web"]["a"].State == "down" && len(r.queue) == 0
			})
			var refused *RefusedError
			if err := b.TakeDown(t.Context(), webTakedown("op", 0), nil); !errors.As(err, &refused) {
				t.Errorf("b: %v", err)
			}
			a.lift()
			b.waitClean()
			waitFor(t, "a is up", func() bool { return b.read().states["web"]["a"].State == stateUp })
			if !proxy.hasCut() {
				t.Error("no request was cut")
			}
		})
	}
}

// TestClosedConnection: the text of an error is etcd's, not the library's.
func TestClosedConnection(t *testing.T) {
	err := &UnavailableError{Err: &failedCall{status.Error(codes.Canceled, "grpc: the client connection is closing")}, Unknown: true}
	if want := "it is not known whether etcd has applied the change: the connection to etcd was closed"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}
