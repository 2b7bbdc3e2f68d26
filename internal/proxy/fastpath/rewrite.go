package fastpath

import (
	"bytes"
	"slices"
)

// The lines that a headRewriter inserts at the end of a head. net/http passes an empty Host on as "", which counts as not
// sent. A request with a body ends its connection, so that the rewriter need not know where the body ends and the next
// head begins.
const (
	hostLine   = "Host:\r\n"
	closeLine  = "Connection: close\r\n"
	insertions = hostLine + closeLine
)

// prefaceLine is the first line of an HTTP/2 connection, without its newline (RFC 9113, section 3.4).
const prefaceLine = "PRI * HTTP/2.0\r"

// headRewriter inserts the missing lines into the heads of the HTTP/1 requests of a stream, which comes in pieces of any
// size. It leaves HTTP/2 alone.
type headRewriter struct {
	state   headState
	hasHost bool   // this head has a Host line
	hasBody bool   // this head announces a body
	partial []byte // the beginning of a line whose end has not arrived; net/http's limit on heads bounds it
}

type headState uint8

const (
	betweenHeads headState = iota // empty lines are dropped here
	requestLine
	headerLine
	lastNewline // after the \r of the empty line that ends a head
	passThrough // no head follows
	http2       // the same, after the first line of HTTP/2
)

// rewrite returns b with the missing lines. It uses the array of b if the capacity allows.
func (h *headRewriter) rewrite(b []byte) []byte {
	for i := 0; i < len(b); {
		switch h.state {
		case passThrough, http2:
			return b

		case betweenHeads:
			end := i
			for end < len(b) && (b[end] == '\r' || b[end] == '\n') {
				end++
			}
			b = slices.Delete(b, i, end)
			if i < len(b) {
				h.state, h.hasHost, h.hasBody = requestLine, false, false
			}

		case lastNewline:
			if b[i] != '\n' {
				h.state = passThrough // a bare \r: net/http refuses the head
				return b
			}
			i++
			h.state = betweenHeads

		case headerLine:
			if len(h.partial) == 0 && (b[i] == '\r' || b[i] == '\n') {
				b, i = h.endOfHead(b, i)
				continue
			}
			fallthrough

		default:
			n := bytes.IndexByte(b[i:], '\n')
			if n < 0 {
				h.partial = append(h.partial, b[i:]...)
				return b
			}
			line := b[i : i+n]
			if len(h.partial) > 0 {
				h.partial = append(h.partial, line...)
				line, h.partial = h.partial, nil
			}
			switch {
			case h.state == headerLine:
				h.recordHeader(line)
			case string(line) == prefaceLine:
				h.state = http2
				return b
			}
			h.state = headerLine
			i += n + 1
		}
	}
	return b
}

// endOfHead inserts the lines at b[i], the first byte of the empty line. It returns the index at which to continue.
func (h *headRewriter) endOfHead(b []byte, i int) ([]byte, int) {
	insert := ""
	switch {
	case !h.hasHost && h.hasBody:
		insert = insertions
	case !h.hasHost:
		insert = hostLine
	case h.hasBody:
		insert = closeLine
	}
	if insert != "" {
		b = slices.Insert(b, i, []byte(insert)...)
		i += len(insert)
	}
	switch {
	case h.hasBody:
		h.state = passThrough
	case b[i] == '\r':
		h.state = lastNewline
	default:
		h.state = betweenHeads
	}
	return b, i + 1
}

// recordHeader notes what one header line, without its newline, means for the head.
func (h *headRewriter) recordHeader(line []byte) {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return
	}
	switch len(name) {
	case len("host"):
		h.hasHost = h.hasHost || bytes.EqualFold(name, []byte("host"))
	case len("content-length"):
		if bytes.EqualFold(name, []byte("content-length")) && string(bytes.TrimSpace(value)) != "0" {
			h.hasBody = true
		}
	case len("transfer-encoding"):
		h.hasBody = h.hasBody || bytes.EqualFold(name, []byte("transfer-encoding"))
	}
}
