package proxy

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

// Balancers open a connection for each check, so that most of a check's price is that of a connection:
// for one by package net the kernel is asked eleven times, five of them only to prepare for a long
// conversation. A direct listener accepts by itself. The kernel hands a connection over once its request
// is there (TCP_DEFER_ACCEPT); where the shortcut has the answer, and the request asks for no second one,
// it is read, written and closed on the bare descriptor. Every other connection goes on to package net
// and net/http together with what was read of it.

// deferSeconds is how long the kernel waits for a request before it hands over a silent connection all the
// same.
const deferSeconds = 1

// acceptAgain is how long accepting rests after it failed, for want of descriptors say.
const acceptAgain = 20 * time.Millisecond

type directListener struct {
	s    *Server
	addr net.Addr
	file *os.File // the listening socket
	raw  syscall.RawConn

	handed chan handed
	done   chan struct{} // closed by Close
	gone   chan struct{} // closed when work has ended after it
	close  func() error
}

// handed is what work leaves to Accept.
type handed struct {
	c   net.Conn
	err error
}

// direct returns ln as a direct listener, or false when it is none of TCP. It takes ln over.
func (s *Server) direct(ln net.Listener) (net.Listener, bool) {
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
			// Accepted sockets have it from the listening one.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		})
	}
	if err != nil {
		_ = f.Close()
		return nil, false
	}
	_ = ln.Close() // f is the same socket; two descriptors would have the poller woken twice
	l := &directListener{s: s, addr: ln.Addr(), file: f, raw: raw, handed: make(chan handed), done: make(chan struct{}), gone: make(chan struct{})}
	l.close = sync.OnceValue(func() error {
		close(l.done)
		return l.file.Close()
	})
	go l.work()
	return l, true
}

func (l *directListener) Addr() net.Addr { return l.addr }

// SyscallConn gives access to the listening socket, to ask how many connections wait in it.
func (l *directListener) SyscallConn() (syscall.RawConn, error) { return l.raw, nil }

// Close has no further connection accepted. Those that were accepted before are still answered: by the
// shortcut, or by whoever goes on calling Accept until it fails, as http.Server does even while it shuts
// down. The socket may be shared with a successor, who answers all later ones; nobody else knows of these.
func (l *directListener) Close() error { return l.close() }

// Accept returns the next connection that needs net/http. It fails once the listener is closed, the last
// connection accepted before was returned, and the last answer by the shortcut is written.
func (l *directListener) Accept() (net.Conn, error) {
	select {
	case h := <-l.handed:
		return h.c, h.err
	case <-l.gone:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

// handPatience is how long after Close a connection waits for Accept. http.Server comes back to it in
// microseconds; without it, nobody may ever.
const handPatience = time.Second

// hand gives h to Accept, or drops it when nobody accepts any more.
func (l *directListener) hand(h handed) {
	select {
	case l.handed <- h:
		return
	case <-l.done:
	}
	if h.c == nil {
		return // an error means nothing now
	}
	patience := time.NewTimer(handPatience)
	defer patience.Stop()
	select {
	case l.handed <- h:
	case <-patience.C:
		_ = h.c.Close()
	}
}

// work accepts connections and answers them until the listener is closed. It is one goroutine on any number of
// processors: with two, each connection wakes the other as well, for nothing, which at a thousand a second was
// a third of the whole price; and one is as fast as two where there are two processors, for the kernel does most
// of the work.
func (l *directListener) work() {
	defer close(l.gone)
	var (
		head = make([]byte, 4<<10)
		out  = make([]byte, 0, 8<<10)
		fd   int
		sa   syscall.Sockaddr
		aerr error
		last peerText
	)
	accept := func(s uintptr) bool {
		// Of package syscall: that of x/sys asks the kernel for the protocol of each socket besides.
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
			l.hand(handed{err: &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: os.NewSyscallError("accept4", aerr)}})
			select {
			case <-time.After(acceptAgain):
			case <-l.done:
				return
			}
			continue
		}
		n, err := unix.Read(fd, head)
		if n > 0 && endsConnection(head[:n]) {
			var answered, closes bool
			if out, closes, answered = l.s.shortcut(out[:0], head[:n], last.of(sa), true); answered && closes {
				// An answer of this size always fits a fresh socket. Where it does not, the client has gone.
				_, _ = unix.Write(fd, out)
				_ = unix.Close(fd)
				poison(head[:n])
				poison(out)
				continue
			}
		}
		if n == 0 || n < 0 && !errors.Is(err, unix.EAGAIN) {
			_ = unix.Close(fd) // gone already
			continue
		}
		if h, ok := l.toNet(fd, head[:max(n, 0)]); ok {
			l.hand(h)
		}
	}
}

// toNet makes a connection of package net of fd, whose first bytes were read already. It closes fd and returns
// false when the client has reset the connection meanwhile, or when whoever holds it has enough of them.
func (l *directListener) toNet(fd int, read []byte) (handed, bool) {
	f := os.NewFile(uintptr(fd), "")
	defer func() { _ = f.Close() }() // the connection has a descriptor of its own
	c, err := net.FileConn(f)
	if err != nil {
		return handed{err: &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}}, true
	}
	if c.RemoteAddr() == nil { // the kernel has forgotten who it was
		_ = c.Close()
		return handed{}, false
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return handed{c: c}, true
	}
	out := newConn(tcp, l.s.shortcut)
	if !out.limit(l.s.conns) {
		_ = tcp.Close()
		return handed{}, false
	}
	if len(read) > 0 {
		out.served = true // the shortcut has had its try
		out.pending = append([]byte(nil), out.heads.rewrite(append([]byte(nil), read...))...)
	}
	return handed{c: out}, true
}

// peerText remembers the last caller's address as text: it is the same balancer again most often.
type peerText struct {
	addr netip.Addr
	text string
}

func (p *peerText) of(sa syscall.Sockaddr) string {
	var a netip.Addr
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		a = netip.AddrFrom4(sa.Addr)
	case *syscall.SockaddrInet6:
		a = netip.AddrFrom16(sa.Addr).Unmap()
	}
	if a != p.addr || p.text == "" {
		p.addr, p.text = a, a.String()
	}
	return p.text
}
