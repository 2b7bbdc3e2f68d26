package checktest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hacheck/internal/check"
)

// Relay forwards connections to a real server, byte by byte, and counts them. It can freeze, like a network that drops
// packets without a word.
type Relay struct {
	Host string // an IP address
	Port uint16

	to       string
	listener net.Listener
	handlers sync.WaitGroup

	mu     sync.Mutex
	thawed *sync.Cond // on mu
	frozen bool
	ended  bool
	count  int
	open   map[net.Conn]struct{}
}

// NewRelay listens on a free port of 127.0.0.1 and forwards to the address "host:port" until the end of the test.
func NewRelay(t testing.TB, to string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	r := &Relay{Host: at.Addr().String(), Port: at.Port(), to: to, listener: l, open: map[net.Conn]struct{}{}}
	r.thawed = sync.NewCond(&r.mu)
	r.handlers.Go(r.accept)
	t.Cleanup(r.stop)
	return r
}

// Freeze stops the forwarding of bytes in both directions. Connections stay open.
func (r *Relay) Freeze() { r.setFrozen(true) }

// Thaw forwards again.
func (r *Relay) Thaw() { r.setFrozen(false) }

// Count returns how many connections clients have made.
func (r *Relay) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

func (r *Relay) setFrozen(frozen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = frozen
	r.thawed.Broadcast()
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.count++
		r.mu.Unlock()
		r.handlers.Go(func() { r.forward(client.(*net.TCPConn)) })
	}
}

// forward passes bytes on until both ends have closed. A reset of one end resets the other.
func (r *Relay) forward(client *net.TCPConn) {
	defer client.Close()
	opened, err := net.Dial("tcp", r.to)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := opened.(*net.TCPConn)
	defer server.Close()
	r.mu.Lock()
	r.open[client], r.open[server] = struct{}{}, struct{}{}
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.pass(server, client) })
	both.Go(func() { r.pass(client, server) })
	both.Wait()
	r.mu.Lock()
	delete(r.open, client)
	delete(r.open, server)
	r.mu.Unlock()
}

func (r *Relay) pass(to, from *net.TCPConn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		for r.frozen && !r.ended {
			r.thawed.Wait()
		}
		r.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.CloseRead()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		default:
			_ = to.SetLinger(0)
			_ = to.Close()
			return
		}
	}
}

func (r *Relay) stop() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.ended = true
	for c := range r.open {
		_ = c.Close()
	}
	r.thawed.Broadcast()
	r.mu.Unlock()
	r.handlers.Wait()
}

// RunQuiet runs n checks of a healthy real server and fails the test unless each of them is healthy and makes one
// connection, and all of them leave no line in the server's log. addr is the server's address, log returns what the
// server has logged so far. check asks the host and port that it gets, which are those of a Relay.
//
// RunQuiet returns after the server has closed all connections. Servers log the end of a connection before they close it.
// The caller runs it before other clients of the server, whose lines may come late.
func RunQuiet(t *testing.T, addr string, log func() string, n int, check func(host string, port uint16) check.Result) {
	t.Helper()
	r := NewRelay(t, addr)
	before := log()
	for i := range n {
		if result := check(r.Host, r.Port); result.Code != 200 {
			t.Fatalf("check %d of %d: %s", i+1, n, show(result))
		}
	}
	r.wait(t)
	if got := r.Count(); got != n {
		t.Errorf("%d checks made %d connections", n, got)
	}
	if lines := log()[len(before):]; lines != "" {
		t.Errorf("%d checks left lines in the server's log:\n%s", n, lines[:min(len(lines), 2000)])
	}
}

// wait waits until no connection is open.
func (r *Relay) wait(t *testing.T) {
	t.Helper()
	_ = r.listener.Close()
	done := make(chan struct{})
	go func() { r.handlers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(maxDelay):
		t.Errorf("connections are open %v after the last check", maxDelay)
	}
}
