package check

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"hacheck/internal/check/conn"
)

// maxUDPAddresses is how many addresses of a name are tried, one after the other, while they refuse the datagram.
const maxUDPAddresses = 8

// udpType is the check of a service over UDP that has one right answer to a datagram.
var udpType = Type{
	Name:  "udp",
	Doc:   "a datagram is answered with the expected one",
	usual: []string{"send", "expect"},
	Options: []Option{
		hostOption,
		portOption(0),
		{Name: "send", Want: "a text", Doc: "the datagram to send; this option or send_hex is required"},
		{Name: "send_hex", Want: "bytes in hexadecimal, with or without spaces", Doc: "the datagram to send, for protocols that are no text"},
		{Name: "expect", Want: "a text", Doc: "the datagram that is the answer, from its first byte to its last; one of the three is required"},
		{Name: "expect_hex", Want: "bytes in hexadecimal, with or without spaces", Doc: "the answer, for protocols that are no text"},
		{Name: "expect_prefix", Want: "a text, or true", Doc: "what the answer begins with; true: the answer may go on after expect or expect_hex"},
	},
	build: func(o *optionReader, _ Defaults) (*ConfiguredCheck, error) {
		host, port := o.host("host"), o.port("port", 0)
		q := o.datagrams()
		step := stepAt("udp", host, port, func(x *exchange) Result { return x.askUDP(q) })
		return &ConfiguredCheck{Name: step.Name, Steps: []Step{step}, Endpoint: Endpoint{"udp", host, port}}, nil
	},
}

// datagrams are a question and its answer.
type datagrams struct {
	send, expect []byte
	prefix       bool // the answer only begins with expect
}

// matches reports whether an answer is the expected one.
func (q datagrams) matches(answer []byte) bool {
	return bytes.Equal(answer, q.expect) || q.prefix && bytes.HasPrefix(answer, q.expect)
}

// datagrams reads the options of udpType that say what is sent and expected.
func (o *optionReader) datagrams() (q datagrams) {
	q.send = o.oneOf("send", "send_hex")
	if more, ok := o.spec.Options["expect_prefix"].(bool); ok {
		q.prefix = more
		q.expect = o.oneOf("expect", "expect_hex")
	} else {
		q.prefix = o.isSet("expect_prefix")
		q.expect = o.oneOf("expect", "expect_hex", "expect_prefix")
	}
	if q.prefix && len(q.expect) == 0 {
		o.addError("expect_prefix", "expected at least one byte that an answer begins with")
	}
	return q
}

// oneOf returns the bytes of the one option that is given, of several that exclude each other. An empty text is an empty
// datagram.
func (o *optionReader) oneOf(names ...string) (value []byte) {
	given := 0
	for _, name := range names {
		if !o.isSet(name) {
			continue
		}
		given++
		text := o.text(name, "")
		if value = []byte(text); strings.HasSuffix(name, "_hex") {
			var err error
			if value, err = hex.DecodeString(strings.Join(strings.Fields(text), "")); err != nil {
				o.addValueError(name, text)
			}
		}
	}
	switch {
	case given == 0:
		o.addError(names[0], "is required, or "+strings.Join(names[1:], " or "))
	case given > 1:
		o.addError(names[0], "expected only one of "+strings.Join(names, ", "))
	}
	return value
}

// askUDP sends one datagram and waits for one. It sends no second one, so that callers who count failures see each of
// them. There are three results apart from the right answer: another answer; a refusal (ICMP says that nothing listens);
// and a timeout, after which the service may be down, may have ignored the datagram, or the network may have lost it.
func (x *exchange) askUDP(q datagrams) Result {
	if err := x.ctx.Err(); err != nil {
		return x.networkError(err)
	}
	hosts := []string{x.t.Host}
	if _, err := netip.ParseAddr(x.t.Host); err != nil {
		// The service may listen on only one of the addresses of a name ("localhost"). net.Dialer tries the next one for
		// TCP only.
		hosts, err = net.DefaultResolver.LookupHost(x.ctx, x.t.Host)
		if err != nil {
			return x.networkError(err)
		}
	}
	var r Result
	for i, host := range hosts[:min(len(hosts), maxUDPAddresses)] {
		r = x.askUDPAt(net.JoinHostPort(host, fmt.Sprint(x.t.Port)), q)
		if r.Reason != ReasonRefused || i+1 == len(hosts) {
			break
		}
	}
	return r
}

func (x *exchange) askUDPAt(addr string, q datagrams) Result {
	// A connected socket: the kernel drops datagrams from other addresses and reports ICMP errors.
	socket, err := conn.Dial(x.ctx, "udp", addr)
	if err != nil {
		return x.networkError(err)
	}
	defer func() { _ = socket.Close() }()
	x.phase = phaseWait
	answer := make([]byte, max(len(q.expect)+1, 512)) // a longer answer is not the expected one, or only its beginning counts
	_, err = socket.Write(q.send)
	n := 0
	if err == nil {
		n, err = socket.Read(answer)
	}
	answer = answer[:n]
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return result(503, ReasonRefused, err, "Nothing listens on UDP port %s (its machine refused the datagram)", x.addr())
	case errors.Is(err, syscall.EMSGSIZE):
		return result(500, ReasonConfig, err, "%d bytes to send are too many for a datagram", len(q.send))
	case err != nil && x.ctx.Err() == context.DeadlineExceeded:
		return result(503, ReasonTimeout, err, "No answer from %s over UDP after %s", x.addr(), x.after())
	case err != nil:
		return x.networkError(err)
	case !q.matches(answer):
		return x.serviceError(503, "%s answered, but not as expected: %q", x.addr(), excerpt(answer, 80))
	}
	return x.healthy("Answered as expected")
}
