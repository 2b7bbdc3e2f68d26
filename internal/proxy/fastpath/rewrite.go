package fastpath

import (
	"bytes"
	"slices"
)

// What is inserted at the end of a head. The empty Host is handed on by net/http as "", which is how it
// counts as not sent. A request with a body is made the last one of its connection, so that nobody has
// to know where the body ends and the next head begins.
const (
	hostLine   = "Host:\r\n"
	closeLine  = "Connection: close\r\n"
	insertions = hostLine + closeLine
)

// headRewriter follows the heads of HTTP/1 requests in a stream, in pieces of any size.
type headRewriter struct {
	state headState
	host  bool   // this head has a Host line
	body  bool   // this head announces a body
	part  []byte // of a line whose end has not come yet; net/http's limit on heads bounds it
}

type headState uint8

const (
	betweenHeads headState = iota // empty lines are dropped here
	requestLine
	headerLine
	lastNewline // after the \r of the empty line that ends a head
	passing     // nothing of what follows is a head
)

// rewrite returns b with the missing lines. It works in b's own array where the capacity allows.
func (h *headRewriter) rewrite(b []byte) []byte {
	for i := 0; i < len(b); {
		switch h.state {
		case passing:
			return b

		case betweenHeads:
			end := i
			for end < len(b) && (b[end] == '\r' || b[end] == '\n') {
				end++
			}
			b = slices.Delete(b, i, end)
			if i < len(b) {
				h.state, h.host, h.body = requestLine, false, false
			}

		case lastNewline:
			if b[i] != '\n' {
				h.state = passing // a bare \r: net/http refuses the head
				return b
			}
			i++
			h.state = betweenHeads

		case headerLine:
			if len(h.part) == 0 && (b[i] == '\r' || b[i] == '\n') {
				b, i = h.endOfHead(b, i)
				continue
			}
			fallthrough

		default:
			n := bytes.IndexByte(b[i:], '\n')
			if n < 0 {
				h.part = append(h.part, b[i:]...)
				return b
			}
			line := b[i : i+n]
			if len(h.part) > 0 {
				h.part = append(h.part, line...)
				line, h.part = h.part, nil
			}
			if h.state == headerLine {
				h.header(line)
			}
			h.state = headerLine
			i += n + 1
		}
	}
	return b
}

// endOfHead inserts at b[i], the first byte of the empty line, and returns where to go on.
func (h *headRewriter) endOfHead(b []byte, i int) ([]byte, int) {
	insert := ""
	switch {
	case !h.host && h.body:
		insert = insertions
	case !h.host:
		insert = hostLine
	case h.body:
		insert = closeLine
	}
	if insert != "" {
		b = slices.Insert(b, i, []byte(insert)...)
		i += len(insert)
	}
	switch {
	case h.body:
		h.state = passing
	case b[i] == '\r':
		h.state = lastNewline
	default:
		h.state = betweenHeads
	}
	return b, i + 1
}

// header looks at one header line, without its newline.
func (h *headRewriter) header(line []byte) {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return
	}
	switch len(name) {
	case len("host"):
		h.host = h.host || bytes.EqualFold(name, []byte("host"))
	case len("content-length"):
		if bytes.EqualFold(name, []byte("content-length")) && string(bytes.TrimSpace(value)) != "0" {
			h.body = true
		}
	case len("transfer-encoding"):
		h.body = h.body || bytes.EqualFold(name, []byte("transfer-encoding"))
	}
}
