package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// RESP is the protocol of Redis (https://redis.io/docs/latest/develop/reference/protocol-spec/). This file has all of it
// that a check uses, one page. A Redis library adds a pool, retries, CLIENT SETINFO and goroutines to a connection for
// two or three commands, and decides by itself when to log in.

const (
	// maxRedisLine is the longest line of an answer, in bytes: a status, an error or a length.
	maxRedisLine = 4 << 10
	// maxRedisBulk is the longest reply that is read, in bytes. A real INFO has about 7,000, CLUSTER NODES about 150 for
	// each node.
	maxRedisBulk = 512 << 10
	// maxRedisDepth is how deep arrays may be nested.
	maxRedisDepth = 8
)

// The kinds of replies that a command may have.
const (
	plainRedisReply = "+-$"
	anyRedisReply   = "+-$:*"
)

// redisReply is a status (+), an error (-), a bulk string ($), a number (:) or an array (*).
type redisReply struct {
	kind byte
	text []byte // of an array: one line for each element
	null bool   // a bulk string or an array that is not there
	// hasError: one of the elements of an array is an error, as a script or a transaction returns it.
	hasError bool
}

// has reports whether the reply, or a whole line of a reply of several lines, is text.
func (r redisReply) has(text string) bool {
	if r.null {
		return false
	}
	if string(r.text) == text {
		return true
	}
	for line := range bytes.Lines(r.text) {
		if string(bytes.TrimRight(line, "\r\n")) == text {
			return true
		}
	}
	return false
}

// requiresLogin reports whether r says that the server requires a login: NOAUTH, or ERR before Redis 2.8.
func (r redisReply) requiresLogin() bool {
	return r.kind == '-' && (bytes.HasPrefix(r.text, []byte("NOAUTH")) || bytes.HasPrefix(r.text, []byte("ERR operation not permitted")))
}

// errorKind returns the first word of an error if it is a known one.
func (r redisReply) errorKind() string {
	kind, _, _ := strings.Cut(string(r.text), " ")
	switch kind {
	case "ERR", "NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "LOADING", "BUSY", "MISCONF", "MASTERDOWN", "READONLY":
		return kind
	}
	return "an unknown error"
}

// redisCommand sends a command and reads the reply, which has to be of one of these kinds. On failure the bool is false
// and the result says why.
func (x *exchange) redisCommand(r *bufio.Reader, kinds string, command ...string) (redisReply, Result, bool) {
	request := fmt.Appendf(nil, "*%d\r\n", len(command))
	for _, arg := range command {
		request = fmt.Appendf(request, "$%d\r\n%s\r\n", len(arg), arg)
	}
	x.phase = phaseWait
	if err := x.send(request); err != nil {
		return redisReply{}, x.networkError(err), false
	}
	start, err := r.Peek(1)
	if err != nil {
		return redisReply{}, x.networkError(err), false
	}
	x.phase = phaseRead
	if strings.IndexByte(kinds, start[0]) < 0 {
		if command[0] != "PING" && command[0] != "INFO" {
			// The server may repeat the password.
			return redisReply{}, x.protocolError("Sent %s, got back something that is not Redis from %s", excerpt(command[0], 40), x.addr()), false
		}
		start, _ = r.Peek(r.Buffered())
		line, _, _ := bytes.Cut(start, []byte("\n"))
		return redisReply{}, x.protocolError("Sent %s, got back %q from %s", command[0], excerpt(line, 80), x.addr()), false
	}
	reply := respReader{r: r, nulls: kinds == anyRedisReply, left: maxRedisBulk}
	kind, err := reply.read(0)
	var wrong malformedError
	switch {
	case errors.As(err, &wrong):
		return redisReply{}, x.protocolError("The answer of %s %s", x.addr(), wrong), false
	case err != nil:
		return redisReply{}, x.networkError(err), false
	}
	return redisReply{kind, reply.text.Bytes(), reply.null, reply.hasError}, Result{}, true
}

// respReader reads one reply.
type respReader struct {
	r     *bufio.Reader
	text  bytes.Buffer
	nulls bool // a value may be absent
	null  bool // it is
	left  int  // bytes and elements that may still come

	hasError bool // an error was read
}

// read reads a value and returns its kind. Memory is allocated as the bytes arrive, because the server may claim any
// length.
func (p *respReader) read(depth int) (kind byte, err error) {
	line, err := p.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return 0, malformed("has a line of more than %d bytes", maxRedisLine)
	case err != nil:
		return 0, err
	}
	kind, line = line[0], bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) == 0 || strings.IndexByte(anyRedisReply, kind) < 0 {
		return 0, malformed("has an element that is not Redis's")
	}
	line = line[1:]
	if p.left -= 1 + len(line); p.left < 0 {
		return 0, malformed("is longer than %d bytes", maxRedisBulk)
	}
	if kind != '$' && kind != '*' {
		p.hasError = p.hasError || kind == '-'
		p.text.Write(line)
		return kind, nil
	}
	size, err := strconv.Atoi(string(line))
	if size == -1 && err == nil && p.nulls {
		p.null = depth == 0
		return kind, nil
	}
	if err != nil || size < 0 || size > p.left {
		return 0, malformed("has an impossible length")
	}
	if kind == '*' {
		return kind, p.readElements(depth, size)
	}
	p.left -= size
	if _, err := io.CopyN(&p.text, p.r, int64(size)); err != nil {
		return 0, err
	}
	end := make([]byte, 2)
	if _, err := io.ReadFull(p.r, end); err != nil {
		return 0, err
	}
	if string(end) != "\r\n" {
		return 0, malformed("is longer than it says")
	}
	return kind, nil
}

func (p *respReader) readElements(depth, n int) error {
	if depth == maxRedisDepth {
		return malformed("has arrays in arrays, more than %d deep", maxRedisDepth)
	}
	for i := range n {
		if i > 0 {
			p.text.WriteByte('\n')
		}
		if _, err := p.read(depth + 1); err != nil {
			return err
		}
	}
	return nil
}
