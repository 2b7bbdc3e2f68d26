package checktest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// maxDelay is how long the suite waits for what must happen at once, before it calls it missing. It is long because
// test machines stall.
const maxDelay = 5 * time.Second

// Server is a listener of the suite. It records which clients connected and which have not closed their end.
type Server struct {
	Host string // an IP address
	Port uint16

	listener net.Listener
	handlers sync.WaitGroup

	mu      sync.Mutex
	clients []string // the addresses of all accepted connections, in order
	open    map[net.Conn]struct{}
}

// Serve listens on a free port of 127.0.0.1 and calls handle in a goroutine for every connection. After handle has
// returned, the server reads until the client closes and then closes the connection. So a handler that returns at once
// is a silent server. The server stops at the end of the test, which fails if a client has a connection open then.
func Serve(t testing.TB, handle func(conn net.Conn)) *Server {
	t.Helper()
	return ServeAt(t, "127.0.0.1", handle)
}

// ServeAt is Serve on another address of this machine.
func ServeAt(t testing.TB, host string, handle func(conn net.Conn)) *Server {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatalf("listen on %s: %v (the tests need IPv4 and IPv6 loopback addresses)", host, err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	s := &Server{Host: at.Addr().String(), Port: at.Port(), listener: l, open: map[net.Conn]struct{}{}}
	s.handlers.Go(func() { s.accept(handle) })
	t.Cleanup(func() { s.stop(t) })
	return s
}

// Addr returns "<host>:<port>".
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Settled returns how many connections clients have made so far, including those not accepted yet. It makes one more,
// which does not count, and waits until that is accepted, because the kernel hands out connections in order.
func (s *Server) Settled(t testing.TB) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr(), maxDelay)
	if err != nil {
		t.Fatalf("connect to a server of the test: %v", err)
	}
	defer conn.Close()
	own := conn.LocalAddr().String()
	late, again := time.NewTimer(maxDelay), time.NewTicker(time.Millisecond)
	defer late.Stop()
	defer again.Stop()
	for {
		s.mu.Lock()
		n := slices.Index(s.clients, own)
		if n >= 0 {
			s.clients = slices.Delete(s.clients, n, n+1)
		}
		s.mu.Unlock()
		if n >= 0 {
			return n
		}
		select {
		case <-late.C:
			t.Fatalf("the server of the test has accepted nothing for %v", maxDelay)
		case <-again.C:
		}
	}
}

func (s *Server) accept(handle func(net.Conn)) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.clients = append(s.clients, conn.RemoteAddr().String())
		s.open[conn] = struct{}{}
		s.mu.Unlock()
		s.handlers.Go(func() {
			handle(conn)
			// An error other than EOF (a reset, or a handler that closed) also ends the connection.
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
			s.mu.Lock()
			delete(s.open, conn)
			s.mu.Unlock()
		})
	}
}

// stop closes the listener and waits until every client has closed.
func (s *Server) stop(t testing.TB) {
	t.Helper()
	_ = s.listener.Close()
	done := make(chan struct{})
	go func() { s.handlers.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-time.After(maxDelay):
	}
	s.mu.Lock()
	t.Errorf("%d of %d connections were not closed by the check", len(s.open), len(s.clients))
	for conn := range s.open {
		_ = conn.Close()
	}
	s.mu.Unlock()
	<-done
}

// ClosedPort returns a port of 127.0.0.1 that refuses connections until the end of the test. A socket that does not
// listen holds the port, so that no other program gets it.
func ClosedPort(t testing.TB) uint16 {
	t.Helper()
	_, port := Bound(t)
	return port
}

// Bound returns a TCP socket that is bound to a port of 127.0.0.1 until the end of the test, and does not listen.
func Bound(t testing.TB) (fd int, port uint16) {
	t.Helper()
	syscall.ForkLock.RLock() // no process starts before the socket is close-on-exec
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, uint16(name.(*syscall.SockaddrInet4).Port)
}

// BlackHole returns a port of 127.0.0.1 to which connections never complete, until the end of the test. Its accept
// queue is full and no connection is accepted, so the kernel drops connection requests.
func BlackHole(t testing.TB) uint16 {
	t.Helper()
	fd, port := Bound(t)
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for failed := 0; failed < 2; { // the first failure may be a slow machine
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 100*time.Millisecond)
		if err != nil {
			failed++
			continue
		}
		failed = 0
		t.Cleanup(func() { _ = conn.Close() })
	}
	return port
}
