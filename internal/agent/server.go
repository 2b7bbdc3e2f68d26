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
	readTimeout     = 250 * time.Millisecond // how long a client has to say what it means
	writeTimeout    = time.Second            // for a line, which fits any socket's buffer
	drainTimeout     = 250 * time.Millisecond // for what a client sends behind its line
	maxDrained   = 64 << 10               // how much of that is read
	acceptRetryDelay  = 50 * time.Millisecond  // after a failure; the kernel holds the connections meanwhile
	maxShownText = 80                     // bytes in the log of a text that is no key

	// A client that says nothing has a place among those that wait. When there is none left, the one that
	// has waited longest is asked for the last time and goes. Who has said what it means, as HAProxy with
	// agent-send has when it is accepted, needs no place.
	maxWaiting     = 1024 // places
	maxWaitingPerClient = 256  // of one address, or one IPv6 network of 64 bits
	maxOpen       = 2048 // those included that are about to go; beyond, connections are closed at once
)

// Server is one port of an Agent.
type Server struct {
	a   *Agent
	ln  net.Listener
	defaultKey atomic.Pointer[spool.Key]

	closed atomic.Bool
	wg     sync.WaitGroup
}

// Serve answers at ln, which belongs to the Door then; who does not say what it means is told about own,
// spool.All for none. The Door owns the goroutine that accepts and one for each connection that waits.
func (a *Agent) Serve(ln net.Listener, own string) *Server {
	d := &Server{a: a, ln: ln}
	d.SetDefaultService(own)
	d.wg.Go(d.accept)
	return d
}

// SetDefaultService changes who is spoken of to those who do not say what they mean.
func (d *Server) SetDefaultService(own string) { d.defaultKey.Store(&spool.Key{Service: own}) }

// Close closes the port and every connection, without a word: what HAProxy was told last stands. It
// returns when all goroutines have ended.
func (d *Server) Close() {
	d.closed.Store(true)
	_ = d.ln.Close() // nothing is lost with it
	d.a.queue.closeAll(d)
	d.wg.Wait()
}

func (d *Server) accept() {
	var buf [maxRequest]byte
	for {
		c, err := d.ln.Accept()
		if err != nil {
			if d.closed.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			<-time.After(acceptRetryDelay)
			continue
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			d.handle(tcp, buf[:])
		} else {
			_ = c.Close() // nothing else listens for HAProxy
		}
	}
}

// handle answers a connection that has said what it means and nothing else. The others wait.
func (d *Server) handle(c *net.TCPConn, buf []byte) {
	n, end := readAvailable(c, buf)
	if end || n > 0 && bytes.IndexByte(buf[:n], '\n') == n-1 {
		d.reply(c, buf[:n])
		_ = c.Close()
		return
	}
	v := &pendingConn{server: d, TCPConn: c, client: clients.Network(peerAddr(c))}
	n = copy(v.text[:], buf[:n])
	if !d.a.queue.add(v) {
		_ = c.Close()
		return
	}
	// A connection that the limiter closes to make room goes as one that has no place any more: it is asked for the
	// last time.
	slot := d.a.o.Conns.Acquire(clients.AddrOf(c), func() { d.a.queue.evict(v) })
	if slot == nil {
		d.a.queue.remove(v)
		_ = c.Close()
		return
	}
	d.wg.Go(func() {
		defer slot.Release()
		defer d.a.queue.remove(v)
		defer func() { _ = v.Close() }()
		d.serveWaiting(v, n)
	})
}

// serveWaiting waits for v, of whose text n bytes are there, to say what it means, and answers.
func (d *Server) serveWaiting(v *pendingConn, n int) {
	for !isComplete(v.text[:n]) {
		m, err := v.Read(v.text[n:])
		n += m
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// It may be we who are late: what is there now counts.
			m, end := readAvailable(v.TCPConn, v.text[n:])
			n += m
			if v.evicted.Load() && !end && !isComplete(v.text[:n]) {
				return
			}
		} else if !errors.Is(err, io.EOF) {
			return // reset, or the door closes
		}
		break
	}
	d.reply(v.TCPConn, v.text[:n])
	if i := bytes.IndexByte(v.text[:n], '\n'); i >= 0 && i < n-1 {
		// What a client has sent and we have not read turns the close into a reset, which may overtake
		// the answer.
		_ = v.CloseWrite()
		_ = v.SetReadDeadline(time.Now().Add(drainTimeout))
		_, _ = io.Copy(io.Discard, io.LimitReader(v, maxDrained))
	}
}

// isComplete reports whether nothing more is to be read.
func isComplete(text []byte) bool {
	return len(text) == maxRequest || bytes.IndexByte(text, '\n') >= 0
}

// readAvailable reads what is there, without waiting and whatever the deadline. end says that nothing more will
// come.
func readAvailable(c *net.TCPConn, p []byte) (n int, end bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, true
	}
	var got error
	err = raw.Control(func(fd uintptr) {
		for {
			if n, got = syscall.Read(int(fd), p); !errors.Is(got, syscall.EINTR) {
				return
			}
		}
	})
	if err != nil { // closed
		return 0, true
	}
	return max(n, 0), n == 0 || n < 0 && !errors.Is(got, syscall.EAGAIN)
}

// reply answers what was read.
func (d *Server) reply(c *net.TCPConn, read []byte) {
	text, _, _ := bytes.Cut(read, []byte("\n"))
	k, ok := parseRequest(text, *d.defaultKey.Load())
	if !ok {
		d.a.logInvalidKey(c, text)
		return
	}
	answer := d.a.answer(k)
	if d.closed.Load() {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := io.WriteString(c, answer+"\n"); err != nil {
		return
	}
	if d.a.o.OnAnswer != nil {
		d.a.o.OnAnswer(peerAddr(c).String(), k, answer)
	}
	if log := d.a.o.Log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("agent answered", "peer", peerAddr(c).String(), "service", k.Name(), "answer", answer)
	}
}

// logInvalidKey logs once for each client that a text names no service.
func (a *Agent) logInvalidKey(c net.Conn, text []byte) {
	const message = `agent: what was sent names no service, and gets no answer; agent-send wants "web\n" or "web:8080\n"`
	if a.o.LogLimit.AllowOnce(loglimit.Client, clients.Network(peerAddr(c)).String(), message, string(text)) {
		a.o.Log.Warn(message, "text", textfmt.Excerpt(text, maxShownText), "peer", c.RemoteAddr().String(), "listen", c.LocalAddr().String())
	}
}

// peerAddr returns who a connection is from.
func peerAddr(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
