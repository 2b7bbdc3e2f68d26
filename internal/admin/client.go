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
	askTimeout = 3 * time.Second // for the whole question, as in the original
	// homeTimeout is the same for the question which directory the daemon reads: every hadown waits for it.
	homeTimeout = time.Second
	maxHead     = 64 << 10 // bytes of status line and headers
	maxAnswer   = 64 << 20 // bytes of body: about half a million services
)

// daemon is where the daemon answers.
type daemon struct {
	host string
	port uint16
}

// defaultDaemon is where the daemon answers unless --port says otherwise.
var defaultDaemon = daemon{host: "127.0.0.1", port: 3333}

// none reports whether no daemon is to be asked: -p ”.
func (d daemon) none() bool { return d.port == 0 }

func (d daemon) String() string { return net.JoinHostPort(d.host, strconv.Itoa(int(d.port))) }

// parseDaemon reads [HOST:]N. An IPv6 host needs brackets: without them nobody could say where it ends.
func parseDaemon(s string) (daemon, error) {
	d := daemon{host: "127.0.0.1"}
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

// refusal is an answer that is not 200.
type refusal struct {
	code string
	line string // code and reason phrase
}

func (r *refusal) Error() string { return "it answers " + textfmt.OneLine(r.line) }

// get fetches one page. It is an HTTP/1.0 GET on a connection of its own, never through a proxy: the
// daemon is on this machine, and net/http would cost every hadown a millisecond it does not need.
func (d daemon) get(path string) ([]byte, error) { return d.getWithin(path, askTimeout) }

// getWithin is get for another time than askTimeout.
func (d daemon) getWithin(path string, timeout time.Duration) (_ []byte, err error) {
	defer func() {
		if slow := (&slowError{}); errors.As(err, &slow) {
			slow.within = timeout
		}
	}()
	deadline := time.Now().Add(timeout)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", d.String())
	if err != nil {
		return nil, cutShort(err)
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: hastatus\r\nAccept: application/json\r\n\r\n", path, d); err != nil {
		return nil, cutShort(err)
	}
	return readAnswer(conn)
}

var errNotHTTP = errors.New("the answer is not HTTP")

// readAnswer reads an HTTP/1.x answer to an HTTP/1.0 request: to the length it names, else to the end.
func readAnswer(r io.Reader) ([]byte, error) {
	head := bufio.NewReader(io.LimitReader(r, maxHead))
	line, err := head.ReadString('\n')
	if err != nil {
		return nil, cutShort(err)
	}
	proto, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	code, _, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(proto, "HTTP/1.") {
		return nil, errNotHTTP
	}
	length := int64(-1)
	for {
		line, err := head.ReadString('\n')
		if err != nil {
			return nil, cutShort(err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		name, value, found := strings.Cut(line, ":")
		if !found {
			return nil, errNotHTTP
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			n, err := strconv.ParseUint(value, 10, 62)
			if err != nil {
				return nil, errNotHTTP
			}
			length = int64(n)
		case "transfer-encoding":
			return nil, fmt.Errorf("it answers HTTP/1.0 with Transfer-Encoding: %s", textfmt.OneLine(value))
		}
	}
	if code != "200" {
		return nil, &refusal{code, rest}
	}
	if length > maxAnswer {
		return nil, fmt.Errorf("its answer of %d bytes is too long", length)
	}
	// What the limited reader has buffered beyond the head, then the rest of the connection.
	ahead, _ := head.Peek(head.Buffered())
	body := io.MultiReader(bytes.NewReader(ahead), r)
	limit := length
	if length < 0 {
		limit = maxAnswer + 1
	}
	all, err := io.ReadAll(io.LimitReader(body, limit))
	switch {
	case err != nil:
		return nil, cutShort(err)
	case int64(len(all)) < length:
		return nil, cutShort(io.ErrUnexpectedEOF)
	case len(all) > maxAnswer:
		return nil, fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	}
	return all, nil
}

// slowError is an answer that did not arrive in time.
type slowError struct{ within time.Duration }

func (e *slowError) Error() string { return fmt.Sprintf("no whole answer within %v", e.within) }

// cutShort says in words why an answer did not arrive in full.
func cutShort(err error) error {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return &slowError{askTimeout}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it closed the connection before its answer was complete")
	case errors.As(err, &op):
		return op.Err // the rest of it is the address, which the message has already
	}
	return err
}

// unreachable is what to say when the daemon could not be asked.
func (c *command) unreachable(err error) string {
	if errors.Is(err, errNoDaemon) {
		return "no daemon was asked, as -p '' says"
	}
	return fmt.Sprintf("the daemon on %s cannot be asked: %s; is hacheck running? If it listens elsewhere, say where with -p [HOST:]PORT",
		c.opt.daemon, textfmt.OneLine(err.Error()))
}
