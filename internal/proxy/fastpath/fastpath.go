// Package fastpath answers plain check requests straight from the socket, past net/http and its router. It parses a
// request head and writes an answer; a Request of its caller decides what the answer is.
//
// A balancer sends the same few check requests every two seconds for years, in plain heads, and nearly all answers are
// in memory. The fast path takes less than half of the time that net/http needs for one. It takes only heads that can
// be understood in one way; net/http answers all other requests as if the fast path did not exist. FuzzFastPath
// compares the two.
//
// A connection takes this way:
//
//  1. The listener accepts it. On Linux the listener also reads the first bytes, and if they are a whole check request
//     with a cached answer that ends the connection, it answers and closes at once (direct_linux.go).
//  2. clients.ConnLimiter counts it, by the address of the peer.
//  3. If the peer is in ProxyFrom, a PROXY line may come first and names the client (opening.go). From another peer it
//     is refused.
//  4. On a listener with TLS the handshake follows.
//  5. The first line of a request decides (rewrite.go): net/http gets all that follows the preface of HTTP/2 as it is,
//     and heads of HTTP/1 with the lines that it insists on.
//  6. On a connection of HTTP/1 that is kept, the fast path tries each further head first (conn.go).
package fastpath

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/health"
)

// Request is a check request of one connection. Package proxy implements it. One goroutine uses it at a time.
type Request interface {
	// Parse sets the request to the one that a head makes. It returns false if net/http has to answer that. The
	// connection remembers the request for as long as the same head comes again, so Parse must not use settings
	// that may change. The strings of h may be used until the next Parse; what lives longer must clone them.
	Parse(h *Head) bool
	// Answer returns the verdict for a client and the time of the answer. It returns false if net/http has to
	// answer. It blocks until a check has finished only if mayBlock is set; otherwise it returns false for a
	// request that needs a check, and for a body of more than MaxShortBody bytes.
	Answer(client string, mayBlock bool) (v health.Verdict, at time.Time, ok bool)
}

const (
	// MaxShortBody is the longest body of an answer that is written without waiting: it fits the buffer of any fresh
	// socket.
	MaxShortBody = 4 << 10
	// maxRememberedHead bounds the head that a connection remembers, in bytes.
	maxRememberedHead = 2 << 10
	// maxPooledAnswer bounds the buffers that are used again for another answer, in bytes.
	maxPooledAnswer = 8 << 10
	// writeTimeout is how long the client may take to accept an answer, of check.MaxBody at most.
	writeTimeout = 10 * time.Second
)

// Options are what a listener needs.
type Options struct {
	NewRequest  func() Request       // called for each connection at its first plain head; nil for no fast path
	Conns       *clients.ConnLimiter // bounds the connections
	IdleTimeout time.Duration        // between two requests on a connection
	// ProxyFrom returns the networks of the peers whose PROXY line names the client; nil for none.
	ProxyFrom func() []netip.Prefix
	// TLS is the configuration of a listener that speaks TLS; nil for none. Requests by TLS take the fast path on a
	// connection that is kept. It names the protocols (ALPN); the first bytes say which of them the client speaks.
	TLS *tls.Config
	// OnRefused is called when a connection ends before its first request: by a PROXY line that is not accepted or
	// cannot be read, or by a failed TLS handshake. It may be nil.
	OnRefused func(client, why string)
}

// Listen wraps ln so that plain check requests take the fast path and net/http accepts the others: HAProxy's "option
// httpchk GET /x HTTP/1.1" sends no Host line, and net/http refuses such a request before any handler runs. The
// connections that Accept returns insert an empty "Host:" line into each head that has none, and drop empty lines
// before a request line, which RFC 9112 section 2.2 asks a server to ignore. The returned listener closes ln.
func Listen(ln net.Listener, o Options) net.Listener {
	e := &endpoint{Options: o}
	if d, ok := listenDirect(ln, e); ok {
		return d
	}
	return listener{ln, e}
}

// endpoint is what the connections of one listener share.
type endpoint struct {
	Options
	date Date
}

// ListenPlain is Listen for a server whose connections do not go to the fast path at once: with TLS, or of another
// endpoint. Without NewRequest nothing takes the fast path.
func ListenPlain(ln net.Listener, o Options) net.Listener { return listener{ln, &endpoint{Options: o}} }

type listener struct {
	net.Listener
	endpoint *endpoint
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			return c, err
		}
		if out := newConn(tcp, l.endpoint, nil); out.acquireSlot() {
			return out, err
		}
		_ = tcp.Close()
	}
}

// answerer answers the plain heads of one connection. It remembers the last one, because a balancer sends the same
// head each time: then nothing is copied or parsed.
type answerer struct {
	date    *Date
	request Request
	text    string    // of the remembered head; "" for none
	head    Head      // its strings are parts of text
	at      time.Time // of the last answer
}

func newAnswerer(e *endpoint) *answerer { return &answerer{date: &e.date, request: e.NewRequest()} }

// answer appends the answer to head to out. last says that the connection ends with it; ok is false if net/http has to
// answer. Without mayBlock it returns only an answer that ends the connection, see Request.Answer. The caller may
// overwrite head afterwards.
func (a *answerer) answer(out, head []byte, client string, mayBlock bool) (answer []byte, last, ok bool) {
	if string(head) != a.text && !a.parse(head) || !mayBlock && !a.head.close {
		return out, false, false
	}
	var v health.Verdict
	v, a.at, ok = a.request.Answer(client, mayBlock)
	if !ok {
		return out, false, false
	}
	out, last = a.appendAnswer(out, &v), a.head.close
	if len(a.text) > maxRememberedHead {
		a.forget()
	}
	return out, last, true
}

// parse remembers head and returns true if it is plain.
func (a *answerer) parse(head []byte) bool {
	a.forget()
	text := string(head) // the copy that the request's strings are parts of
	if !a.head.parse(text) || !a.request.Parse(&a.head) {
		return false
	}
	a.text = text
	return true
}

// forget drops the remembered head.
func (a *answerer) forget() {
	poisonText(a.text)
	a.text = ""
}

// Date is the value of the Date header. It formats the value once a second, because that takes half a microsecond. The
// zero value is ready to use. It is safe for concurrent use.
type Date struct{ last atomic.Pointer[dateOfSecond] }

type dateOfSecond struct {
	second int64
	value  []string
}

// Value returns the value as net/http keeps it. The caller must not change it.
func (d *Date) Value(now time.Time) []string {
	if l := d.last.Load(); l != nil && l.second == now.Unix() {
		return l.value
	}
	l := &dateOfSecond{now.Unix(), []string{now.UTC().Format(http.TimeFormat)}}
	d.last.Store(l)
	return l.value
}

// BodyAllowed reports whether an answer with that code may have a body, by RFC 9110.
func BodyAllowed(code int) bool {
	return code != http.StatusNoContent && code != http.StatusNotModified
}

// appendAnswer appends what net/http would write.
func (a *answerer) appendAnswer(b []byte, v *health.Verdict) []byte {
	h := &a.head
	code, body := v.Result.Code, v.Result.Body
	if h.http10 {
		b = append(b, "HTTP/1.0 "...)
	} else {
		b = append(b, "HTTP/1.1 "...)
	}
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(code)...)
	b = append(b, "\r\nAge: "...)
	b = strconv.AppendInt(b, max(int64(v.Age/time.Second), 0), 10)
	b = append(b, "\r\nDate: "...)
	b = append(b, a.date.Value(a.at)[0]...)
	b = append(b, "\r\nX-Content-Type-Options: nosniff\r\nX-Hacheck-Cache: "...)
	b = append(b, v.Cache.String()...)
	if BodyAllowed(code) {
		b = append(b, "\r\nContent-Type: "...)
		if v.Result.ContentType != "" {
			b = append(b, v.Result.ContentType...)
		} else {
			b = append(b, "text/plain; charset=utf-8"...)
		}
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
	} else {
		body = nil
	}
	if h.close && !h.http10 {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n\r\n"...)
	if h.Method != http.MethodHead {
		b = append(b, body...)
	}
	return b
}
