package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"hacheck/internal/check/conn"
	"hacheck/internal/textfmt"
)

// exchange is one conversation with a service over a connection of its own. It records its phase, so that a failure
// can say in which phase it happened and after how long.
type exchange struct {
	ctx    context.Context
	t      Target
	socket string     // path of a Unix socket to connect to instead of the target's host and port
	raw    *conn.Conn // the connection; nil before connect
	conn   net.Conn   // raw, or TLS over it
	start  time.Time
	phase  string

	serverName string // for TLS, if the options name none; "": the host
	preamble   string // sent as soon as the connection is open
}

// The phases that several protocols have, in words that go before "<host>:<port>".
const (
	phaseConnect = "connecting to"
	phaseWait    = "waiting for an answer from"
	phaseRead    = "reading the answer of"
)

func newExchange(ctx context.Context, t Target) *exchange {
	return &exchange{ctx: ctx, t: t, start: time.Now(), phase: phaseConnect}
}

// ask connects to t, calls talk to speak with the service, and closes the connection. When ctx ends, every read and
// write of talk fails at once; x.networkError then turns the error into a result.
func ask(ctx context.Context, t Target, talk func(x *exchange) Result) Result {
	return withDuration(func() (r Result) {
		x := newExchange(ctx, t)
		defer func() { x.close(r) }()
		if r, ok := x.connect(); !ok {
			return r
		}
		return talk(x)
	})
}

// connect opens the connection, unless it is open. If it cannot, it returns a Result that says why, and false.
func (x *exchange) connect() (Result, bool) {
	if x.raw != nil {
		return Result{}, true
	}
	network := "tcp"
	if x.socket != "" {
		network = "unix"
	}
	x.phase = phaseConnect
	opened, err := conn.Dial(x.ctx, network, x.addr())
	if err != nil {
		return x.networkError(err), false
	}
	x.raw, x.conn = opened, opened
	if x.preamble != "" {
		_, _ = io.WriteString(opened, x.preamble) // if it fails, the next read or write does too
	}
	return Result{}, true
}

// close closes the connection, if there is one. After a success it ends TLS with a close_notify, without which services
// log a truncated connection.
func (x *exchange) close(last Result) {
	if x.raw == nil {
		return
	}
	if secure, ok := x.conn.(*tls.Conn); ok && last.Reason == ReasonAnswered {
		_ = secure.CloseWrite()
	}
	_ = x.raw.Close()
	x.raw, x.conn = nil, nil
}

// addr returns the target's address as it is dialled and shown, with IPv6 in brackets.
func (x *exchange) addr() string {
	if x.socket != "" {
		return x.socket
	}
	return net.JoinHostPort(x.t.Host, strconv.Itoa(int(x.t.Port)))
}

// after returns how long the check has run, "2.00s".
func (x *exchange) after() string { return fmt.Sprintf("%.2fs", time.Since(x.start).Seconds()) }

// result returns a result with a text of hacheck's own. The log shows the same text. err is its cause.
func result(code int, reason Reason, err error, format string, args ...any) Result {
	text := fmt.Sprintf(format, args...)
	return Result{Code: code, Reason: reason, Err: &failure{text, err}, Body: []byte(text)}
}

// failure is the error of a failed check. Its text is the one that clients get.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }

// Unwrap returns the cause of the failure.
func (f *failure) Unwrap() error { return f.cause }

// protocolError returns the result for an answer that violates the protocol.
func (x *exchange) protocolError(format string, args ...any) Result {
	text := fmt.Sprintf(format, args...)
	return result(503, ReasonProtocol, errors.New(text), "%s", text)
}

// serviceError returns the result for an answer in the protocol that reports a failure.
func (x *exchange) serviceError(code int, format string, args ...any) Result {
	text := fmt.Sprintf(format, args...)
	return result(code, ReasonFailed, errors.New(text), "%s", text)
}

// networkError returns the result for an error of the network: 503 and one line with the error and the address. After a
// timeout or a cancellation the line also has the time and the phase.
func (x *exchange) networkError(err error) Result {
	where := x.addr()
	err = fmt.Errorf("%s %s: %w", x.phase, where, err)
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case x.ctx.Err() == context.Canceled:
		return result(503, ReasonCancelled, err, "Check cancelled after %s (%s %s)", x.after(), x.phase, where)
	case x.ctx.Err() != nil:
		return result(503, ReasonTimeout, err, "Connection timed out after %s (%s %s)", x.after(), x.phase, where)
	case errors.As(err, &dns):
		return result(503, ReasonResolve, err, "Cannot resolve %s: %s", excerpt(x.t.Host, 255), excerpt(dns.Err, 200))
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return result(503, ReasonTimeout, err, "Connection timed out after %s (%s %s)", x.after(), x.phase, where)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return result(503, ReasonBusy, err, "hacheck is out of file descriptors (see rlimit_nofile), %s was not asked", where)
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EADDRNOTAVAIL):
		return result(503, ReasonBusy, err, "This machine cannot connect to %s now: %s", where, causeText(err))
	case errors.Is(err, syscall.ECONNREFUSED):
		return result(503, ReasonRefused, err, "Connection refused by %s", where)
	case x.phase == phaseConnect:
		return result(503, ReasonRefused, err, "Cannot connect to %s: %s", where, causeText(err))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return result(503, ReasonProtocol, err, "Connection closed early (%s %s)", x.phase, where)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return result(503, ReasonProtocol, err, "Connection reset (%s %s)", x.phase, where)
	}
	return result(503, ReasonProtocol, err, "Connection failed (%s %s): %s", x.phase, where, causeText(err))
}

// causeText returns the system's text for err ("no route to host"), or that of TLS, without the prefixes of Go's
// packages.
func causeText(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // crypto/tls wraps alerts in one
	}
	return excerpt(err.Error(), 200)
}

// isNetwork reports whether err is an error of the connection, and not of what was received.
func isNetwork(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &timeout)
}

// excerpt returns a text of a server as one harmless line of up to limit bytes.
func excerpt[T string | []byte](s T, limit int) string { return textfmt.Excerpt(s, limit) }

// healthy returns the result of a check that has passed: "Logged in and quit in 0.01s".
func (x *exchange) healthy(what string) Result {
	return Result{Code: 200, Body: []byte(what + " in " + x.after())}
}

// serverError is an error that a server replies with.
type serverError struct {
	code string // with its protocol, "MySQL error 1045"
	text string // the server's own text
}

func (e serverError) Error() string { return e.code + ": " + e.text }

// malformedError says what is wrong with an answer. It contains at most a few words of the server.
type malformedError string

func (e malformedError) Error() string { return string(e) }

// malformed returns a malformedError with a formatted text.
func malformed(format string, args ...any) error {
	return malformedError(fmt.Sprintf(format, args...))
}

// send writes p. It ignores errors of the network, because the server may have sent an answer before it closed the
// connection. It returns an error if the context has ended.
func (x *exchange) send(p []byte) error {
	if _, err := x.conn.Write(p); err != nil && x.ctx.Err() != nil {
		return err
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
