package proxy

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"hacheck/internal/clients"
)

// Listener wraps ln so that net/http accepts what balancers send: HAProxy's "option httpchk GET /x
// HTTP/1.1" carries no Host line, which net/http refuses before any handler runs. The connections it
// returns insert an empty "Host:" line into every head that has none, as the bytes stream by, and drop
// empty lines before a request line, which RFC 9112 section 2.2 asks a server to ignore.
//
// Answers that are in memory take the shortcut past net/http, and two things that net/http does for each
// request and a health check has no use for are spared; see conn. ln belongs to the listener returned.
func (s *Server) Listener(ln net.Listener) net.Listener {
	if d, ok := s.direct(ln); ok {
		return d
	}
	return listener{ln, s}
}

// HostLines wraps ln for another door's server: the connections insert the Host line that HAProxy leaves out, as
// those of Listener do.
func HostLines(ln net.Listener) net.Listener { return listener{ln, nil} }

// shortcutFunc is Server.shortcut.
type shortcutFunc func(out, head []byte, peer string, closing bool) (answer []byte, last, answered bool)

type listener struct {
	net.Listener
	s *Server // nil for neither shortcut nor bound
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		tcp, ok := c.(*net.TCPConn)
		switch {
		case !ok:
			return c, err
		case l.s == nil:
			return newConn(tcp, nil), err
		}
		if out := newConn(tcp, l.s.shortcut); out.limit(l.s.conns) {
			return out, err
		}
		_ = tcp.Close()
	}
}

// conn is one connection of a balancer, for use under net/http, which reads from one goroutine at a time.
//
// While a handler runs, net/http reads one byte in another goroutine to learn of a client that hangs up,
// and cancels the request when it does. Here a check lives on for the next asker, and a client that has
// only closed its sending side still wants its answer: so between heads a read of one byte waits for its
// deadline and asks the kernel nothing. That costs a check a system call and two trips through the poller
// less. Should a later net/http read otherwise, all reads go to the socket as usual.
//
// Deadlines reach the socket only with the next read or write, and only when they differ from the last by
// more than deadlineSlack: net/http sets seven a request.
type conn struct {
	*net.TCPConn
	peer     string // its address
	shortcut shortcutFunc
	slot     *clients.Slot // nil on a listener that counts connections by itself
	served   bool          // net/http has read a request, and so knows that the connection is kept

	heads   headRewriter
	pending []byte // rewritten bytes for which the last Read had no room

	mu      sync.Mutex
	wake    sync.Cond // of the read of one byte that waits; its L is set when it is first needed
	waiting bool
	reading bool // a read of the socket is under way
	short   bool // an answer by the shortcut is under way
	closed  bool
	until   time.Time // the deadline asked for
	set     time.Time // the deadline the socket has

	writeUntil, writeSet time.Time // the same for writing, which is up to one goroutine
}

// limit counts c in l until it is closed, and reports whether it may stay open.
func (c *conn) limit(l *clients.ConnLimiter) bool {
	slot := l.Acquire(clients.AddrOf(c.TCPConn), func() { _ = c.Close() })
	c.mu.Lock() // l may close c already
	defer c.mu.Unlock()
	c.slot = slot
	return slot != nil
}

// SetWaiting says whether the connection waits for a request; see clients.Slot.
func (c *conn) SetWaiting(waiting bool) { c.slot.SetWaiting(waiting) }

func newConn(tcp *net.TCPConn, shortcut shortcutFunc) *conn {
	return &conn{TCPConn: tcp, shortcut: shortcut, peer: hostOf(tcp.RemoteAddr().String())}
}

// deadlineSlack is how much later than asked a deadline may come.
const deadlineSlack = 2 * time.Second

// longAgo tells the deadline by which net/http aborts a read from one that is meant.
var longAgo = time.Unix(1e6, 0)

func aborts(t time.Time) bool { return !t.IsZero() && t.Before(longAgo) }

func (c *conn) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if len(c.pending) > 0 {
			n := copy(p, c.pending)
			c.pending = c.pending[n:]
			return n, nil
		}
		if len(p) == 1 && c.heads.state == betweenHeads {
			return 0, c.waitForDeadline()
		}
		// Room for one insertion keeps the rewriting in place.
		into := p
		if len(p) > 8*len(insertions) {
			into = p[:len(p)-len(insertions)]
		}
		n, err := c.readSocket(into)
		if n == 0 {
			return 0, err
		}
		// An error that came with bytes comes again with the next Read.
		if c.heads.state == betweenHeads && c.shortcut != nil {
			if answered, last := c.answer(into[:n]); last {
				return 0, io.EOF
			} else if answered {
				continue
			}
		}
		c.served = true
		out := c.heads.rewrite(into[:n:len(p)])
		n = copy(p, out)
		c.pending = out[n:]
		if n > 0 {
			return n, nil
		}
	}
	return 0, nil
}

func (c *conn) readSocket(p []byte) (int, error) {
	c.mu.Lock()
	if !covers(c.set, c.until) {
		c.apply()
	}
	c.reading = true
	c.mu.Unlock()
	n, err := c.TCPConn.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	return n, err
}

// answer tries the shortcut. The first request of a connection takes it only when it is the last one as
// well: net/http must know which connections are kept, to end them at a shutdown.
func (c *conn) answer(head []byte) (answered, last bool) {
	if !c.served && !endsConnection(head) {
		return false, false
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false, true
	}
	c.short = true // Close leaves the socket open meanwhile
	c.mu.Unlock()

	b := shortAnswers.Get().(*[]byte)
	var now time.Time
	if *b, last, answered = c.shortcut((*b)[:0], head, c.peer, !c.served); answered {
		now = time.Now()
		_ = c.SetWriteDeadline(now.Add(shortWriteTimeout))
		if _, err := c.Write(*b); err != nil {
			last = true
		}
		poison(head)
		poison(*b)
	}
	if cap(*b) <= maxKeptAnswer {
		shortAnswers.Put(b)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.short = false
	if c.closed {
		_ = c.TCPConn.Close()
		return answered, true
	}
	if answered {
		c.slot.Use()
		c.until = now.Add(idleTimeout)
	}
	return answered, last
}

// maxKeptAnswer is how long a buffer may have become that is kept for the next answer.
const maxKeptAnswer = 8 << 10

// shortAnswers are buffers for answers by the shortcut.
var shortAnswers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// waitForDeadline is the read of one byte between heads.
func (c *conn) waitForDeadline() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake.L = &c.mu
	c.waiting = true
	for !c.closed && !aborts(c.until) {
		c.wake.Wait()
	}
	c.waiting = false
	if c.closed {
		return net.ErrClosed
	}
	return os.ErrDeadlineExceeded
}

// slack returns the deadline to set so that the next few asked for are covered.
func slack(t time.Time) time.Time {
	if t.IsZero() || aborts(t) {
		return t
	}
	return t.Add(deadlineSlack)
}

// endsConnection reports whether a plain head asks for no second answer. The shortcut reads it properly;
// this is a first look.
func endsConnection(head []byte) bool {
	return bytes.Contains(head, []byte(" HTTP/1.0\r\n")) || bytes.Contains(head, []byte("close\r\n"))
}

// covers reports whether the deadline set serves as well as the one asked for.
func covers(set, asked time.Time) bool {
	if asked.IsZero() || set.IsZero() {
		return asked.IsZero() && set.IsZero()
	}
	late := set.Sub(asked)
	return late >= 0 && late <= deadlineSlack
}

// apply hands the deadline asked for to the socket. c.mu is held.
func (c *conn) apply() {
	c.set = slack(c.until)
	_ = c.TCPConn.SetReadDeadline(c.set) // fails on a closed socket, as the read will
}

// SetReadDeadline is in force from the next read on, and at once for one that is under way.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	if c.reading {
		c.apply()
	}
	if c.waiting {
		c.wake.Signal()
	}
	return nil
}

// SetWriteDeadline is in force from the next write on.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeUntil = t
	return nil
}

func (c *conn) Write(p []byte) (int, error) {
	if !covers(c.writeSet, c.writeUntil) {
		c.writeSet = slack(c.writeUntil)
		_ = c.TCPConn.SetWriteDeadline(c.writeSet) // fails on a closed socket, as the write will
	}
	return c.TCPConn.Write(p)
}

// SetDeadline sets both.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

// ReadFrom keeps the deadline for writing in force where io.Copy would go around Write.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(writerOnly{c}, r) }

type writerOnly struct{ io.Writer }

// Close ends a read that waits, too.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.waiting {
		c.wake.Signal()
	}
	short, slot := c.short, c.slot
	c.mu.Unlock()
	slot.Release()
	if short {
		return nil // whoever writes the answer closes the socket behind it
	}
	return c.TCPConn.Close()
}
