package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hacheck/internal/systemd"
)

// inherited are the sockets that the service manager handed over, and which of them are in use. A door
// takes the one on its port instead of opening its own: connections wait in it while no daemon runs, so
// that a restart refuses no check. A socket is never used for fewer addresses than it listens on.
type inherited struct {
	sockets []*systemd.Socket
	bind    string // the address of -B if the command line has one, "" otherwise

	mu    sync.Mutex
	taken []*systemd.Socket
}

// forHTTP are the names of sockets that are for the HTTP door whatever their port: of hacheck.socket, by
// that name, and without any, as systemd-socket-activate hands them over.
var forHTTP = []string{"http", "hacheck.socket", "unknown"}

// http opens the ports of the HTTP door. Handed over sockets with one of these ports or a name in forHTTP
// are used, which is an error if -B was given and names other addresses; a port that has none is opened. The default port is not opened beside other sockets: a socket
// unit that was changed to another port means that port.
func (in *inherited) http(bind string, ports []uint16) ([]net.Listener, error) {
	var listeners []net.Listener
	have := map[uint16]bool{}
	for _, s := range in.sockets {
		port := portOf(s)
		if !slices.Contains(ports, port) && !slices.Contains(forHTTP, s.Name) {
			continue
		}
		if !covers(in.bind, s) {
			return nil, disagree(s, "-B", in.bind)
		}
		ln, err := in.take(s)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
		have[port] = true
	}
	if len(listeners) > 0 && slices.Equal(ports, []uint16{defaultPort}) {
		return listeners, nil
	}
	for _, port := range ports {
		if port != 0 && have[port] {
			continue
		}
		ln, err := listen(context.Background(), bind, port)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

// listen is the function listen, unless a socket was handed over for the port.
func (in *inherited) listen(ctx context.Context, bind string, port uint16) (net.Listener, error) {
	switch s, err := in.on(in.bind, port); {
	case err != nil:
		return nil, disagree(s, "-B", in.bind)
	case s != nil:
		return in.take(s)
	}
	return listen(ctx, bind, port)
}

// listenAt is net.Listen for an address of the configuration, unless a socket was handed over for it.
func (in *inherited) listenAt(addr string) (net.Listener, error) {
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	switch s, err := in.on(host, port); {
	case err != nil:
		return nil, disagree(s, "the configuration", addr)
	case s != nil:
		return in.take(s)
	}
	return listenConfigured(host, addr, port)
}

// listenBeacon is net.Listen for beacon_listen. No socket can be handed over for it: such a port is never closed.
func listenBeacon(addr string) (net.Listener, error) {
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	return listenConfigured(host, addr, port)
}

// listenConfigured opens addr, an address of the configuration with that host and port.
func listenConfigured(host, addr string, port uint16) (net.Listener, error) {
	ln, err := listenOn(context.Background(), networkOf(host), addr, port)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		err = fmt.Errorf("%w; this machine does not have the address (a socket unit with FreeBind=yes holds one that comes later)", err)
	}
	return ln, err
}

// errWider means that a socket listens on more addresses than it may be used for.
var errWider = errors.New("the socket listens on more addresses")

// on returns the socket on that port of addresses that host includes, or nil. With errWider it returns one that listens
// on every address, so that host cannot be opened beside it.
func (in *inherited) on(host string, port uint16) (*systemd.Socket, error) {
	var wider *systemd.Socket
	for _, s := range in.sockets {
		switch {
		case portOf(s) != port:
		case covers(host, s):
			return s, nil
		case s.Addr.(*net.TCPAddr).IP.IsUnspecified(): // it has a port
			wider = s
		}
	}
	if wider != nil {
		return wider, errWider
	}
	return nil, nil
}

// covers reports whether s listens on no other addresses than host names: an address, 0.0.0.0 for all of IPv4, :: or ""
// for all, or a host name.
func covers(host string, s *systemd.Socket) bool {
	tcp, ok := s.Addr.(*net.TCPAddr)
	if !ok || host == "" {
		return ok
	}
	socket := tcp.AddrPort().Addr().Unmap()
	want, err := netip.ParseAddr(host)
	if err != nil {
		ips, err := net.LookupIP(host)
		return err == nil && !tcp.IP.IsUnspecified() && slices.ContainsFunc(ips, tcp.IP.Equal)
	}
	want = want.Unmap()
	return want == socket || want == netip.IPv6Unspecified() || want == netip.IPv4Unspecified() && socket.Is4()
}

// disagree is the error for a socket that listens on more or other addresses than who, which says want.
func disagree(s *systemd.Socket, who, want string) error {
	return fmt.Errorf("socket %s listens on %s, but %s says %s: change ListenStream= in the socket unit, or %s", s.Name, s.Addr, who, want, who)
}

func (in *inherited) take(s *systemd.Socket) (net.Listener, error) {
	in.mu.Lock()
	in.taken = append(in.taken, s)
	in.mu.Unlock()
	return s.Listen()
}

// unused are the sockets that nothing listens on. Who connects to one waits without end.
func (in *inherited) unused() (addrs []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.sockets {
		if !slices.Contains(in.taken, s) {
			addrs = append(addrs, s.Name+" "+s.Addr.String())
		}
	}
	return addrs
}

func portOf(s *systemd.Socket) uint16 {
	if a, ok := s.Addr.(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}

// listen opens one port.
func listen(ctx context.Context, bind string, port uint16) (net.Listener, error) {
	host := bind
	if bind == "::" {
		host = "" // IPv6 and IPv4; IPv4 alone on a machine that knows no other
	}
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	ln, err := listenOn(ctx, networkOf(bind), addr, port)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, fmt.Errorf("%w; -B wants an address of this machine", err)
	}
	if err != nil || bind == "" || isAddr(bind) {
		return ln, err
	}
	// Some resolvers answer with it for a name that they block.
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: the name means every address (%s); -B wants 0.0.0.0 or :: for that", addr, tcp.IP)
	}
	return ln, nil
}

// networkOf returns the network of package net for a host to listen on. With "tcp", 0.0.0.0 would be IPv6 too.
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

// listenOn opens addr, which has that port.
func listenOn(ctx context.Context, network, addr string, port uint16) (net.Listener, error) {
	// No keep-alive probes: they would cost four system calls a connection to find what the server's idle
	// timeout finds without any. No Multipath TCP either, which Go offers by default and no balancer asks for.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, addr)
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
	return nil, fmt.Errorf("listen on %s: %w%s", addr, err, hint(err, port))
}

// hint says what to do about an error of listen.
func hint(err error, port uint16) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("; is another hacheck running? (ss -ltnp 'sport = :%d' shows who has the port)", port)
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
