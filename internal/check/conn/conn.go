// Package conn is the one connection of a check, under every driver: fresh, bounded in time and bytes, and closed with
// the check. It imports no driver.
//
// A driver is made for applications: it opens as many connections as it likes, sets deadlines of its own, and allocates
// what a server claims to send. Here it gets one connection (Once), on which the context of the check ends every
// read and write whatever deadline the driver sets, which yields at most MaxRead bytes, and, with Frames, which fails
// before the driver sees the header of a message that is too long.
package conn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// MaxRead is how many bytes a Conn yields, unless SetMaxRead says otherwise. The answers of a check have a few thousand.
const MaxRead = 1 << 20

// ErrTooMuch is the error of a read after the last byte that a Conn may yield.
var ErrTooMuch = errors.New("more bytes than a check reads")

// ErrSecond is the error for a driver that dials again: a check has one connection.
var ErrSecond = errors.New("a second connection was wanted")

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// dialer opens the connections of all checks, without keep-alive probes: they start after 15 s, longer than a check
// takes, and cost four system calls a connection.
var dialer = net.Dialer{KeepAlive: -1}

// Conn is a connection over TCP or a Unix socket that lives as long as a context.
type Conn struct {
	net.Conn
	left int64       // bytes that may still be read
	stop func() bool // ends the watch of the context

	mu    sync.Mutex
	ended bool // the context has ended: deadlines stay in the past
}

// Dial opens a connection ("tcp" or "unix") that ctx bounds: when ctx ends, every read and write fails at once, now and
// later. The caller closes it.
func Dial(ctx context.Context, network, addr string) (*Conn, error) {
	opened, err := dialer.DialContext(ctx, network, addr)
	if err == nil && isSelfConnection(opened) {
		_ = opened.Close()
		return nil, syscall.ECONNREFUSED
	}
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: opened, left: MaxRead}
	if ctx.Done() != nil {
		// One callback serves the deadline and a cancellation, and costs less than a timer.
		c.stop = context.AfterFunc(ctx, c.end)
	}
	return c, nil
}

// isSelfConnection reports whether the kernel connected conn to itself. When nothing listens on a port of the ephemeral
// range, a connection may get this port as its own and succeed without a server. (net.Dialer tries again twice.)
func isSelfConnection(conn net.Conn) bool {
	l, lok := conn.LocalAddr().(*net.TCPAddr)
	r, rok := conn.RemoteAddr().(*net.TCPAddr)
	return lok && rok && l.Port == r.Port && l.IP.Equal(r.IP)
}

// end makes all reads and writes fail.
func (c *Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	_ = c.Conn.SetDeadline(longAgo)
}

// SetMaxRead sets how many further bytes c yields.
func (c *Conn) SetMaxRead(n int64) { c.left = n }

// Read reads until SetMaxRead's limit, then returns ErrTooMuch.
func (c *Conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, ErrTooMuch
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

// Close closes the connection. Calling it again does no harm.
func (c *Conn) Close() error {
	if c.stop != nil {
		c.stop()
	}
	return c.Conn.Close()
}

// CloseWrite tells the server that nothing more is sent.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SetDeadline is net.Conn's. After the end of the context it does nothing: a driver that sets or clears a deadline must
// not outlive the check.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, c.Conn.SetDeadline) }

// SetReadDeadline is like SetDeadline.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, c.Conn.SetReadDeadline) }

// SetWriteDeadline is like SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, c.Conn.SetWriteDeadline) }

func (c *Conn) setDeadline(t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	return set(t)
}

// Once returns a driver's dial function. It returns c the first time, which may be under TLS, and ErrSecond from then on.
func Once(c net.Conn) func() (net.Conn, error) {
	var mu sync.Mutex
	taken := false
	return func() (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if taken {
			return nil, ErrSecond
		}
		taken = true
		return c, nil
	}
}

// FrameError is the error of a read of a message that is longer than Frames allows, or has a negative length.
type FrameError struct{ Size, Max int64 }

func (e *FrameError) Error() string {
	if e.Size < 0 {
		return fmt.Sprintf("a message of %d bytes", e.Size)
	}
	return fmt.Sprintf("a message of %d bytes, more than %d", e.Size, e.Max)
}

// Frames returns c with a bound for each message that is read: one of header bytes, of which size returns the number of
// bytes that follow. A read never yields the last byte of a header that claims more than most. It fails with a
// *FrameError, before the driver allocates memory for the message. Reads begin at the beginning of a message.
func Frames(c net.Conn, header int, size func(header []byte) int64, most int64) net.Conn {
	return &framed{Conn: c, size: size, most: most, head: make([]byte, 0, header)}
}

// framed is the connection of Frames.
type framed struct {
	net.Conn
	size func([]byte) int64
	most int64
	head []byte // what was read of the current header; full while its body is read
	body int64  // bytes of the current message that are not read yet
	err  error
}

// Read reads at most to the end of a header or to the end of a body.
func (f *framed) Read(p []byte) (int, error) {
	if f.err != nil || len(p) == 0 {
		return 0, f.err
	}
	if f.body > 0 {
		n, err := f.Conn.Read(p[:min(int64(len(p)), f.body)])
		f.body -= int64(n)
		return n, err
	}
	if len(f.head) == cap(f.head) {
		f.head = f.head[:0]
	}
	n, err := f.Conn.Read(p[:min(len(p), cap(f.head)-len(f.head))])
	f.head = append(f.head, p[:n]...)
	if len(f.head) == cap(f.head) {
		if f.body = f.size(f.head); f.body < 0 || f.body > f.most {
			f.err = &FrameError{f.body, f.most}
			return 0, f.err
		}
	}
	return n, err
}
