package admin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/textfmt"
)

const (
	requestTimeout = 3 * time.Second // for connection, request and answer, as in the original tools
	// directoryTimeout is shorter, because every hadown waits for this request.
	directoryTimeout = time.Second
	maxHead          = 64 << 10 // bytes of status line and headers
	maxAnswer        = 64 << 20 // bytes of body: about half a million services
)

// daemonAddr is the address of the daemon. The zero value means that no daemon is asked.
type daemonAddr struct {
	host string
	port uint16
}

// defaultDaemon is the address of the daemon without --port.
var defaultDaemon = daemonAddr{host: "127.0.0.1", port: 3333}

// isNone reports whether no daemon is asked, because the value of -p is empty.
func (d daemonAddr) isNone() bool { return d.port == 0 }

func (d daemonAddr) String() string { return net.JoinHostPort(d.host, strconv.Itoa(int(d.port))) }

// parseDaemon reads [HOST:]N. An IPv6 host needs brackets.
func parseDaemon(s string) (daemonAddr, error) {
	d := daemonAddr{host: "127.0.0.1"}
	number := s
	if strings.Contains(s, ":") {
		var err error
		if d.host, number, err = net.SplitHostPort(s); err != nil {
			return d, errors.New("want [HOST:]PORT, an IPv6 host in brackets")
		}
		if d.host == "" {
			d.host = "127.0.0.1"
		}
		if strings.ContainsFunc(d.host, func(r rune) bool { return r <= ' ' || r == '/' || r == '@' || r == 0x7f }) {
			return d, errors.New("want [HOST:]PORT, where HOST is a name or an address")
		}
	}
	var err error
	d.port, err = parsePort(number)
	return d, err
}

// statusError is an HTTP answer other than 200.
type statusError struct {
	code string
	line string // code and reason phrase
}

func (r *statusError) Error() string { return "it answers " + textfmt.OneLine(r.line) }

// get fetches one page with an HTTP/1.0 GET on a new connection. It never uses a proxy, because the daemon is on this
// machine. It does without net/http, which would add a millisecond to the start of every hadown.
func (d daemonAddr) get(path string) ([]byte, error) { return d.getWithTimeout(path, requestTimeout) }

// getWithTimeout is get with another timeout than requestTimeout.
func (d daemonAddr) getWithTimeout(path string, timeout time.Duration) (_ []byte, err error) {
	defer func() {
		if slow := (&timeoutError{}); errors.As(err, &slow) {
			slow.within = timeout
		}
	}()
	deadline := time.Now().Add(timeout)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", d.String())
	if err != nil {
		return nil, explainReadError(err)
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: hastatus\r\nAccept: application/json\r\n\r\n", path, d); err != nil {
		return nil, explainReadError(err)
	}
	return readAnswer(conn)
}

var errNotHTTP = errors.New("the answer is not HTTP")

// readHead reads the status line and the headers of an HTTP/1.x answer. status is the code and the reason phrase, length
// the Content-Length, -1 without one.
func readHead(r *bufio.Reader) (status string, length int64, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", 0, explainReadError(err)
	}
	proto, status, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	if !strings.HasPrefix(proto, "HTTP/1.") {
		return "", 0, errNotHTTP
	}
	length = -1
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", 0, explainReadError(err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return status, length, nil
		}
		name, value, found := strings.Cut(line, ":")
		if !found {
			return "", 0, errNotHTTP
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			n, err := strconv.ParseUint(value, 10, 62)
			if err != nil {
				return "", 0, errNotHTTP
			}
			length = int64(n)
		case "transfer-encoding":
			return "", 0, fmt.Errorf("it answers HTTP/1.0 with Transfer-Encoding: %s", textfmt.OneLine(value))
		}
	}
}

// readAnswer reads an HTTP/1.x answer to an HTTP/1.0 request: up to its Content-Length, else to the end.
func readAnswer(r io.Reader) ([]byte, error) {
	head := bufio.NewReader(io.LimitReader(r, maxHead))
	status, length, err := readHead(head)
	if err != nil {
		return nil, err
	}
	if code, _, _ := strings.Cut(status, " "); code != "200" {
		return nil, &statusError{code, status}
	}
	if length > maxAnswer {
		return nil, fmt.Errorf("its answer of %d bytes is too long", length)
	}
	// The body is what the limited reader has buffered beyond the head, then the rest of the connection.
	ahead, _ := head.Peek(head.Buffered())
	body := io.MultiReader(bytes.NewReader(ahead), r)
	limit := length
	if length < 0 {
		limit = maxAnswer + 1
	}
	all, err := io.ReadAll(io.LimitReader(body, limit))
	switch {
	case err != nil:
		return nil, explainReadError(err)
	case int64(len(all)) < length:
		return nil, explainReadError(io.ErrUnexpectedEOF)
	case len(all) > maxAnswer:
		return nil, fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	}
	return all, nil
}

// timeoutError says that the answer did not arrive in time.
type timeoutError struct{ within time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("no whole answer within %v", e.within) }

// explainReadError returns an error that says why an answer is incomplete.
func explainReadError(err error) error {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return &timeoutError{requestTimeout}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it closed the connection before its answer was complete")
	case errors.As(err, &op):
		return op.Err // without the address, which the message has already
	}
	return err
}

// unreachableText says why the daemon could not be asked and what the operator can do.
func (c *command) unreachableText(err error) string {
	if errors.Is(err, errNoDaemon) {
		return "no daemon was asked, because of -p ''"
	}
	return fmt.Sprintf("the daemon on %s cannot be asked: %s; is hacheck running? If it listens elsewhere, say where with -p [HOST:]PORT",
		c.opt.daemon, textfmt.OneLine(err.Error()))
}
