package fastpath

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"hacheck/internal/clients"
)

// conn is one connection of a client, for use under net/http, which reads from one goroutine at a time.
//
// While a handler runs, net/http reads one byte in another goroutine to learn that the client has closed, and cancels
// the request then. Here a check goes on for the next client, and a client that has closed only its sending side still
// wants its answer. Between requests a one-byte read therefore only waits for its deadline. This saves each check a
// system call and two trips through the poller. If a later net/http reads in another way, all reads go to the socket.
//
// A deadline reaches the socket with the next read or write, and only if it differs from the last one by more than
// deadlineSlack: net/http sets seven deadlines for each request.
type conn struct {
	*net.TCPConn
	stream         net.Conn // what requests come by: TCPConn, or the one of opening
	opening        *opening // nil if requests begin at once
	endpoint       *endpoint
	client         string    // its address
	fast           *answerer // nil while no head is remembered
	slot           *clients.ConnSlot
	hasHTTPRequest bool  // net/http has read a request, so it knows that the connection is kept alive
	isPROXY        bool  // it begins with a PROXY line that is not accepted
	refusal        error // of every read, after the client has got it as its answer

	heads   headRewriter
	pending []byte // rewritten bytes that did not fit the last Read

	mu        sync.Mutex
	wake      sync.Cond // of the one-byte read that waits; its L is set at the first wait
	waiting   bool
	reading   bool // a read of the socket is running
	answering bool // the fast path is answering
	closed    bool
	// readDeadline is the one that the caller has set, socketReadDeadline the one that the socket has. The write
	// deadlines belong to the one goroutine that writes.
	readDeadline, socketReadDeadline   time.Time
	writeDeadline, socketWriteDeadline time.Time
}

// newConn returns the connection of a client. read are the bytes of it that the fast path has tried already.
func newConn(tcp *net.TCPConn, e *endpoint, read []byte) *conn {
	c := &conn{TCPConn: tcp, stream: tcp, endpoint: e, client: clients.HostPart(tcp.RemoteAddr().String())}
	if c.opening = newOpening(tcp, e, read); c.opening != nil {
		if c.stream = c.opening.raw; c.opening.tls != nil {
			c.stream = c.opening.tls
		}
		return c
	}
	if len(read) > 0 {
		c.hasHTTPRequest = true // the fast path has tried these bytes
		c.isPROXY = looksLikePROXY(read)
		c.pending = append([]byte(nil), c.heads.rewrite(append([]byte(nil), read...))...)
	}
	return c
}

// RemoteAddr returns the client's address: the one of a PROXY line if a trusted peer sends one, for which it waits.
func (c *conn) RemoteAddr() net.Addr {
	if c.opening != nil && c.opening.trusted {
		if _ = c.open(); c.opening.remote != nil {
			return c.opening.remote
		}
	}
	return c.TCPConn.RemoteAddr()
}

// acquireSlot counts c in the endpoint's limiter until c is closed, and reports whether c may stay open.
func (c *conn) acquireSlot() bool {
	slot := c.endpoint.Conns.Acquire(clients.RemoteAddr(c.TCPConn), func() { _ = c.Close() })
	c.mu.Lock() // the limiter may already close c
	defer c.mu.Unlock()
	c.slot = slot
	return slot != nil
}

// SetWaiting says whether the connection waits for a request; see clients.ConnSlot.
func (c *conn) SetWaiting(waiting bool) { c.slot.SetWaiting(waiting) }

// IsHTTP2 reports whether the client has begun to speak HTTP/2. Only the goroutine that reads may call it, and what
// that goroutine has started.
func (c *conn) IsHTTP2() bool { return c.heads.state == http2 }

// deadlineSlack is how much later than asked a deadline may come.
const deadlineSlack = 2 * time.Second

// aborts reports whether t is the deadline by which net/http aborts a read: one long ago.
func aborts(t time.Time) bool { return !t.IsZero() && t.Before(time.Unix(1e6, 0)) }

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.opening != nil {
		if err := c.open(); err != nil {
			return 0, err
		}
	}
	for len(p) > 0 {
		if c.isPROXY {
			if c.refusal == nil {
				c.refusal = c.refuse(c.refusalOfPROXY())
			}
			return 0, c.refusal
		}
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
		if c.opening == nil && !c.hasHTTPRequest && looksLikePROXY(into[:n]) {
			c.isPROXY = true
			continue
		}
		// An error that came with bytes comes again with the next Read.
		if c.heads.state == betweenHeads && c.endpoint.NewRequest != nil {
			if answered, last := c.answer(into[:n]); last {
				return 0, io.EOF
			} else if answered {
				continue
			}
		}
		c.hasHTTPRequest = true
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
	if !covers(c.socketReadDeadline, c.readDeadline) {
		c.applyReadDeadline()
	}
	c.reading = true
	c.mu.Unlock()
	n, err := c.stream.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	return n, err
}

// pooledAnswers are buffers for answers.
var pooledAnswers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// answer answers a head by the fast path if that takes it. last says that the connection has ended.
//
// The first request of a connection takes the fast path only if it is the last one as well: net/http must know which
// connections are kept alive, to close them at a shutdown.
func (c *conn) answer(head []byte) (answered, last bool) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false, true
	}
	c.answering = true // Close leaves the socket open meanwhile
	c.mu.Unlock()

	if c.fast == nil {
		c.fast = newAnswerer(c.endpoint)
	}
	b := pooledAnswers.Get().(*[]byte)
	if *b, last, answered = c.fast.answer((*b)[:0], head, c.client, c.hasHTTPRequest); answered {
		_ = c.SetWriteDeadline(c.fast.at.Add(writeTimeout))
		if _, err := c.Write(*b); err != nil {
			last = true
		}
		poison(head)
		poison(*b)
	}
	if cap(*b) <= maxPooledAnswer {
		pooledAnswers.Put(b)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.answering = false
	if c.closed {
		_ = c.stream.Close()
		return answered, true
	}
	if answered {
		c.slot.Use()
		c.readDeadline = c.fast.at.Add(c.endpoint.IdleTimeout)
	}
	if c.fast.text == "" {
		c.fast = nil // it may hold parts of a long head
	}
	return answered, last
}

// waitForDeadline is the one-byte read between heads. It returns when the read is aborted or the connection closed.
func (c *conn) waitForDeadline() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake.L = &c.mu
	c.waiting = true
	for !c.closed && !aborts(c.readDeadline) {
		c.wake.Wait()
	}
	c.waiting = false
	if c.closed {
		return net.ErrClosed
	}
	return os.ErrDeadlineExceeded
}

// withSlack returns the deadline for the socket that also covers the next few that net/http sets.
func withSlack(t time.Time) time.Time {
	if t.IsZero() || aborts(t) {
		return t
	}
	return t.Add(deadlineSlack)
}

// covers reports whether the deadline of the socket serves as well as the one that the caller has set.
func covers(socket, set time.Time) bool {
	if set.IsZero() || socket.IsZero() {
		return set.IsZero() && socket.IsZero()
	}
	late := socket.Sub(set)
	return late >= 0 && late <= deadlineSlack
}

// applyReadDeadline passes the read deadline to the socket. c.mu is held.
func (c *conn) applyReadDeadline() {
	c.socketReadDeadline = withSlack(c.readDeadline)
	_ = c.TCPConn.SetReadDeadline(c.socketReadDeadline) // fails on a closed socket, as the read will
}

// SetReadDeadline applies from the next read on, and at once to a read that is running.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDeadline = t
	if c.reading {
		c.applyReadDeadline()
	}
	if c.waiting {
		c.wake.Signal()
	}
	return nil
}

// SetWriteDeadline applies from the next write on.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline = t
	return nil
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if !covers(c.socketWriteDeadline, c.writeDeadline) {
		c.socketWriteDeadline = withSlack(c.writeDeadline)
		_ = c.TCPConn.SetWriteDeadline(c.socketWriteDeadline) // fails on a closed socket, as the write will
	}
	return c.stream.Write(p)
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

// ReadFrom has io.Copy write by Write, which applies the write deadline, and not by the socket's own ReadFrom.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(writerOnly{c}, r) }

type writerOnly struct{ io.Writer }

// Close also ends a read that waits. While the fast path is answering, it leaves the socket for it to close.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.waiting {
		c.wake.Signal()
	}
	answering, slot := c.answering, c.slot
	c.mu.Unlock()
	slot.Release()
	if answering {
		return nil
	}
	return c.stream.Close()
}

// CloseWrite ends what the client can read; by TLS it says so first.
func (c *conn) CloseWrite() error {
	if s, ok := c.stream.(interface{ CloseWrite() error }); ok {
		return s.CloseWrite()
	}
	return nil
}
