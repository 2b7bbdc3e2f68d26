package check

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// maxSMTPLine is the longest line of a reply, in bytes. RFC 5321 (4.5.3.1.5) allows 512.
	maxSMTPLine = 2 << 10
	// maxSMTPReply is the longest reply, in bytes. The number of its lines is not limited.
	maxSMTPReply = 1 << 20
)

// checkSMTP passes when the server greets with 2xx and answers QUIT with 221 (RFC 5321).
func checkSMTP(ctx context.Context, t Target) Result {
	return ask(ctx, t, func(x *exchange) Result {
		limited := &io.LimitedReader{R: x.conn, N: maxSMTPReply}
		reader := bufio.NewReaderSize(limited, maxSMTPLine)

		x.phase = "waiting for the greeting of"
		line, r, ok := x.readSMTPReply(reader, limited, nil)
		if !ok {
			return r
		}
		greeting := string(line)
		connected := time.Since(x.start)
		// It sends QUIT also after an error, so that the server does not log a lost connection.
		err := x.send([]byte("QUIT\r\n"))
		if greeting[0] != '2' {
			return x.serviceError(503, "%s greets with %q", x.addr(), excerpt(greeting, 200))
		}
		if err != nil {
			return x.networkError(err)
		}

		x.phase = "waiting for the answer to QUIT of"
		limited.N = maxSMTPReply
		line, r, ok = x.readSMTPReply(reader, limited, nil)
		if !ok {
			return r
		}
		if !bytes.HasPrefix(line, []byte("221")) {
			return x.serviceError(503, "%s answers QUIT with %q", x.addr(), excerpt(line, 200))
		}
		return Result{Code: 200, Body: fmt.Appendf(nil, "Connected in %.2fs", connected.Seconds())}
	})
}

// readSMTPReply reads one reply of one or more lines. It returns its last line, which begins with three digits and is
// valid until the next read. It calls each, unless nil, with the text of every line. On failure the bool is false and
// the result says why.
func (x *exchange) readSMTPReply(r *bufio.Reader, limited *io.LimitedReader, each func(text string)) ([]byte, Result, bool) {
	var code [3]byte
	for first := true; ; first = false {
		// The first byte identifies a server of another protocol, which may never complete a line.
		start, err := r.Peek(1)
		if err == nil && !isDigit(start[0]) {
			start, _ = r.Peek(r.Buffered())
			return nil, x.notSMTP(start), false
		}
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, x.protocolError("The answer of %s is not SMTP: a line of more than %d bytes", x.addr(), maxSMTPLine), false
		case err != nil && limited.N <= 0:
			return nil, x.protocolError("The answer of %s has more than %d bytes", x.addr(), maxSMTPReply), false
		case err != nil:
			return nil, x.networkError(err), false
		}
		line = bytes.TrimRight(line, "\r\n")
		if !isSMTPReplyLine(line) || !first && !bytes.HasPrefix(line, code[:]) {
			return nil, x.notSMTP(line), false
		}
		copy(code[:], line)
		if each != nil {
			each(string(line[min(4, len(line)):]))
		}
		if len(line) == 3 || line[3] == ' ' {
			return line, Result{}, true
		}
	}
}

// notSMTP returns the result for an answer that is not SMTP.
func (x *exchange) notSMTP(line []byte) Result {
	if x.phase == phaseLogin {
		return x.protocolError("The answer of %s is not SMTP", x.addr()) // the server may repeat the password
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	return x.protocolError("The answer of %s is not SMTP: %q", x.addr(), excerpt(line, 80))
}

// isSMTPReplyLine reports whether line is three digits and then the end, a space, or a hyphen if more lines follow.
func isSMTPReplyLine(line []byte) bool {
	return len(line) >= 3 && '2' <= line[0] && line[0] <= '5' && isDigit(line[1]) && isDigit(line[2]) &&
		(len(line) == 3 || line[3] == ' ' || line[3] == '-')
}
