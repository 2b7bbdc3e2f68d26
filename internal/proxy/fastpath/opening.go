package fastpath

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"

	"hacheck/internal/clients"
	"hacheck/internal/textfmt"
)

const (
	// openTimeout is how long the PROXY line and the TLS handshake may take together.
	openTimeout = 10 * time.Second
	// proxyBuffer holds any line of version 1 (107 bytes). The library reads at most 4 KiB of version 2.
	proxyBuffer = 256
	// lingerTimeout and lingerBytes bound what is read after a refusal, so that a reset does not destroy it.
	lingerTimeout = 500 * time.Millisecond
	lingerBytes   = 64 << 10
)

// opening reads what precedes the first request of a connection: a PROXY line and the TLS handshake. Connections that
// can have neither do not have one.
type opening struct {
	raw     *rawConn
	tls     *tls.Conn // on top of raw; nil for no TLS
	trusted bool      // the peer may send a PROXY line

	once   sync.Once
	err    error
	remote net.Addr // of the client, if a PROXY line has named one
}

// rawConn is a TCP connection of which some bytes were read already.
type rawConn struct {
	*net.TCPConn
	first []byte
}

// Read implements net.Conn.
func (r *rawConn) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.TCPConn.Read(p)
}

// newOpening returns the opening of tcp, of which first was read already, or nil if requests begin at once.
func newOpening(tcp *net.TCPConn, e *endpoint, first []byte) *opening {
	trusted := e.ProxyFrom != nil && clients.Contains(e.ProxyFrom(), clients.RemoteAddr(tcp).WithZone("").Unmap())
	if !trusted && e.TLS == nil {
		return nil
	}
	o := &opening{raw: &rawConn{tcp, bytes.Clone(first)}, trusted: trusted}
	if e.TLS != nil {
		o.tls = tls.Server(o.raw, e.TLS)
	}
	return o
}

// open runs the opening of c once. It blocks until the client has sent its PROXY line and the TLS handshake is done. If
// that fails, the client gets the reason and the connection is of no use any more.
func (c *conn) open() error {
	o := c.opening
	o.once.Do(func() {
		_ = c.TCPConn.SetDeadline(time.Now().Add(openTimeout))
		if o.err = c.readPROXY(); o.err == nil && o.tls != nil {
			o.err = c.handshake()
		}
		// The next read and the next write set the deadlines of the server again.
		_ = c.TCPConn.SetDeadline(time.Time{})
		c.mu.Lock()
		c.socketReadDeadline, c.socketWriteDeadline = time.Time{}, time.Time{}
		c.mu.Unlock()
	})
	return o.err
}

// readPROXY reads the PROXY line of a trusted peer, if there is one, and sets the client to the one that it names.
func (c *conn) readPROXY() error {
	o := c.opening
	if !o.trusted {
		return nil
	}
	r := bufio.NewReaderSize(o.raw, proxyBuffer)
	h, err := proxyproto.Read(r)
	switch {
	case errors.Is(err, proxyproto.ErrNoProxyProtocol):
	case isNetError(err):
		return err
	case err != nil:
		return c.refuse("The PROXY line cannot be read: " + strings.TrimPrefix(err.Error(), "proxyproto: "))
	case h.Command.IsLocal():
		// The line names no other client: it precedes a health check of the peer itself.
	default:
		source, ok := h.SourceAddr.(*net.TCPAddr)
		if !ok {
			return c.refuse(fmt.Sprintf("The PROXY line names a client without an IP address (%T)", h.SourceAddr))
		}
		if mayName(clients.RemoteAddr(c.TCPConn).Unmap(), source) {
			o.remote, c.client = source, clients.HostPart(source.String())
		}
	}
	ahead, _ := r.Peek(r.Buffered())
	o.raw.first = append(bytes.Clone(ahead), o.raw.first...)
	return nil
}

// mayName reports whether source in a line of peer is the client. The loopback address of another machine is that
// machine, and not this one.
func mayName(peer netip.Addr, source *net.TCPAddr) bool {
	return !source.IP.IsLoopback() || peer.IsLoopback()
}

// handshake shakes hands by TLS.
func (c *conn) handshake() error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	err := c.opening.tls.HandshakeContext(ctx)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && e.Conn != nil { // e.RecordHeader has five bytes
		if looksLikePROXY(e.RecordHeader[:]) {
			return c.refuse(c.refusalOfPROXY())
		}
		return c.refuse("This port speaks TLS: use https")
	}
	if !isNetError(err) && !errors.Is(err, io.EOF) {
		c.endpoint.refused(c.client, "TLS: "+err.Error())
	}
	return errRefused
}

func isNetError(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	_, isRemote := errors.AsType[*net.OpError](err)
	return ok && (isRemote || errors.Is(err, context.DeadlineExceeded))
}

// looksLikePROXY reports whether the first bytes of a connection begin a PROXY line. Five bytes are enough.
func looksLikePROXY(first []byte) bool {
	return bytes.HasPrefix(first, proxyproto.SIGV1) || bytes.HasPrefix(first, proxyproto.SIGV2[:5])
}

func (c *conn) refusalOfPROXY() string {
	return "A PROXY line from " + c.client + " is not accepted: add the address to proxy_protocol_from in hacheck's configuration"
}

// refuse answers 400 with a sentence, without TLS, and returns an error.
func (c *conn) refuse(text string) error {
	text = textfmt.OneLine(text) // it may quote the client
	c.endpoint.refused(c.client, text)
	_ = c.TCPConn.SetDeadline(time.Now().Add(lingerTimeout))
	_, err := fmt.Fprintf(c.TCPConn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	if err == nil && c.TCPConn.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.TCPConn, lingerBytes)
	}
	return errRefused
}

// errRefused is the error of reads after a refusal. net/http answers nothing to it.
var errRefused error = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("the connection was refused")}

// refused reports a connection that ends before its first request.
func (e *endpoint) refused(client, why string) {
	if e.OnRefused != nil {
		e.OnRefused(client, why)
	}
}
