package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// listen opens one port.
func listen(ctx context.Context, bind string, port uint16) (net.Listener, error) {
	// No keep-alive probes: they would cost four system calls a connection to find what the server's idle
	// timeout finds without any. No Multipath TCP either, which Go offers by default and no balancer asks for.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	network, host := "tcp", bind
	switch bind {
	case "0.0.0.0":
		network = "tcp4" // "tcp" would answer on IPv6 too
	case "::":
		host = "" // IPv6 and IPv4; IPv4 alone on a machine that knows no other
	}
	ln, err := lc.Listen(ctx, network, net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err == nil {
		return ln, nil
	}
	// The error itself names what was done and the system call.
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return nil, fmt.Errorf("listen on %s: %w%s", net.JoinHostPort(bind, strconv.Itoa(int(port))), err, hint(err, port))
}

// hint says what to do about an error of listen.
func hint(err error, port uint16) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("; is another hacheck running? (ss -ltnp 'sport = :%d' shows who has the port)", port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; -B wants an address of this machine"
	case errors.Is(err, syscall.EACCES) && port < 1024:
		return "; ports below 1024 are for root or who has CAP_NET_BIND_SERVICE"
	}
	return ""
}

// acceptEvery is how often at most the log says that no connection can be accepted.
const acceptEvery = time.Minute

// acceptLog tells the log when connections cannot be accepted, for want of descriptors above all. The
// server tries again by itself, and until it succeeds every balancer takes all of this host out: this
// must not pass in silence.
type acceptLog struct {
	net.Listener
	log  *slog.Logger
	last time.Time // only the server's one accepting goroutine uses it
}

// Accept implements net.Listener.
func (l *acceptLog) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		if now := time.Now(); now.Sub(l.last) >= acceptEvery {
			l.last = now
			l.log.Error("cannot accept connections; trying again", "listen", l.Addr().String(), "err", err)
		}
	}
	return c, err
}
