package check

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxHead is the longest head of an HTTP answer, informational ones before it included, in bytes.
	maxHead = 64 << 10
	// maxInformational is how many 1xx answers may come before the answer.
	maxInformational = 5
)

// httpClient asks HTTP services. It is a client of its own and not net/http's, because a check is one
// request on one connection: no pool, no goroutines per connection, no redirects, no cookies, no proxy,
// and a request line that is the balancer's, byte for byte.
type httpClient struct {
	userAgent     string
	serviceHeader string
}

// newHTTP returns the http check: GET of the target's URI, whose code and body (up to MaxBody bytes)
// become the result. A code without a standard reason phrase becomes 503 and keeps its body.
func newHTTP(o Options) Func {
	c := newHTTPClient(o)
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result { return c.get(x) })
	}
}

func newHTTPClient(o Options) *httpClient {
	c := &httpClient{userAgent: "hacheck", serviceHeader: o.ServiceNameHeader}
	if strings.EqualFold(c.serviceHeader, HopsHeader) {
		c.serviceHeader = "" // it has a meaning of its own
	}
	if o.Version != "" {
		c.userAgent += "/" + o.Version
	}
	return c
}

// scratch is what a request needs for a moment; a pool of them saves most of its allocations.
type scratch struct {
	head    []byte
	limited io.LimitedReader
	reader  *bufio.Reader
}

var scratches = sync.Pool{New: func() any { return &scratch{reader: bufio.NewReaderSize(nil, 4<<10)} }}

func newScratch() *scratch {
	return scratches.Get().(*scratch)
}

// free puts s back; nothing that was read by way of it may be used any more.
func (s *scratch) free() {
	s.limited.R = nil
	s.reader.Reset(nil)
	if cap(s.head) <= 16<<10 {
		scratches.Put(s)
	}
}

// get sends the request over x and passes the answer on.
func (c *httpClient) get(x *exchange) Result {
	s := newScratch()
	defer s.free()
	resp, r, ok := c.roundTrip(x, s, x.t.URI) //nolint:bodyclose // closing reads the rest of the body, however long
	if !ok {
		return r
	}
	x.phase = phaseRead
	body, err := readBody(resp, MaxBody)
	if err != nil {
		return x.failBody(err)
	}
	r = Result{Code: resp.StatusCode, Body: body, ContentType: contentType(resp.Header)}
	if http.StatusText(r.Code) == "" {
		// Balancers and proxies on the way do not know what to make of it, and the originals gave 503.
		r.Code, r.Reason, r.Err = http.StatusServiceUnavailable, ReasonFailed, fmt.Errorf("status %d has no standard meaning", resp.StatusCode)
	}
	return r
}

// roundTrip sends a GET of uri and reads the head of the final answer; the body is to be read from the
// response by way of s. If there is no such answer it says why and returns false.
func (c *httpClient) roundTrip(x *exchange, s *scratch, uri string) (*http.Response, Result, bool) {
	if !validURI(uri) {
		// It would break the request line and so ask something else than was meant.
		return nil, result(400, ReasonConfig, errors.New("invalid path"), "The path has a blank or a control character"), false
	}
	x.phase = phaseWait
	s.head = c.appendHead(s.head[:0], x, uri)
	if _, err := x.conn.Write(s.head); err != nil && x.ctx.Err() != nil {
		return nil, x.fail(err), false
	}
	// Any other error of the write is left to the read: a service that answers before it has read the
	// request and closes has still answered.
	return x.readAnswer(s, nil)
}

// readAnswer reads the head of the final answer to req, which may be nil for a GET; the body is to be read
// from the response by way of s. If there is no such answer it says why and returns false.
func (x *exchange) readAnswer(s *scratch, req *http.Request) (*http.Response, Result, bool) {
	s.limited = io.LimitedReader{R: x.conn, N: maxHead}
	s.reader.Reset(&s.limited)
	for range maxInformational + 1 {
		if r, ok := x.expectHTTP(s); !ok {
			return nil, r, false
		}
		x.phase = phaseRead
		resp, err := http.ReadResponse(s.reader, req)
		switch {
		case err != nil:
			return nil, x.failHead(err, s), false
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, x.protocol("%s answered 101 and left HTTP", x.addr()), false
		case resp.StatusCode < 100:
			return nil, x.protocol("%s answered with status %03d, which is none", x.addr(), resp.StatusCode), false
		case resp.StatusCode < 200:
			x.phase = phaseWait
			continue
		}
		s.limited.N = 1 << 62 // the head is over; readers of the body have bounds of their own
		return resp, Result{}, true
	}
	return nil, x.protocol("%s sent more than %d informational answers", x.addr(), maxInformational), false
}

// expectHTTP waits for an answer and looks at its first bytes as they come: a service of another
// protocol shows itself by the first of them and need not be waited for until a line is complete.
func (x *exchange) expectHTTP(s *scratch) (Result, bool) {
	const version = "HTTP/"
	for n := 1; n <= len(version); n++ {
		start, err := s.reader.Peek(n)
		if err != nil {
			return x.failHead(err, s), false
		}
		if start[n-1] != version[n-1] {
			start, _ = s.reader.Peek(s.reader.Buffered())
			line, _, _ := bytes.Cut(start, []byte("\n"))
			return x.protocol("The answer of %s is not HTTP: %q", x.addr(), oneLine(line, 80)), false
		}
	}
	return Result{}, true
}

// failHead says what went wrong with a head.
func (x *exchange) failHead(err error, s *scratch) Result {
	if s.limited.N <= 0 && x.ctx.Err() == nil {
		return x.protocol("The answer of %s has a head of more than %d bytes", x.addr(), maxHead)
	}
	return x.failBody(err)
}

// failBody says what went wrong with a body.
func (x *exchange) failBody(err error) Result {
	if x.ctx.Err() != nil || isNetwork(err) {
		return x.fail(err)
	}
	return x.protocol("The answer of %s is not valid HTTP: %s", x.addr(), oneLine(err.Error(), 200))
}

// readBody reads at most limit bytes of a body. Less than the head promised is io.ErrUnexpectedEOF.
func readBody(resp *http.Response, limit int) ([]byte, error) {
	if resp.ContentLength == 0 {
		return nil, nil
	}
	// The length is the service's word, so memory is taken as the bytes come.
	want := 512
	if resp.ContentLength > 0 {
		want = int(min(resp.ContentLength, 4<<10, int64(limit)))
	}
	body := make([]byte, 0, want)
	for {
		n, err := resp.Body.Read(body[len(body):min(cap(body), limit)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF: // nothing else: a body that ends too early has io.ErrUnexpectedEOF
			return fit(body), nil
		case err != nil:
			return nil, err
		case len(body) == limit, int64(len(body)) == resp.ContentLength:
			// Cut, or complete: whatever follows is not waited for.
			return fit(body), nil
		case len(body) == cap(body):
			body = slices.Grow(body, 1)
		}
	}
}

// fit gives back memory that a body does not need: it may be kept for a while, and many of them.
func fit(body []byte) []byte {
	if cap(body)-len(body) > len(body)/4 {
		return bytes.Clone(body)
	}
	return body
}

// contentType is the answer's, if it is one that can be passed on.
func contentType(h http.Header) string {
	ct := h.Get("Content-Type")
	if len(ct) > 200 || !validValue(ct) {
		return ""
	}
	return ct
}

// appendHead writes the request's head.
func (c *httpClient) appendHead(b []byte, x *exchange, uri string) []byte {
	b = append(b, "GET "...)
	if !strings.HasPrefix(uri, "/") {
		b = append(b, '/')
	}
	b = append(b, uri...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host, agent := "", c.userAgent
	for _, f := range x.t.Header {
		switch {
		case strings.EqualFold(f.Name, "Host") && validValue(f.Value):
			host = f.Value
		case strings.EqualFold(f.Name, "User-Agent") && validValue(f.Value):
			agent = f.Value
		}
	}
	if host != "" {
		b = append(b, host...)
	} else {
		b = appendHostPort(b, x.t.Host, x.t.Port)
	}
	b = appendField(b, "User-Agent", agent)
	b = appendField(b, HopsHeader, nextHops(&x.t))
	for _, f := range x.t.Header {
		if c.copied(f) {
			b = appendField(b, f.Name, f.Value)
		}
	}
	if c.serviceHeader != "" && validValue(x.t.Service) {
		b = appendField(b, c.serviceHeader, x.t.Service)
	}
	return append(b, "\r\nConnection: close\r\n\r\n"...)
}

// appendField writes a line end and the field; the last one is left open.
func appendField(b []byte, name, value string) []byte {
	b = append(b, "\r\n"...)
	b = append(b, name...)
	b = append(b, ": "...)
	return append(b, value...)
}

func appendHostPort(b []byte, host string, port uint16) []byte {
	if strings.Contains(host, ":") {
		b = append(b, '[')
		b = append(b, host...)
		b = append(b, ']')
	} else {
		b = append(b, host...)
	}
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(port), 10)
}

// notCopied are fields that speak of the client's connection or of how a message is framed, and those
// that get and appendHead write themselves. A coding the client accepts would come back as a body that
// nothing marks as coded.
var notCopied = []string{
	"Host", "User-Agent", HopsHeader,
	"Accept-Encoding", "Connection", "Content-Length", "Expect", "Keep-Alive", "Proxy-Connection",
	"TE", "Trailer", "Transfer-Encoding", "Upgrade",
}

// copied tells whether appendHead copies a client's field to the service.
func (c *httpClient) copied(f Field) bool {
	return validName(f.Name) && validValue(f.Value) && !strings.EqualFold(f.Name, c.serviceHeader) && !isNotCopied(f.Name)
}

func isNotCopied(name string) bool {
	return slices.ContainsFunc(notCopied, func(n string) bool { return strings.EqualFold(n, name) })
}

// HeadersToCopy returns those of names whose fields reach HTTP services when a client sends them. A name that does not
// reach them must not be copied into a Target, or each value of it would be another check of the same thing.
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

// validName tells whether s is a field name (a token of RFC 9110).
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// validValue tells whether s can stand in a line: no control character but a tab.
func validValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// validURI tells whether s leaves the request line one: no blank and no control character.
func validURI(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
