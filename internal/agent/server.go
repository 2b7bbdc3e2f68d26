//go:build unix

package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

const (
	readTimeout      = 250 * time.Millisecond // for the request of a client
	writeTimeout     = time.Second            // for a line, which fits any socket's buffer
	drainTimeout     = 250 * time.Millisecond // for reading what a client sends behind its line
	maxDrained       = 64 << 10               // bytes of that
	acceptRetryDelay = 50 * time.Millisecond  // after a failure; the kernel holds the connections meanwhile
	maxRequest       = 256                    // bytes that are read; no key is that long
	maxShownText     = 80                     // bytes of an invalid request in the log

	// Only connections without a request are queued. HAProxy with agent-send has sent its request before the
	// connection is accepted, so that a full queue does not concern it.
	maxWaiting          = 1024 // connections in the queue; a further one evicts the oldest
	maxWaitingPerClient = 256  // of one address, or one IPv6 network of 64 bits
	maxOpen             = 2048 // queued and evicted; a further connection is closed at once
)

// Server answers on one listener of an Agent.
type Server struct {
	agent      *Agent
	ln         net.Listener
	defaultKey atomic.Pointer[spool.Key]

	closed atomic.Bool
	wg     sync.WaitGroup
}

// Serve answers on ln until Close; the Server owns ln. An empty request is answered about service, which is
// spool.All for none. The Server owns the goroutine that accepts and one for each connection that waits.
func (a *Agent) Serve(ln net.Listener, service string) *Server {
	s := &Server{agent: a, ln: ln}
	s.SetDefaultService(service)
	s.wg.Go(s.accept)
	return s
}

// SetDefaultService changes the service about which an empty request is answered.
func (s *Server) SetDefaultService(service string) { s.defaultKey.Store(&spool.Key{Service: service}) }

// Close closes the listener and every connection without an answer, so that HAProxy keeps the last one. It returns
// when all goroutines of s have ended.
func (s *Server) Close() {
	s.closed.Store(true)
	_ = s.ln.Close() // nothing is lost with it
	s.agent.queue.closeAll(s)
	s.wg.Wait()
}

func (s *Server) accept() {
	var buf [maxRequest]byte
	for {
		c, err := s.ln.Accept()
		if err != nil {
			if s.closed.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			<-time.After(acceptRetryDelay)
			continue
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			s.handle(tcp, buf[:])
		} else {
			_ = c.Close() // HAProxy connects by TCP only
		}
	}
}

// handle answers c at once if its request is there and nothing behind it. Otherwise it queues c and starts
// serveWaiting.
func (s *Server) handle(c *net.TCPConn, buf []byte) {
	n, end := readAvailable(c, buf)
	if end || n > 0 && bytes.IndexByte(buf[:n], '\n') == n-1 {
		s.reply(c, buf[:n])
		_ = c.Close()
		return
	}
	p := &pendingConn{server: s, TCPConn: c, client: clients.NetworkOfAddr(peerAddr(c))}
	n = copy(p.text[:], buf[:n])
	queue := &s.agent.queue
	if !queue.add(p) {
		_ = c.Close()
		return
	}
	// The limiter evicts a connection to make room for another client's.
	slot := s.agent.o.Conns.Acquire(clients.RemoteAddr(c), func() { queue.evict(p) })
	if slot == nil {
		queue.remove(p)
		_ = c.Close()
		return
	}
	s.wg.Go(func() {
		defer slot.Release()
		defer queue.remove(p)
		defer func() { _ = p.Close() }()
		s.serveWaiting(p, n)
	})
}

// serveWaiting reads the request of p, of which n bytes are there, and replies. An evicted connection gets a reply
// only if its request is complete.
func (s *Server) serveWaiting(p *pendingConn, n int) {
	for !isComplete(p.text[:n]) {
		m, err := p.Read(p.text[n:])
		n += m
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// This goroutine may have run late: what has arrived by now counts.
			m, end := readAvailable(p.TCPConn, p.text[n:])
			n += m
			if p.evicted.Load() && !end && !isComplete(p.text[:n]) {
				return
			}
		} else if !errors.Is(err, io.EOF) {
			return // the client has reset the connection, or the server closes
		}
		break
	}
	s.reply(p.TCPConn, p.text[:n])
	if i := bytes.IndexByte(p.text[:n], '\n'); i >= 0 && i < n-1 {
		// Closing a socket with unread data sends a reset, which may overtake the answer.
		_ = p.CloseWrite()
		_ = p.SetReadDeadline(time.Now().Add(drainTimeout))
		_, _ = io.Copy(io.Discard, io.LimitReader(p, maxDrained))
	}
}

// isComplete reports whether text is a whole request.
func isComplete(text []byte) bool {
	return len(text) == maxRequest || bytes.IndexByte(text, '\n') >= 0
}

// readAvailable reads what the kernel has for c. It does not block and ignores the deadline. end reports that
// nothing more will arrive.
func readAvailable(c *net.TCPConn, p []byte) (n int, end bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, true
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if n, readErr = syscall.Read(int(fd), p); !errors.Is(readErr, syscall.EINTR) {
				return
			}
		}
	})
	if err != nil { // closed
		return 0, true
	}
	return max(n, 0), n == 0 || n < 0 && !errors.Is(readErr, syscall.EAGAIN)
}

// reply answers the request read from c. An invalid one gets a log line and no answer.
func (s *Server) reply(c *net.TCPConn, request []byte) {
	a := s.agent
	text, _, _ := bytes.Cut(request, []byte("\n"))
	k, ok := parseRequest(text, *s.defaultKey.Load())
	if !ok {
		a.logInvalidRequest(c, text)
		return
	}
	peer := peerAddr(c)
	answer := a.line(k, peer)
	if s.closed.Load() {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := io.WriteString(c, answer+"\n"); err != nil {
		return
	}
	if a.o.OnAnswer != nil {
		a.o.OnAnswer(peer.String(), k, answer)
	}
	if log := a.o.Log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("agent answered", "peer", peer.String(), "service", k.Name(), "answer", answer)
	}
}

// parseRequest returns the key that text, a request without its newline, names. An empty one names defaultKey.
func parseRequest(text []byte, defaultKey spool.Key) (k spool.Key, ok bool) {
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) == 0 {
		return defaultKey, true
	}
	k, err := spool.ParseKey(string(text))
	return k, err == nil
}

// logInvalidRequest logs a request that names no service, each text once for each client.
func (a *Agent) logInvalidRequest(c net.Conn, text []byte) {
	const message = `agent: what was sent names no service, and gets no answer; agent-send wants "web\n" or "web:8080\n"`
	if a.o.LogLimit.AllowOnce(loglimit.Client, clients.NetworkOfAddr(peerAddr(c)).String(), message, string(text)) {
		a.o.Log.Warn(message, "text", textfmt.Excerpt(text, maxShownText), "peer", c.RemoteAddr().String(), "listen", c.LocalAddr().String())
	}
}

// peerAddr returns the client's address, without a zone and never an IPv4 address in IPv6 form.
func peerAddr(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
