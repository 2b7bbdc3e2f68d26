package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// maxUDPAddresses is how many addresses of a name are tried while nothing listens at the ones before.
const maxUDPAddresses = 8

// udpType is the check of a service over UDP by a question to which it has one answer.
var udpType = Type{
	Name: "udp",
	Doc:  "a datagram is answered with the expected one",
	Options: []Option{
		hostOption,
		portOption(0),
		{Name: "send", Want: "a text", Required: true, Doc: "the datagram to send"},
		{Name: "expect", Want: "a text", Required: true, Doc: "the datagram that is the answer, from its first byte to its last"},
	},
	build: func(o *values, _ Defaults) (*Configured, error) {
		host, port := o.host("host"), o.port("port", 0)
		send, expect := []byte(o.text("send", "")), []byte(o.text("expect", ""))
		name := "udp:" + hostPort(host, port)
		return &Configured{
			Name: name,
			Steps: []Step{{Name: name, Info: hostPort(host, port), Run: func(ctx context.Context, t Target) Result {
				t.Protocol, t.Host, t.Port = "udp", host, port
				return askUDP(ctx, t, send, expect)
			}}},
			Endpoint: Endpoint{"udp", host, port},
		}, nil
	},
}

// askUDP sends one datagram and waits for one. There are three verdicts beside the right answer, and they
// are kept apart: another answer, nothing there (the kernel of the other side said so by ICMP), and
// silence, from which nobody can tell a service that is gone from one that did not like the question, or a
// datagram lost on the way. It is sent once: whoever counts failures should see every one of them.
func askUDP(ctx context.Context, t Target, send, expect []byte) Result {
	x := &exchange{ctx: ctx, t: t, start: time.Now(), phase: phaseConnect}
	r := x.askUDP(send, expect)
	r.Took = time.Since(x.start)
	return r
}

func (x *exchange) askUDP(send, expect []byte) Result {
	if err := x.ctx.Err(); err != nil {
		return x.fail(err)
	}
	hosts := []string{x.t.Host}
	if _, err := netip.ParseAddr(x.t.Host); err != nil {
		// A name may have an address of a family in which the service does not listen ("localhost"). TCP tries
		// the next one by itself.
		hosts, err = net.DefaultResolver.LookupHost(x.ctx, x.t.Host)
		if err != nil {
			return x.fail(err)
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
	// A connected socket: the kernel takes answers from nobody else, and passes on what ICMP says.
	conn, err := dialer.DialContext(x.ctx, "udp", addr)
	if err != nil {
		return x.fail(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(x.ctx, func() { _ = conn.SetDeadline(longAgo) })
	defer stop()
	x.phase = phaseWait
	answer := make([]byte, max(len(expect)+1, 512)) // what does not fit is not what is expected
	_, err = conn.Write(send)
	n := 0
	if err == nil {
		n, err = conn.Read(answer)
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
		return x.fail(err)
	case !bytes.Equal(answer, expect):
		return x.failed(503, "%s answered, but not as expected: %q", x.addr(), oneLine(answer, 80))
	}
	return Result{Code: 200, Body: fmt.Appendf(nil, "Answered as expected in %.2fs", time.Since(x.start).Seconds())}
}
