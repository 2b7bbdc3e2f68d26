package check

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

const (
	// maxHead is the longest head of an HTTP answer in bytes, including informational answers before it.
	maxHead = 64 << 10
	// maxInformational is how many 1xx answers may come before the answer.
	maxInformational = 5
)

// httpClient makes GET requests. It does not use http.Client, because a check is one request on one connection: it
// needs no pool, goroutines, redirects, cookies or proxy, and it sends the path exactly as the balancer did.
type httpClient struct {
	userAgent     string
	serviceHeader string // a header with the service's name; "" for none
}

// newHTTP returns the http check. It makes a GET of the target's URI and returns the code and the body, up to MaxBody
// bytes. A code without a standard reason phrase becomes 503 and keeps its body.
func newHTTP(o Options) Func {
	c := newHTTPClient(o)
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result { return c.get(x) })
	}
}

func newHTTPClient(o Options) *httpClient {
	c := &httpClient{userAgent: "hacheck", serviceHeader: o.ServiceNameHeader}
	if strings.EqualFold(c.serviceHeader, HopsHeader) {
		c.serviceHeader = "" // this header has a meaning of its own
	}
	if o.Version != "" {
		c.userAgent += "/" + o.Version
	}
	return c
}

// httpBuffers are the buffers of one request. A pool of them saves most of its allocations.
type httpBuffers struct {
	head    []byte // of the request, then of an answer
	limited io.LimitedReader
	reader  *bufio.Reader // of the connection
	answer  *bufio.Reader // of head and then reader
}

var httpBufferPool = sync.Pool{New: func() any {
	return &httpBuffers{reader: bufio.NewReaderSize(nil, 4<<10), answer: bufio.NewReaderSize(nil, 4<<10)}
}}

// newHTTPBuffers returns buffers from the pool. The caller must free them.
func newHTTPBuffers() *httpBuffers {
	return httpBufferPool.Get().(*httpBuffers)
}

// free returns b to the pool. The caller must not use anything that was read through b any more.
func (b *httpBuffers) free() {
	b.limited.R = nil
	b.reader.Reset(nil)
	b.answer.Reset(nil)
	if cap(b.head) <= 16<<10 {
		httpBufferPool.Put(b)
	}
}

// unread returns how many bytes were received after the answer that was read.
func (b *httpBuffers) unread() int { return b.reader.Buffered() + b.answer.Buffered() }

// get sends the request and returns the answer.
func (c *httpClient) get(x *exchange) Result {
	b := newHTTPBuffers()
	defer b.free()
	resp, r, ok := c.roundTrip(x, b, x.t.URI) //nolint:bodyclose // closing reads the rest of the body, however long
	if !ok {
		return r
	}
	x.phase = phaseRead
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err != nil {
		return x.failBody(err)
	}
	r = Result{Code: resp.StatusCode, Body: shrink(body), ContentType: contentType(resp.Header)}
	if http.StatusText(r.Code) == "" {
		// Balancers and proxies do not know such a code. The originals answered 503.
		r.Code, r.Reason, r.Err = http.StatusServiceUnavailable, ReasonFailed, fmt.Errorf("status %d has no standard meaning", resp.StatusCode)
	}
	return r
}

// roundTrip sends a GET of uri and reads the head of the final answer. The caller reads the body from the response
// before it frees b. If there is no answer, roundTrip returns a Result that says why, and false.
func (c *httpClient) roundTrip(x *exchange, b *httpBuffers, uri string) (*http.Response, Result, bool) {
	if !validURI(uri) {
		// It would end the request line early and so ask for another path.
		return nil, result(400, ReasonConfig, errors.New("invalid path"), "The path has a blank or a control character"), false
	}
	b.head = c.appendHead(b.head[:0], x, uri)
	return x.sendHTTP(b, b.head, nil)
}

// sendHTTP writes a request and reads the head of the final answer to it. req describes the request; nil means a GET.
// The caller reads the body from the response before it frees b. If there is no answer, sendHTTP returns a Result that
// says why, and false.
func (x *exchange) sendHTTP(b *httpBuffers, request []byte, req *http.Request) (*http.Response, Result, bool) {
	x.phase = phaseWait
	if _, err := x.conn.Write(request); err != nil && x.ctx.Err() != nil {
		return nil, x.networkError(err), false
	}
	// Other errors of the write are ignored: a service may answer and close before it has read the request. If it did
	// not answer, the read fails.
	b.limited = io.LimitedReader{R: x.conn, N: maxHead}
	b.reader.Reset(&b.limited)
	for range maxInformational + 1 {
		if r, ok := x.expectHTTP(b); !ok {
			return nil, r, false
		}
		x.phase = phaseRead
		if err := b.readHead(); err != nil {
			return nil, x.failHead(err, b), false
		}
		resp, err := http.ReadResponse(b.answer, req)
		switch {
		case err != nil:
			return nil, x.failHead(err, b), false
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, x.protocolError("%s answered 101 and left HTTP", x.addr()), false
		case resp.StatusCode < 100:
			return nil, x.protocolError("%s answered with status %03d, which is none", x.addr(), resp.StatusCode), false
		case resp.StatusCode < 200:
			x.phase = phaseWait
			continue
		}
		b.limited.N = 1 << 62 // the head is complete; readers of the body have limits of their own
		return resp, Result{}, true
	}
	return nil, x.protocolError("%s sent more than %d informational answers", x.addr(), maxInformational), false
}

// readHead reads the head of an answer into b.head, for b.answer. It leaves out the header "Transfer-Encoding: identity",
// which RFC 7230 took away, which old services still send, and which http.ReadResponse refuses; HAProxy and curl take it.
func (b *httpBuffers) readHead() error {
	b.head = b.head[:0]
	for whole := true; ; {
		part, err := b.reader.ReadSlice('\n')
		begin := whole // of a line
		whole = err == nil
		if begin && isIdentityEncoding(part) {
			continue
		}
		b.head = append(b.head, part...)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if begin && len(bytes.TrimRight(part, "\r\n")) == 0 {
			break
		}
	}
	b.answer.Reset(io.MultiReader(bytes.NewReader(b.head), b.reader))
	return nil
}

// isIdentityEncoding reports whether a line of a head is "Transfer-Encoding: identity".
func isIdentityEncoding(line []byte) bool {
	name, value, ok := bytes.Cut(line, []byte(":"))
	return ok && bytes.EqualFold(name, []byte("Transfer-Encoding")) && bytes.EqualFold(bytes.TrimSpace(value), []byte("identity"))
}

// expectHTTP waits for an answer and compares its first bytes one by one. So a service of another protocol is detected
// before it has sent a whole line, which it may never do.
func (x *exchange) expectHTTP(b *httpBuffers) (Result, bool) {
	const version = "HTTP/"
	for n := 1; n <= len(version); n++ {
		start, err := b.reader.Peek(n)
		if err != nil {
			return x.failHead(err, b), false
		}
		if start[n-1] != version[n-1] {
			start, _ = b.reader.Peek(b.reader.Buffered())
			line, _, _ := bytes.Cut(start, []byte("\n"))
			return x.protocolError("The answer of %s is not HTTP: %q", x.addr(), excerpt(line, 80)), false
		}
	}
	return Result{}, true
}

// failHead returns the result for an error while the head is read.
func (x *exchange) failHead(err error, b *httpBuffers) Result {
	if b.limited.N <= 0 && x.ctx.Err() == nil {
		return x.protocolError("The answer of %s has a head of more than %d bytes", x.addr(), maxHead)
	}
	return x.failBody(err)
}

// failBody returns the result for an error while the body is read.
func (x *exchange) failBody(err error) Result {
	if x.ctx.Err() != nil || isNetwork(err) {
		return x.networkError(err)
	}
	return x.protocolError("The answer of %s is not valid HTTP: %s", x.addr(), excerpt(err.Error(), 200))
}

// shrink returns body without spare capacity, because the cache keeps many bodies.
func shrink(body []byte) []byte {
	if cap(body)-len(body) > len(body)/4 {
		return bytes.Clone(body)
	}
	return body
}

// contentType returns the answer's content type, "" if it is invalid or too long to be passed on.
func contentType(h http.Header) string {
	ct := h.Get("Content-Type")
	if len(ct) > 200 || !validValue(ct) {
		return ""
	}
	return ct
}

// appendHead appends the head of a GET request to b.
func (c *httpClient) appendHead(b []byte, x *exchange, uri string) []byte {
	b = append(b, "GET "...)
	if !strings.HasPrefix(uri, "/") {
		b = append(b, '/')
	}
	b = append(b, uri...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host, agent := cmp.Or(hostHeader(x.t.Header), x.addr()), c.userAgent
	for _, f := range x.t.Header {
		if strings.EqualFold(f.Name, "User-Agent") && validValue(f.Value) {
			agent = f.Value
		}
	}
	b = append(b, host...)
	b = appendField(b, "User-Agent", agent)
	b = appendField(b, HopsHeader, nextHops(&x.t))
	for _, f := range x.t.Header {
		if c.isCopied(f) {
			b = appendField(b, f.Name, f.Value)
		}
	}
	if c.serviceHeader != "" && validValue(x.t.Service) {
		b = appendField(b, c.serviceHeader, x.t.Service)
	}
	return append(b, "\r\nConnection: close\r\n\r\n"...)
}

// hostHeader returns the value of the last Host header that can be sent, "" if there is none.
func hostHeader(header []Field) (host string) {
	for _, f := range header {
		if strings.EqualFold(f.Name, "Host") && validValue(f.Value) {
			host = f.Value
		}
	}
	return host
}

// appendField appends a line end and a header line without its end.
func appendField(b []byte, name, value string) []byte {
	b = append(b, "\r\n"...)
	b = append(b, name...)
	b = append(b, ": "...)
	return append(b, value...)
}

// notCopied are the headers of a client that are never copied: those about its connection or the framing of its
// message, and those that appendHead writes itself. Accept-Encoding is one, because Content-Encoding is not passed on.
var notCopied = []string{
	"Host", "User-Agent", HopsHeader,
	"Accept-Encoding", "Connection", "Content-Length", "Expect", "Keep-Alive", "Proxy-Connection",
	"TE", "Trailer", "Transfer-Encoding", "Upgrade",
}

// isCopied reports whether appendHead copies a client's header to the service.
func (c *httpClient) isCopied(f Field) bool {
	return validName(f.Name) && validValue(f.Value) && !strings.EqualFold(f.Name, c.serviceHeader) && !isNotCopied(f.Name)
}

func isNotCopied(name string) bool {
	return slices.ContainsFunc(notCopied, func(n string) bool { return strings.EqualFold(n, name) })
}

// HeadersToCopy returns the names of the headers that reach HTTP services when a client sends them. The caller must not
// copy other headers into a Target, because each of their values would be another cache entry for the same check.
func (o Options) HeadersToCopy(names []string) []string {
	var reach []string
	for _, name := range names {
		written := strings.EqualFold(name, "Host") || strings.EqualFold(name, "User-Agent")
		if written || !isNotCopied(name) && !strings.EqualFold(name, o.ServiceNameHeader) {
			reach = append(reach, name)
		}
	}
	return reach
}

// validName reports whether s is a header name.
func validName(s string) bool { return httpguts.ValidHeaderFieldName(s) }

// validValue reports whether s can be sent in a header line: it has no control character but tabs.
func validValue(s string) bool { return httpguts.ValidHeaderFieldValue(s) }

// validURI reports whether s can be sent in a request line: it has no blank and no control character.
func validURI(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
