package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"hacheck/internal/check/conn"
)

// maxUDPAddresses is how many addresses of a name are tried, one after the other, while they refuse the datagram.
const maxUDPAddresses = 8

// udpType is the check of a service over UDP that has one right answer to a datagram.
var udpType = Type{
	Name: "udp",
	Doc:  "a datagram is answered with the expected one",
	Options: []Option{
		hostOption,
		portOption(0),
		{Name: "send", Want: "a text", Required: true, Doc: "the datagram to send"},
		{Name: "expect", Want: "a text", Required: true, Doc: "the datagram that is the answer, from its first byte to its last"},
	},
	build: func(o *optionReader, _ Defaults) (*ConfiguredCheck, error) {
		host, port := o.host("host"), o.port("port", 0)
		send, expect := []byte(o.text("send", "")), []byte(o.text("expect", ""))
		step := stepAt("udp", host, port, func(x *exchange) Result { return x.askUDP(send, expect) })
		return &ConfiguredCheck{Name: step.Name, Steps: []Step{step}, Endpoint: Endpoint{"udp", host, port}}, nil
	},
}

// askUDP sends one datagram and waits for one. It sends no second one, so that callers who count failures see each of
// them. There are three results apart from the right answer: another answer; a refusal (ICMP says that nothing listens);
// and a timeout, after which the service may be down, may have ignored the datagram, or the network may have lost it.
func (x *exchange) askUDP(send, expect []byte) Result {
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
		r = x.askUDPAt(net.JoinHostPort(host, fmt.Sprint(x.t.Port)), send, expect)
		if r.Reason != ReasonRefused || i+1 == len(hosts) {
			break
		}
	}
	return r
}

func (x *exchange) askUDPAt(addr string, send, expect []byte) Result {
	// A connected socket: the kernel drops datagrams from other addresses and reports ICMP errors.
	socket, err := conn.Dial(x.ctx, "udp", addr)
	if err != nil {
		return x.networkError(err)
	}
	defer socket.Close()
	x.phase = phaseWait
	answer := make([]byte, max(len(expect)+1, 512)) // a longer answer is not the expected one
	_, err = socket.Write(send)
	n := 0
	if err == nil {
		n, err = socket.Read(answer)
	}
	answer = answer[:n]
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return result(503, ReasonRefused, err, "Nothing listens on UDP port %s (its machine refused the datagram)", x.addr())
	case errors.Is(err, syscall.EMSGSIZE):
		return result(500, ReasonConfig, err, "%d bytes to send are too many for a datagram", len(send))
	case err != nil && x.ctx.Err() == context.DeadlineExceeded:
		return result(503, ReasonTimeout, err, "No answer from %s over UDP after %s", x.addr(), x.after())
	case err != nil:
		return x.networkError(err)
	case !bytes.Equal(answer, expect):
		return x.serviceError(503, "%s answered, but not as expected: %q", x.addr(), excerpt(answer, 80))
	}
	return x.healthy("Answered as expected")
}
