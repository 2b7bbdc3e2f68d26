package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// openPort opens one port at an address or host name of -B.
func openPort(bind string, port uint16) (net.Listener, error) {
	host := bind
	if bind == "::" {
		host = "" // IPv6 and IPv4; IPv4 alone on a machine without IPv6
	}
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	ln, err := openTCP(networkOf(bind), addr, port)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, fmt.Errorf("%w; -B wants an address of this machine", err)
	}
	if err != nil || bind == "" || isAddr(bind) {
		return ln, err
	}
	// Some resolvers return an unspecified address for a name that they block.
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: the name means every address (%s); -B wants 0.0.0.0 or :: for that", addr, tcp.IP)
	}
	return ln, nil
}

// openConfigured opens addr, an address of the configuration. Beacons use it directly: systemd cannot hand over
// their ports, because such a port is never closed.
func openConfigured(addr string) (net.Listener, error) {
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	ln, err := openTCP(networkOf(host), addr, port)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		err = fmt.Errorf("%w; this machine does not have the address (a socket unit with FreeBind=yes holds one that comes later)", err)
	}
	return ln, err
}

// networkOf returns the network of package net for a host to listen on. With "tcp", 0.0.0.0 would include IPv6.
func networkOf(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap() == netip.IPv4Unspecified() {
		return "tcp4"
	}
	return "tcp"
}

// splitPort splits an address of the configuration.
func splitPort(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, uint16(n), err
}

// openTCP opens addr, which has that port. Its error says what to do.
func openTCP(network, addr string, port uint16) (net.Listener, error) {
	// Keep-alive probes are off: they cost four system calls a connection to find what the server's idle timeout finds
	// without any. Multipath TCP, which Go offers by default, is off because no balancer uses it.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), network, addr)
	if err == nil {
		return ln, nil
	}
	// The message below names the action already.
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return nil, fmt.Errorf("listen on %s: %w%s", addr, err, listenHint(err, port))
}

// listenHint says what to do about an error of listen.
func listenHint(err error, port uint16) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("; is another hacheck running? (ss -ltnp 'sport = :%d' shows who has the port)", port)
	case errors.Is(err, syscall.EACCES) && port < 1024:
		return "; ports below 1024 are for root or who has CAP_NET_BIND_SERVICE"
	}
	return ""
}

// acceptLogInterval is the least time between two log lines about connections that cannot be accepted.
const acceptLogInterval = time.Minute

// acceptErrorLogger logs when a listener cannot accept connections, mostly because descriptors have run out. The
// server retries by itself. Until it succeeds every balancer takes all services of this host out.
type acceptErrorLogger struct {
	net.Listener
	log  *slog.Logger
	last time.Time // of the last line; only the server's accepting goroutine uses it
}

// Accept implements net.Listener.
func (l *acceptErrorLogger) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		if now := time.Now(); now.Sub(l.last) >= acceptLogInterval {
			l.last = now
			l.log.Error("cannot accept connections; trying again", "listen", l.Addr().String(), "err", err)
		}
	}
	return c, err
}
