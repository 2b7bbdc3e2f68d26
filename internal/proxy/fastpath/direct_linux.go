package fastpath

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Balancers open a connection for each check, so most of the cost of a check is that of a connection. Package net makes
// eleven system calls for one, five of them to prepare for a long conversation. A directListener accepts by itself. The
// kernel delivers a connection once its request has arrived (TCP_DEFER_ACCEPT). If the fast path has the answer and the
// request ends the connection, the listener reads, writes and closes the bare descriptor. Package net and net/http get
// every other connection, together with the bytes that were read. Without this file a new connection for each check
// reaches 0.66 to 0.74 of nginx's rate, with it 1.0 (`make bench`).

// deferSeconds is how long the kernel waits for a request before it delivers a silent connection.
const deferSeconds = 1

// acceptRetry is the pause after a failed accept, for example without a free descriptor.
const acceptRetry = 20 * time.Millisecond

// handTimeout is how long after Close a connection waits for Accept. http.Server calls Accept again within
// microseconds; without http.Server it may never be called.
const handTimeout = time.Second

type directListener struct {
	endpoint *endpoint
	addr     net.Addr
	file     *os.File // the listening socket
	raw      syscall.RawConn

	accepted chan acceptResult
	closing  chan struct{} // closed by Close
	done     chan struct{} // closed when serve has returned
	close    func() error
}

// acceptResult is a result of Accept.
type acceptResult struct {
	c   net.Conn
	err error
}

// listenDirect returns ln as a direct listener, or false if ln is no TCP listener. The direct listener owns ln's socket.
func listenDirect(ln net.Listener, e *endpoint) (net.Listener, bool) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, false
	}
	f, err := tcp.File()
	if err != nil {
		return nil, false
	}
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_ = unix.SetNonblock(int(fd), true)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferSeconds)
			// Accepted sockets inherit it from the listening one.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		})
	}
	if err != nil {
		_ = f.Close()
		return nil, false
	}
	_ = ln.Close() // f is the same socket; the poller would wake both descriptors
	l := &directListener{
		endpoint: e, addr: ln.Addr(), file: f, raw: raw,
		accepted: make(chan acceptResult), closing: make(chan struct{}), done: make(chan struct{}),
	}
	l.close = sync.OnceValue(func() error {
		close(l.closing)
		return l.file.Close()
	})
	go l.serve()
	return l, true
}

// Addr implements net.Listener.
func (l *directListener) Addr() net.Addr { return l.addr }

// SyscallConn returns the listening socket, for a caller that asks the kernel how many connections wait in it.
func (l *directListener) SyscallConn() (syscall.RawConn, error) { return l.raw, nil }

// Close stops accepting connections. The fast path still answers those that it has accepted, or a caller that goes on
// calling Accept until it fails does, as http.Server does during a shutdown. Another process may share the socket and
// answers all later connections; it knows nothing of the accepted ones.
func (l *directListener) Close() error { return l.close() }

// Accept returns the next connection that needs net/http. After Close it fails once it has returned every accepted
// connection and the fast path has written its last answer.
func (l *directListener) Accept() (net.Conn, error) {
	select {
	case r := <-l.accepted:
		return r.c, r.err
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

// deliver passes r to Accept. After Close it drops r if Accept is not called any more.
func (l *directListener) deliver(r acceptResult) {
	select {
	case l.accepted <- r:
		return
	case <-l.closing:
	}
	if r.c == nil {
		return // an error means nothing now
	}
	timeout := time.NewTimer(handTimeout)
	defer timeout.Stop()
	select {
	case l.accepted <- r:
	case <-timeout.C:
		_ = r.c.Close()
	}
}

// serve accepts connections and answers them until the listener is closed. One goroutine serves any number of
// processors: with two, each connection wakes the second one for nothing, which cost a third of the whole at a thousand
// connections a second; and on two processors one is as fast as two, because the kernel does most of the work.
func (l *directListener) serve() {
	defer close(l.done)
	var (
		head = make([]byte, 4<<10)
		out  = make([]byte, 0, 8<<10)
		fast = newAnswerer(l.endpoint)
		fd   int
		sa   syscall.Sockaddr
		aerr error
	)
	accept := func(s uintptr) bool {
		// Of package syscall: that of x/sys asks the kernel for the protocol of each socket as well.
		fd, sa, aerr = syscall.Accept4(int(s), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		return !errors.Is(aerr, unix.EAGAIN)
	}
	for {
		if err := l.raw.Read(accept); err != nil {
			return // closed
		}
		switch {
		case aerr == nil:
		case errors.Is(aerr, unix.EINTR), errors.Is(aerr, unix.ECONNABORTED):
			continue
		default:
			l.deliver(acceptResult{err: &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: os.NewSyscallError("accept4", aerr)}})
			select {
			case <-time.After(acceptRetry):
			case <-l.closing:
				return
			}
			continue
		}
		n, err := unix.Read(fd, head)
		if n > 0 {
			var ok bool
			if out, _, ok = fast.answer(out[:0], head[:n], clientOf(sa), false); ok {
				// An answer of this size always fits a fresh socket. If it does not, the client has gone.
				_, _ = unix.Write(fd, out)
				_ = unix.Close(fd)
				poison(head[:n])
				poison(out)
				continue
			}
		}
		if n == 0 || n < 0 && !errors.Is(err, unix.EAGAIN) {
			_ = unix.Close(fd) // the client has gone
			continue
		}
		if r, ok := l.netConn(fd, head[:max(n, 0)]); ok {
			l.deliver(r)
		}
	}
}

// netConn makes a connection of package net of fd, whose first bytes were read already. It closes fd and returns false
// if the client has reset the connection meanwhile, or has too many connections.
func (l *directListener) netConn(fd int, read []byte) (acceptResult, bool) {
	f := os.NewFile(uintptr(fd), "")
	defer func() { _ = f.Close() }() // the connection has a descriptor of its own
	c, err := net.FileConn(f)
	if err != nil {
		return acceptResult{err: &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}}, true
	}
	if c.RemoteAddr() == nil { // after a reset the kernel does not know the client's address
		_ = c.Close()
		return acceptResult{}, false
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return acceptResult{c: c}, true
	}
	out := newConn(tcp, l.endpoint, read)
	if !out.acquireSlot() {
		_ = tcp.Close()
		return acceptResult{}, false
	}
	return acceptResult{c: out}, true
}

// clientOf returns the address of a client as text.
func clientOf(sa syscall.Sockaddr) string {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr).String()
	case *syscall.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr).Unmap().String()
	}
	return ""
}
